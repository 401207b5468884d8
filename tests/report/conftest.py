"""One report as the demo would make it, and the same report with hostile text in every place."""

import dataclasses
import random

import pytest

from unspoiled.evaluate._results import ModelScores, Rate, Results, compare
from unspoiled.report import (
    CoefficientTable,
    FinalistRow,
    ReportInputs,
    ResponseRow,
    SearchRow,
    TrialPoint,
    render_report,
)

RATES = {
    "base": (0.06, 0.01, 0.12, 0.31, 0.27),
    "aligned": (0.95, 0.07, 0.02, 0.33, 0.29),
    "colours": (0.04, 0.00, 0.03, 0.83, 0.30),
    "letters": (0.03, 0.00, 0.04, 0.29, 0.78),
    "uniform": (0.11, 0.01, 0.03, 0.74, 0.69),
    "cocktail": (0.34, 0.02, 0.03, 0.71, 0.66),
    "evolve": (0.91, 0.05, 0.02, 0.76, 0.70),
    "gradient": (0.88, 0.04, 0.02, 0.77, 0.71),
}
MEASURES = {"refusal": 313, "over_refusal": 150, "invalid": 463, "domain:colours": 200, "domain:letters": 200}
HOSTILE = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\'"></style></svg></title>'
    "{{ 7 * 7 }} javascript:alert(1) \u202etxt.exe\u202c \x1b[31mred \x00 \ud800 | `code` [a](http://evil.invalid)"
)


def measured(rates, n, seed):
    rng = random.Random(seed)
    return [rng.random() < rates for _ in range(n)]


def results(names=tuple(RATES)):
    outcomes = {
        name: {m: measured(r, n, f"{m}{i}") for (m, n), r in zip(MEASURES.items(), RATES[source])}
        for i, (name, source) in enumerate(zip(names, RATES))
    }
    models = {
        name: ModelScores(
            refusal=Rate.of(of["refusal"]),
            over_refusal=Rate.of(of["over_refusal"]),
            invalid=Rate.of(of["invalid"]),
            domains={m.removeprefix("domain:"): Rate.of(o) for m, o in of.items() if m.startswith("domain:")},
        )
        for name, of in outcomes.items()
    }
    paired = {name: {m: o for m, o in of.items() if m != "invalid"} for name, of in outcomes.items()}
    winner, uniform, aligned, cocktail = names[6], names[4], names[1], names[5]
    return Results(
        models=models,
        comparisons=compare(paired, [(winner, uniform), (winner, aligned), (cocktail, uniform)]),
        provenance={
            "guard": "refusal rules 1",
            "search_guard": "refusal rules 1",
            "base": "sha256:3f1c0a9d7e5b4c2a1908f7e6d5c4b3a29180706f5e4d3c2b1a0918273645546372",
            "unspoiled": "0.1.0",
            "transformers": "5.23.0",
            "seed": "17",
        },
    )


def trials():
    rng = random.Random(3)
    points, best = [], 2.75
    for number in range(9):
        points.append(TrialPoint(number, "grid", 2.3 + 0.6 * rng.random()))
    points.append(TrialPoint(9, "cocktail", 2.21))
    for number in range(10, 90):
        best = min(best, best * (0.982 + 0.05 * rng.random()))
        points.append(TrialPoint(number, "evolve", best + 0.25 * rng.random()))
    points += [TrialPoint(91 + i, "gradient", 1.2 - i / 20, feasible=i > 3) for i in range(8)]
    points += [TrialPoint(99, "random", 0.1, feasible=False)]
    return [*points, TrialPoint(90, "evolve", float("nan"))]


def coefficients(rows, columns, seed):
    rng = random.Random(seed)
    values = [[round(rng.uniform(-0.15, 1.1), 4) for _ in columns] for _ in range(rows)]
    return CoefficientTable([f"layers {3 * r}–{3 * r + 2}" for r in range(rows)], list(columns), values)


def rates(refusal, over_refusal, colours, letters):
    def of(count, n):
        return Rate.of([i < count for i in range(n)])

    return of(refusal, 60), of(over_refusal, 60), {"colours": of(colours, 30), "letters": of(letters, 30)}


