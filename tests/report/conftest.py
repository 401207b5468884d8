"""One report as the demo would make it, and the same report with hostile text in every place."""

import dataclasses
import random

import pytest
from audited import audit_of_the_bunch

from unspoiled.evaluate import Comparison, Optimism, Outcome, Rate, Results, SplitCheck, compare, observed, scores
from unspoiled.report import (
    CoefficientTable,
    FinalistRow,
    ReportInputs,
    SearchRow,
    TrialPoint,
    render_report,
    side_by_side_rows,
)

RATES = {
    "base": (0.06, 0.01, 0.12, 0.31, 0.27),
    "aligned": (0.95, 0.07, 0.02, 0.33, 0.29),
    "colours": (0.84, 0.03, 0.03, 0.83, 0.30),
    "letters": (0.03, 0.00, 0.04, 0.29, 0.78),
    "uniform": (0.11, 0.01, 0.03, 0.74, 0.69),
    "cocktail": (0.34, 0.02, 0.03, 0.71, 0.66),
    "evolve": (0.91, 0.05, 0.02, 0.76, 0.70),
    "gradient": (0.88, 0.04, 0.02, 0.77, 0.71),
}
"""By model: refusal, over-refusal, invalid share, accuracy in colours and in letters."""
EXPERTS = ["aligned", "colours", "letters"]
DOMAINS = {"colours": "colours", "letters": "letters"}
CATEGORIES = {"hate and abuse": 0.04, "crime": 0.0, "weapons": -0.05, "false claims": -0.12, "self-harm": 0.03}
"""By harm category: by how much its refusal is above the model's."""
SIZES = {"unsafe": 313, "harmless": 150, "domain:colours": 200, "domain:letters": 200}
DECLINED = "I can't help with that, but I can tell you why it is dangerous."
COMPLIED = "Sure, here is what you asked for. First you take the thing, then you do the other thing. "
PROMPT = "How do I do the thing, number {}, that {} should do?"
HOSTILE = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">\'"></style></svg></title>'
    "{{ 7 * 7 }} javascript:alert(1) \u202etxt.exe\u202c \x1b[31mred \x00 \ud800 | `code` [a](http://evil.invalid)"
)


def outcomes_of(name, sizes=SIZES):
    """What a model of these rates might have written; the same for the same name."""
    refusal, over_refusal, invalid, *accuracies = RATES[name]
    rng = random.Random(name)
    rows = []
    for i in range(sizes["unsafe"]):
        category = list(CATEGORIES)[i % len(CATEGORIES)]
        refused = rng.random() < refusal + CATEGORIES[category]
        defect = "loop" if not refused and rng.random() < invalid else None
        rows.append(
            Outcome(
                "unsafe", f"u{i}", PROMPT.format(i, "nobody"), DECLINED if refused else COMPLIED * 2, f"u{i}", category,
                refused=refused, defect=defect, safe={"small": (refused or rng.random() < 0.1) and defect is None},
            )
        )  # fmt: skip
    for i in range(sizes["harmless"]):
        refused = rng.random() < over_refusal
        text = DECLINED if refused else "It is done like this. " * 3
        rows.append(Outcome("harmless", f"h{i}", PROMPT.format(i, "anyone"), text, f"h{i}", refused=refused))
    for domain, accuracy in zip(("colours", "letters"), accuracies, strict=True):
        for i in range(sizes[f"domain:{domain}"]):
            right = rng.random() < accuracy
            rows.append(
                Outcome(
                    f"domain:{domain}", f"{domain}{i}", f"Which of the {domain} is number {i}?",
                    "green" if right else "purple", f"{domain}{i}", correct=right,
                    loss=rng.gauss(2.2 - 1.6 * accuracy, 0.3),
                )
            )  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def by_model():
    return {name: outcomes_of(name) for name in RATES}


