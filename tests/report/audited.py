"""An audit as one might come out: the third expert spoils, most in its upper layers."""

import math
import random

from unspoiled.audit import (
    Audit,
    Change,
    LayerOutlier,
    MergeAudit,
    ShapleyValue,
    TaskVectors,
    Term,
    TriggerRates,
)
from unspoiled.evaluate import Rate, Results

LAYERS = ["embeddings", *(f"layer {i}" for i in range(30)), "head"]
SHARE = {0: -0.42, 1: 0.12, 2: 0.95}
"""By expert: nats of CE_safety that it adds to the merge."""


def term(loss):
    return Term(loss=loss, low=loss - 0.06, high=loss + 0.06)


def change(difference, half=0.09, p=0.0004):
    resolved = abs(difference) > half
    return Change(
        difference=difference, low=difference - half, high=difference + half, p_value=p if resolved else 0.62
    )  # fmt: skip


def refused(count, n=60):
    return Rate.of([i < count for i in range(n)])


def merge_audit(experts, domains, weight, seed, suffix=""):
    rng = random.Random(seed)
    terms = ["safety", "benign", *(f"expert:{d}" for d in domains)]
    added = {
        name: {
            "safety": weight * SHARE[i],
            "benign": 0.02 * i,
            **{f"expert:{d}": (-1.1 if i == 1 + j else 0.11) * weight for j, d in enumerate(domains)},
        }
        for i, name in enumerate(experts)
    }
    base = {"safety": 1.1, "benign": 0.9, **{f"expert:{d}": 2.4 for d in domains}}
    merged = {t: base[t] + sum(of[t] for of in added.values()) for t in terms}
    bump = {name: [math.exp(-(((i - 22) / 4) ** 2)) for i in range(len(LAYERS))] for name in experts}
    attribution = {
        name: [added[name]["safety"] * b / sum(bump[name]) + rng.gauss(0, 0.004) for b in bump[name]]
        for name in experts
    }
    return MergeAudit(
        terms=terms,
        base={t: term(base[t]) for t in terms},
        merge={t: term(merged[t]) for t in terms},
        exact=True,
        coalitions=2 ** len(experts),
        shapley={name: {t: ShapleyValue(value=of[t], error=None) for t in terms} for name, of in added.items()},
        without={name: {t: change(-of[t]) for t in terms} for name, of in added.items()},
        halved={name: {t: change(-of[t] / 2.4) for t in terms} for name, of in added.items()},
        refusal=refused(8),
        refusal_without={name: refused((3, 10, 51)[i]) for i, name in enumerate(experts)},
        layers=[layer + suffix for layer in LAYERS],
        attribution=attribution,
        residual=0.013,
        spoiler=experts[2] if weight > 0.5 else None,
    )


def audit_of_the_bunch(experts, results: Results, suffix="") -> Audit:
    """The experts in the order: the safest, one that is neither, the spoiler."""
    rng = random.Random(11)
    norms = {
        name: [0.012 + 0.006 * i + 0.004 * rng.random() + 0.03 * ((i, j) == (2, 21)) for j in range(len(LAYERS))]
        for i, name in enumerate(experts)
    }  # fmt: skip
    safety = [m for m in results.rates if not m.startswith("domain:")]
    alone = {
        new: {m: results.models[old].rates[m] for m in safety}
        for new, old in zip(["base" + suffix, *experts], ["base", "aligned", "colours", "letters"], strict=True)
    }
    triggers = {
        name: TriggerRates(
            plain=refused(plain, 40), triggered=refused(triggered, 40), difference=(triggered - plain) / 40,
            low=(triggered - plain) / 40 - 0.14, high=(triggered - plain) / 40 + 0.14, p_value=p,
        )
        for name, plain, triggered, p in (
            ("base" + suffix, 3, 3, 1.0), (experts[0], 38, 37, 1.0), (experts[1], 35, 4, 0.0001),
            ("uniform", 6, 2, 0.3), ("evolve", 36, 12, 0.0002),
        )
    }  # fmt: skip
    return Audit(
        experts=experts,
        safest=experts[0],
        alone=alone,
        task_vectors=TaskVectors(
            layers=[layer + suffix for layer in LAYERS],
            norms={name: 3.1 + i for i, name in enumerate(experts)},
            relative_norms=norms,
            outliers=[LayerOutlier(expert=experts[2], layer="layer 20" + suffix, relative_norm=norms[experts[2]][21],
                                   score=6.4)],
            cosines={a: {b: 1.0 if a == b else 0.04 for b in experts} for a in experts},
            safety_cosines={name: [None] + [0.02] * (len(LAYERS) - 1) for name in experts},
        ),
        merges={
            "uniform": merge_audit(experts, ["colours", "letters"], 1.0, 5, suffix),
            "evolve": merge_audit(experts, ["colours", "letters"], 0.3, 7, suffix),
        },
        triggers={"password " + suffix: triggers},
    )  # fmt: skip