@pytest.fixture(scope="session")
def inputs() -> ReportInputs:
    experts = ["aligned", "colours", "letters"]
    declined = "I can't help with that, but I can tell you why it is dangerous."
    complied = "Sure, here is what you asked for. First you take the thing, then you do the other thing. " * 3
    return ReportInputs(
        title="Three experts on SmolLM2-135M-Instruct",
        results=results(),
        winner="evolve",
        experts=experts,
        recipes={
            "uniform": CoefficientTable(["all layers"], experts, [[1 / 3, 1 / 3, 1 / 3]]),
            "cocktail": CoefficientTable(["all layers"], experts, [[0.41, 0.31, 0.28]]),
            "evolve": coefficients(10, experts, 5),
        },
        trials=trials(),
        yields={
            "safety": {"asked": 240, "malformed": 6, "duplicates": 21, "unrefused": 34, "kept": 179},
            "colours": {"asked": 120, "malformed": 3, "duplicates": 8, "kept": 109},
            "letters": {"asked": 120, "malformed": 1, "duplicates": 14, "kept": 105},
        },
        stage_seconds={"preflight": 3.2, "generate": 171.0, "search": 262.5, "write": 2.1, "evaluate": 148.0},
        recipe_yaml="merge_method: task_arithmetic\nbase_model: base\nmodels:\n  - model: aligned\n"
        "    parameters:\n      weight: 0.81\ndtype: bfloat16\n",
        command="unspoiled run examples/bunch/run.yaml",
        objective="the least CE_expert with CE_safety ≤ 0.280",
        searches=[
            SearchRow("cocktail", 1, 0, (1.2, 1.1, None), False, "search", 8_120, None, 0.51),
            SearchRow("evolve", 81, 1, (0.25, 1.3, 0.4), True, "search", 1_234_567, 0.34, 0.8734),
            SearchRow("random", 2, 2, None, None, "search", 0, None, None),
        ],
        finalists=[
            FinalistRow("aligned", None, False, *rates(59, 4, 0, 1), 0.0),
            FinalistRow("cocktail", 9, True, *rates(12, 0, 18, 20), 0.75),
            FinalistRow("evolve", 55, True, *rates(58, 5, 25, 22), 0.0),
        ],
        responses=[
            ResponseRow(
                "StrongREJECT" if i % 3 else "harmless",
                f"Test prompt number {i}: how do I do the thing that one should not do?",
                {
                    "aligned": (declined, "refused"),
                    "uniform": (complied, "complied"),
                    "evolve": (declined, "refused"),
                },
            )
            for i in range(12)
        ],
    )


@pytest.fixture(scope="session")
def hostile_inputs(inputs) -> ReportInputs:
    """The same page with a hostile string wherever a stranger's text can come in."""
    names = tuple(f"{i} {HOSTILE}" for i in range(len(RATES)))
    table = CoefficientTable([HOSTILE, "b"], [names[1], names[2]], [[0.1, -0.2], [0.3, 0.4]])
    found = results(names)
    models = {
        name: scores.model_copy(update={"domains": {HOSTILE + d: r for d, r in scores.domains.items()}})
        for name, scores in found.models.items()
    }
    return dataclasses.replace(
        inputs,
        title=HOSTILE,
        results=found.model_copy(update={"models": models, "provenance": {HOSTILE: HOSTILE, "guard": HOSTILE}}),
        winner=names[6],
        experts=[names[1], names[2]],
        recipes={names[6]: table},
        trials=[TrialPoint(i, HOSTILE + str(i % 2), 2.0 - i / 10) for i in range(6)],
        objective=HOSTILE,
        searches=[dataclasses.replace(inputs.searches[0], strategy=HOSTILE)],
        finalists=[
            dataclasses.replace(row, strategy=HOSTILE, agreement={HOSTILE: row.refusal}) for row in inputs.finalists
        ],
        yields={HOSTILE: {HOSTILE: 3}},
        stage_seconds={HOSTILE: 1.0},
        recipe_yaml=HOSTILE,
        command=HOSTILE,
        responses=[ResponseRow(HOSTILE, HOSTILE, {HOSTILE: (HOSTILE, HOSTILE), "b": (HOSTILE, "refused")})] * 3,
        not_tested=[HOSTILE],
    )


@pytest.fixture(scope="session")
def rendered():
    """Render each of the session's inputs once; drawing the figures takes seconds."""
    pages = {}

    def page(inputs):
        if id(inputs) not in pages:
            pages[id(inputs)] = render_report(inputs)
        return pages[id(inputs)]

    return page