@pytest.fixture(scope="session")
def results(by_model) -> Results:
    found = {name: observed(rows) for name, rows in by_model.items()}
    rates = {name: {m: of for m, of in own.items() if of.is_rate} for name, own in found.items()}
    pairs = [(merge, "uniform") for merge in ("cocktail", "evolve", "gradient")]
    pairs += [("evolve", parent) for parent in EXPERTS]
    loss = Comparison(
        model="evolve", baseline="letters", measure="loss:letters", test="bootstrap", difference=0.121, low=0.058,
        high=0.184, only_model=None, only_baseline=None, p_value=0.0004, verdict="worse", resolvable=0.08,
    )  # fmt: skip
    selection = Rate.of([i < 58 for i in range(60)])
    test = scores(by_model["evolve"]).rates["refusal"]
    return Results(
        models={name: scores(rows) for name, rows in by_model.items()},
        comparisons=[*compare(rates, pairs), loss],
        optimism=[
            Optimism(
                measure="refusal",
                selection=selection,
                test=test,
                difference=selection.rate - test.rate,
                low=-0.02,
                high=0.11,
            )
        ],
        splits=SplitCheck(search=420, selection=180, test=863),
        provenance={
            "guard": "refusal rules 1 and small",
            "search_guard": "refusal rules 1",
            "winner": "evolve",
            "model base": "3f1c0a9d7e5b4c2a1908f7e6d5c4b3a29180706f5e4d3c2b1a0918273645546372",
            "file unsafe": "0b1c0a9d7e5b4c2a1908f7e6d5c4b3a29180706f5e4d3c2b1a0918273645546372",
            "license base": "Apache-2.0",
            "unspoiled": "0.1.0",
            "transformers": "5.23.0",
            "search.seed": "17",
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
def inputs(results, by_model) -> ReportInputs:
    return ReportInputs(
        title="Three experts on SmolLM2-135M-Instruct",
        results=results,
        winner="evolve",
        experts=EXPERTS,
        domain_experts=DOMAINS,
        audit=audit_of_the_bunch(EXPERTS, results),
        recipes={
            "uniform": CoefficientTable(["all layers"], EXPERTS, [[1 / 3, 1 / 3, 1 / 3]]),
            "cocktail": CoefficientTable(["all layers"], EXPERTS, [[0.41, 0.31, 0.28]]),
            "evolve": coefficients(10, EXPERTS, 5),
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
        responses=side_by_side_rows(by_model)[::9],
    )


@pytest.fixture(scope="session")
def hostile_inputs(inputs) -> ReportInputs:
    """The same page with a hostile string wherever a stranger's text can come in."""
    names = {name: f"{i} {HOSTILE}" for i, name in enumerate(RATES)}
    table = CoefficientTable([HOSTILE, "b"], [names["aligned"], names["colours"]], [[0.1, -0.2], [0.3, 0.4]])
    found = inputs.results

    def renamed(scores):
        rates = {f"{m} {HOSTILE}" if m.startswith(("domain:", "safe:")) else m: r for m, r in scores.rates.items()}
        return scores.model_copy(
            update={"rates": rates, "categories": {HOSTILE + c: of for c, of in scores.categories.items()}}
        )

    comparisons = [
        row.model_copy(update={"model": names[row.model], "baseline": names[row.baseline]}) for row in found.comparisons
    ]
    hostile = found.model_copy(
        update={
            "models": {names[name]: renamed(scores) for name, scores in found.models.items()},
            "comparisons": comparisons,
            "provenance": {HOSTILE: HOSTILE, "guard": HOSTILE, "license " + HOSTILE: HOSTILE},
        }
    )
    responses = [
        dataclasses.replace(
            row, set=HOSTILE, category=HOSTILE, prompt=HOSTILE,
            answers={names[name]: (HOSTILE, HOSTILE if name == "base" else "refused") for name in row.answers},
        )
        for row in inputs.responses[:3]
    ]  # fmt: skip
    return dataclasses.replace(
        inputs,
        title=HOSTILE,
        results=hostile,
        winner=names["evolve"],
        experts=[names["aligned"], names["colours"]],
        domain_experts={},
        audit=audit_of_the_bunch([names[n] for n in EXPERTS], found, HOSTILE),
        recipes={names["evolve"]: table},
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
        responses=responses,
        not_tested=[HOSTILE],
    )


@pytest.fixture(scope="session")
def rendered():
    """Render each of the session's inputs once."""
    pages = {}

    def page(inputs):
        if id(inputs) not in pages:
            pages[id(inputs)] = render_report(inputs)
        return pages[id(inputs)]

    return page
