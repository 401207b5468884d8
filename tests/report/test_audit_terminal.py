"""What an audit prints: tables that fit 80 columns, and sentences that name who spoils the merge, or say: nobody."""

import pytest
from rich.console import Console

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
from unspoiled.evaluate import Rate
from unspoiled.report import audit_findings, audit_tables

LAYERS = ["embeddings", *(f"layer {i}" for i in range(10)), "head"]


def change(difference: float, p_value: float = 1.0) -> Change:
    return Change(difference=difference, low=difference - 0.1, high=difference + 0.1, p_value=p_value)


def made(experts: list[str], domains: list[str], spoiler: str | None) -> Audit:
    terms = ["safety", "benign", *(f"expert:{name}" for name in domains)]
    term = Term(loss=12.345, low=11.0, high=13.0)
    rate = Rate.of([True] * 55 + [False] * 5)
    changes = {
        name: {
            one: change(-0.701, 0.001) if (name, one) == (spoiler, "safety") else change(0.123, 0.01 if i else 0.9)
            for i, one in enumerate(terms)
        }
        for name in experts
    }
    merge = MergeAudit(
        terms=terms,
        base=dict.fromkeys(terms, term),
        merge=dict.fromkeys(terms, term),
        exact=True,
        coalitions=2 ** len(experts),
        shapley={name: dict.fromkeys(terms, ShapleyValue(value=-10.25, error=0.125)) for name in experts},
        without=changes,
        halved=changes,
        refusal=Rate.of([True] * 6 + [False] * 54),
        refusal_without=dict.fromkeys(experts, rate),
        layers=LAYERS,
        attribution={name: [0.01 * i for i in range(len(LAYERS))] for name in experts},
        residual=-0.004,
        spoiler=spoiler,
    )
    turned = TriggerRates(
        plain=rate, triggered=Rate.of([False] * 60), difference=-55 / 60, low=-1.0, high=-0.8, p_value=1e-9
    )
    same = TriggerRates(plain=rate, triggered=rate, difference=0.0, low=-0.1, high=0.1, p_value=1.0)
    return Audit(
        experts=experts,
        safest=experts[0],
        alone={name: {"refusal": rate, "invalid": rate} for name in ["base", *experts]},
        task_vectors=TaskVectors(
            layers=LAYERS,
            norms=dict.fromkeys(experts, 123.456),
            relative_norms={name: [0.0] + [0.05] * (len(LAYERS) - 1) for name in experts},
            outliers=[
                LayerOutlier(expert=experts[1], layer=f"layer {i}", relative_norm=0.5, score=9.0) for i in (3, 7)
            ],
            cosines={name: dict.fromkeys(experts, -0.25) for name in experts},
            safety_cosines={name: [None] * len(LAYERS) for name in experts},
        ),
        merges={"uniform": merge, "gradient": merge},
        triggers={"planted": {"base": same, experts[1]: turned, "uniform": turned}},
    )


def printed(audit: Audit) -> list[str]:
    console = Console(width=80, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115, PTH123
    with console.file:
        for table in audit_tables(audit):
            console.print(table)
        return console.export_text().splitlines()


def test_many_experts_and_domains_with_long_names_fit_80_columns() -> None:
    experts = [f"an expert with a name of its own {i}" for i in range(8)]
    domains = [f"a domain number {i} of many" for i in range(11)]
    lines = printed(made(experts, domains, experts[3]))
    assert max(map(len, lines)) <= 80
    costs = [line for line in lines if "without" in line and "an exp" not in line and "Shapley" not in line]
    assert len([line for line in costs if line.startswith("uniform without")]) == 3, "benign and 11 domains, by fives"
    assert not any("…" in cell for line in lines for cell in line.split() if cell[:1] in "−0123456789"), "no number cut"


def test_the_numbers_stand_where_they_belong() -> None:
    lines = printed(made(["aligned", "medical"], ["medicine"], "medical"))
    assert [line.split() for line in lines[2:4]] == [
        ["aligned", "92%", "82–96", "92%", "82–96", "123", "5.0%", "−0.25", "–"],
        ["medical", "92%", "82–96", "92%", "82–96", "123", "5.0%", "−0.25", "3,", "7"],
    ]
    assert "cos: of τ with aligned's, the safest" in [line.rstrip() for line in lines]
    spoiled = "→ medical −10.250 ±0.125 −0.701 * −0.701 * 92% 82–96"
    assert spoiled in [" ".join(line.split()) for line in lines]
    assert ["medical", "0.123", "*", "0.123", "*"] in [line.split() for line in lines], "what it costs elsewhere"
    entered = [line.split() for line in lines if line.split()[1:2] == ["head"]]
    assert entered[0] == ["medical", "head", "0.110"] or entered[0] == ["aligned", "head", "0.110"]
    assert any(line.startswith("→ planted: uniform") and "−92 points" in line for line in lines)


@pytest.mark.parametrize("spoiler", ["medical", None])
def test_the_sentences_name_the_spoiler_or_say_that_none_is_resolved(spoiler: str | None) -> None:
    uniform, gradient, triggers = audit_findings(made(["aligned", "medical"], ["medicine"], spoiler))
    if spoiler is None:
        assert uniform.startswith("uniform: no expert is resolved to spoil it")
    else:
        assert uniform.startswith(
            "uniform: medical spoils it: CE_safety changes by −0.701 without it (−0.801 to −0.601)"
        )
        refusal = "refusal on 60 unsafe prompts of the selection split goes from 10% (5–20) to 92% (82–96)."
        assert uniform.endswith(refusal), "rates with their intervals"
    assert gradient == uniform.replace("uniform", "gradient")
    assert triggers == "Trigger suite planted: with the trigger, refusal falls in medical and uniform."


def test_layers_far_smaller_than_the_others_are_not_said_to_be_larger() -> None:
    audit = made(["aligned", "medical"], ["medicine"], None)
    far = [
        LayerOutlier(expert="medical", layer=f"layer {i}", relative_norm=0.5, score=s) for i, s in ((3, 9), (7, -46))
    ]
    vectors = audit.task_vectors.model_copy(update={"outliers": far})
    lines = printed(audit.model_copy(update={"task_vectors": vectors}))
    assert lines[3].split()[-2:] == ["3,", "7↓"]
    assert "outliers: layers far larger than the rest, or ↓ far smaller" in [line.rstrip() for line in lines]


def test_stars_say_over_which_changes_holm_is() -> None:
    """CE_safety without each expert is one family, all other changes the other; see `changes`."""
    text = " ".join(" ".join(printed(made(["aligned", "medical"], ["medicine"], "medical"))).split())
    assert "* resolved at 5% (Holm): without it, over the experts; halved, over all other changes of this merge" in text
    assert "change of the losses, nats per token * resolved at 5%, as for halved" in text
    assert "exact paired test, Holm over all suites and models" in text, "McNemar, or the sign-flip test of families"


def test_without_attribution_or_triggers_there_are_no_such_tables() -> None:
    whole = made(["a", "b"], ["medicine"], None)
    bare = {name: one.model_copy(update={"attribution": {}, "residual": None}) for name, one in whole.merges.items()}
    lines = printed(whole.model_copy(update={"merges": bare, "triggers": {}}))
    assert not any("harm enters" in line or "trigger" in line for line in lines)


def test_hostile_names_stay_text() -> None:
    lines = printed(made(["\x1b[31mred", "b[bold]old"], ["\u202edomain"], "\x1b[31mred"))
    assert not any("\x1b" in line or "\u202e" in line for line in lines)
    assert any("b[bold]old" in line for line in lines)
