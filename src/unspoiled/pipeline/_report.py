"""The stage that writes the report: what a run found, in the report's own terms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unspoiled.audit import Audit
from unspoiled.config import Recipe
from unspoiled.evaluate import Results, comparisons_csv, read_outcomes, results_csv
from unspoiled.files import hash_value, write_atomic
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._finalists import broken_by
from unspoiled.pipeline._generate import tallies
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._search import SearchResult, described_goal
from unspoiled.report import (
    NOT_TESTED,
    TRIGGERS,
    CoefficientTable,
    FinalistRow,
    ReportInputs,
    SearchRow,
    TrialPoint,
    side_by_side_rows,
    write_report,
)
from unspoiled.search import EMBEDDINGS, SearchSpace, block_label

_TABLES = ("results.csv", "comparisons.csv")


def remove_report(run: RunDirectory) -> None:
    """Remove what `report` wrote: what it shows is about to be replaced, and nobody should see the old with the new."""
    for name in ("report.html", *_TABLES):
        (run.path / name).unlink(missing_ok=True)


def report(run: RunDirectory, inputs: ReportInputs, watcher: Watcher) -> Path:
    """Write `report.html`, `results.csv` and `comparisons.csv` in the run directory; return the first's path."""
    path, tables = run.path / "report.html", [run.path / name for name in _TABLES]
    watcher.begin("report")

    def write() -> None:
        for table, text in zip(tables, (results_csv(inputs.results), comparisons_csv(inputs.results)), strict=True):
            write_atomic(table, text)
        write_report(inputs, path)

    audited = None if inputs.audit is None else hash_value(inputs.audit.to_json())
    if not run.step("report", [run.digest("results"), run.digest("search:selection"), audited], [path, *tables], write):
        watcher.kept("report")
    return path


def report_inputs(
    bunch: Bunch, run: RunDirectory, found: SearchResult, results: Results, audit: Audit | None, command: str
) -> ReportInputs:
    """Return what the run found, in the report's own terms."""
    experts = bunch.config.bunch.experts
    outcomes = {name: read_outcomes(run.path / "evaluation" / f"{name}.jsonl") for name in results.models}
    return ReportInputs(
        title=f"{run.path.name}: {' + '.join(bunch.experts)}",
        results=results,
        winner=found.winner,
        experts=list(bunch.experts),
        recipes={n: _coefficients(list(bunch.experts), bunch.space, r) for n, r in found.recipes.items()},
        trials=_trial_points(found),
        searches=search_rows(found),
        finalists=_finalist_rows(found),
        objective=described_goal(found.goals["search"]),
        yields={title: dict(tally.total) for title, tally in tallies(bunch, run).items()},
        stage_seconds=stage_seconds(run),
        recipe_yaml=found.recipes[found.winner].to_yaml(),
        command=command,
        responses=side_by_side_rows(outcomes),
        aligned=found.safest,
        domain_experts={expert.domain: name for name, expert in experts.items() if expert.domain is not None},
        audit=audit,
        not_tested=[what for what in NOT_TESTED if what != TRIGGERS or audit is None or not audit.triggers],
    )


def stage_seconds(run: RunDirectory) -> dict[str, float]:
    """Return the seconds that each stage took, its steps added up."""
    stages = {
        "questions": "generate",
        "answers": "generate",
        "verdicts": "generate",
        "dataset": "generate",
        "data": "generate",
        "results": "evaluate",
        "card": "evaluate",
    }
    total: dict[str, float] = {}
    for step, seconds in run.seconds.items():
        first = step.partition(":")[0]
        stage = stages.get(first, first)
        total[stage] = round(total.get(stage, 0.0) + seconds, 3)
    return total


def search_rows(found: SearchResult) -> list[SearchRow]:
    """Return what each strategy did, as the report and the terminal show it."""
    return [
        SearchRow(
            strategy=summary.name,
            trials=summary.trials,
            failed=summary.failed,
            losses=None if summary.best is None else (summary.best.safety, summary.best.expert, summary.best.benign),
            feasible=None if summary.score is None else summary.score.feasible,
            split=summary.split,
            tokens=summary.tokens,
            saved=summary.saved,
            volume=summary.volume,
        )
        for summary in found.summaries
    ]


def _trial_points(found: SearchResult) -> list[TrialPoint]:
    """Return the candidates of every strategy; one that a race stopped counts by its estimated losses."""
    points = []
    for trial in found.trials:
        if trial.candidate and trial.losses is not None and trial.rows is None:
            score = found.goals[trial.split].score(trial.losses)
            points.append(TrialPoint(trial.number, trial.strategy, score.value, score.feasible))
        elif trial.candidate and trial.evaluation is None:
            points.append(TrialPoint(trial.number, trial.strategy, float("nan"), False))
    return points


def _finalist_rows(found: SearchResult) -> list[FinalistRow]:
    choice = found.choice
    best = {trial: name for name, trial in choice.chosen.items()}
    rows = [
        FinalistRow(
            strategy=finalist.strategy,
            trial=finalist.trial,
            chosen=best.get(finalist.trial) == finalist.strategy,
            refusal=finalist.answered.refusal,
            over_refusal=finalist.answered.over_refusal,
            agreement=finalist.answered.agreement,
            broken=broken_by(finalist.answered, choice.safest),
        )
        for finalist in choice.finalists
    ]
    safest = choice.safest
    reference = FinalistRow(
        strategy=found.safest, trial=None, chosen=False, refusal=safest.refusal, over_refusal=safest.over_refusal,
        agreement=safest.agreement, broken=0.0,
    )  # fmt: skip
    return [reference, *rows]


def _coefficients(experts: Sequence[str], space: SearchSpace, recipe: Recipe) -> CoefficientTable:
    """Return a recipe's coefficients by layers and by expert, module kind and parameter, as the heat map shows them."""
    by_layer = space.granularity in {"layer", "module", "tensor", "smooth"}
    blocks = [range(i, i + 1) for i in range(space.layers)] if by_layer else space.blocks
    kinds = {kind: texts[0] for kind, texts in space.kinds.items() if kind != EMBEDDINGS} or {"": ""}
    columns: list[str] = []
    values: list[list[float]] = [[] for _ in blocks]
    models = list(space.experts) if len(recipe.models) == len(space.experts) else experts  # by order: paths may change
    own = [name for name in space.ranges if _sets(recipe, name)] or ["weight"]
    for name in own:
        owners = [None] if name in recipe.parameters else list(range(len(recipe.models)))
        for owner in owners:
            expert = "merge" if owner is None else models[owner]
            for kind, text in kinds.items():
                columns.append(" ".join(filter(None, [expert, kind, "" if name == "weight" else name])))
                for row, block in zip(values, blocks, strict=True):
                    value = recipe.parameter(name, owner, tensor=text, layer=block[0], layers=space.layers)
                    row.append(float(value or 0.0))
    labels = ["all layers"] if len(blocks) == 1 else [f"layers {block_label(b)}" for b in blocks]
    return CoefficientTable(labels, columns, values)


def _sets(recipe: Recipe, name: str) -> bool:
    return name in recipe.parameters or any(name in entry.parameters for entry in recipe.models)
