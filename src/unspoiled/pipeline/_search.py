"""The stage that searches the coefficients, and picks the winner by what finalists write on other prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from unspoiled.config import BASE, PARENTS, UNIFORM, Recipe, SearchConfig, read_recipe
from unspoiled.data import Row, Split
from unspoiled.errors import SearchError
from unspoiled.files import hash_value
from unspoiled.objective import Constrained, Goal, LossRows, WeightedSum
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._choice import Choice, choose
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._executors import Executors
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._strategies import Circumstances, Plan, make_strategy, why_nothing_was_added
from unspoiled.pipeline._summary import StrategySummary, summarise
from unspoiled.search import Parents, Range, SearchSpace, Study, Trial, sqlite_url

SPLITS: tuple[Split, ...] = ("search", "selection")


@dataclass(frozen=True)
class SearchResult:
    """What a search chose.

    Args:
        recipes: The best recipe of each strategy by its name, `uniform` first.
        winner: The strategy whose recipe is the best of all by what it writes on the selection split.
        trials: Every trial, the models alone (`parents`) and minibatches included.
        goals: What was minimised, by split.
        safest: The safest expert's name.
        choice: The finalists, and how the winner was picked.
        summaries: What each strategy did.
    """

    recipes: Mapping[str, Recipe]
    winner: str
    trials: Sequence[Trial]
    goals: Mapping[Split, Goal]
    safest: str
    choice: Choice
    summaries: Sequence[StrategySummary]


def search(
    bunch: Bunch,
    run: RunDirectory,
    rows: Sequence[Row],
    watcher: Watcher,
    *,
    more: int = 0,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> SearchResult:
    """Run the strategies on the search split, then pick among their finalists on the selection split.

    Every trial merges in memory; all are in one study. The models alone come first: the limits are the safest expert's
    losses. The uniform merge competes as a baseline and can't win: it is what the search must beat.

    Args:
        bunch: The models and data.
        run: The run directory.
        rows: The generated rows of both splits.
        watcher: Is told how it goes.
        more: Raise the budget of every strategy that has one by so many trials or steps beyond what was done.
        on_trial: Called with every trial that ends now, those of an earlier process left out.

    Raises:
        SearchError: The study is of another objective, or no merge has finite losses.
    """
    config, runtime = bunch.config.search, bunch.config.runtime
    folder = run.path / "search"
    folder.mkdir(exist_ok=True)
    watcher.begin("search")
    data = {split: LossRows.of_split(rows, split, refusal_tokens=config.objective.refusal_tokens) for split in SPLITS}
    content = [bunch.models_hash, hash_value([[row.id, row.response, row.split] for row in rows])]
    study = _open_study(bunch, folder, data["search"], content)
    trials = study.trials
    known_ends = {trial.number for trial in trials}

    def ended(trial: Trial) -> None:
        if trial.number not in known_ends:
            on_trial(trial)

    place = [runtime.storage, runtime.study]
    plan_path = folder / ("plan.json" if place == [None, "unspoiled"] else f"plan-{hash_value(place)[:8]}.json")
    known = Plan.read(plan_path)
    plan = known or Plan.begun(config, runtime.workers)
    if more and plan.granted != more:
        plan = plan.raised(trials, more, data["search"], config)
    if plan != known:
        plan.write(plan_path)
    names = [UNIFORM, *config.strategies]
    for name in {PARENTS, *names} - {trial.strategy for trial in trials}:
        run.forget(f"search:{name}")  # its trials were in a study that is gone
    identity = [config.model_dump(mode="json"), content, place]
    outputs = [folder / "study.db"] if runtime.storage is None else []

    with closing(study), Executors(bunch, data) as executors:
        models = {name: str(source.ref) for name, source in {BASE: bunch.base, **bunch.experts}.items()}

        def score_parents() -> None:
            parents = Parents(models, dtype=bunch.config.merge.dtype)
            study.run(
                parents, executors.local(None), progress=_counter(watcher, ended, "models alone", 2 * len(models))
            )

        worked = run.step(f"search:{PARENTS}", identity, outputs, score_parents)
        parents = _told(Parents(models, dtype=bunch.config.merge.dtype), study.trials)
        safest = _safest(bunch, parents, watcher)
        goals = {split: _goal(config, parents, safest, split) for split in SPLITS}
        watcher.note(described_goal(goals["search"]))
        given = Circumstances(
            config, bunch.space, _all_experts(bunch), data["search"], parents, safest, goals["search"],
            goals["selection"], plan,
        )  # fmt: skip
        for name in names:

            def run_strategy(name: str = name) -> None:
                total = plan.budgets.get(name, 0)
                executor = executors.of_workers(goals["search"])
                study.run(
                    make_strategy(name, given), executor, progress=_counter(watcher, ended, f"{name} trials", total)
                )

            inputs = [*identity, plan.budgets.get(name), plan.shards]
            worked |= run.step(f"search:{name}", inputs, outputs, run_strategy)
        before, trials = Counter(trial.strategy for trial in trials), study.trials
        after = Counter(trial.strategy for trial in trials)
        for name in plan.budgets if more else ():
            if after[name] == before[name]:
                watcher.note(why_nothing_was_added(name, given))
        worked |= run.step(
            "search:selection",
            [run.digest(f"search:{name}") for name in [PARENTS, *names]],
            [folder / "finalists.json", run.path / "recipe.yaml", folder / f"{UNIFORM}.yaml"],
            lambda: choose(bunch, run.path, names, study, parents, safest, data["selection"], goals, watcher),
        )
    if plan.granted:
        plan.ended().write(plan_path)
    if not worked:
        watcher.kept("search")
    return _read(folder, names, trials, goals, safest)


def _open_study(bunch: Bunch, folder: Path, rows: LossRows, content: Sequence[str]) -> Study:
    """Open the run's study; what its trials' losses depend on, and what they are compared by, must be the same."""
    config, runtime = bunch.config.search, bunch.config.runtime
    models, data = content
    return Study(
        runtime.storage or sqlite_url(folder / "study.db"),
        runtime.study,
        terms=rows.terms,
        objective={
            "objective": config.objective.model_dump(mode="json"),
            "safety_expert": bunch.config.bunch.safety_expert,
            "method": config.method,
            "parameters": {name: list(ends) for name, ends in config.parameters.items()},
            "fixed": config.fixed,
            "granularity": config.granularity,
            "layer_groups": config.layer_groups,
            "dtype": bunch.config.merge.dtype,
            "models": models,
            "data": data,
        },
    )


def _told(parents: Parents, trials: Sequence[Trial]) -> Parents:
    """Tell the strategy what the study recorded of it."""
    recorded = {trial.proposal: trial for trial in trials if trial.strategy == parents.name}
    while (proposal := parents.ask()) is not None:
        parents.tell(proposal, recorded[proposal.number].evaluation)
    return parents


def _safest(bunch: Bunch, parents: Parents, watcher: Watcher) -> str:
    """Return the expert that merges must be as safe as: the config's, else the one of least CE_safety."""
    found = {split: parents.losses(split) for split in SPLITS}
    able = [name for name in bunch.experts if all(name in losses for losses in found.values())]
    stated = bunch.config.bunch.safety_expert
    if not able or (stated is not None and stated not in able):
        raise SearchError(
            f"the losses of {stated or 'every expert'!r} on the generated data are not finite, or memory ran out: "
            "there is no limit to search under. Check the experts with `unspoiled check`, or lower runtime.batch_size."
        )
    losses = found["search"]
    safest = stated or min(able, key=lambda name: losses[name].safety)
    why = "as bunch.safety_expert says" if stated else "the lowest CE_safety of all experts"
    watcher.note(f"safest expert: {safest} ({why}, {losses[safest].safety:.3f} nats per token)")
    return safest


def _goal(config: SearchConfig, parents: Parents, safest: str, split: Split) -> Goal:
    wanted = config.objective
    if wanted.kind == "weighted":
        return WeightedSum(wanted.alpha, wanted.beta)
    return Constrained.beside(
        parents.losses(split)[safest],
        safety_tolerance=wanted.safety_tolerance,
        benign_tolerance=wanted.benign_tolerance,
        safety_margin=wanted.safety_margin,
    )


def described_goal(goal: Goal) -> str:
    """Return what is minimised, in a phrase."""
    if isinstance(goal, Constrained):
        limits = " and ".join(f"CE_{term} ≤ {limit:.3f}" for term, limit in goal.limits.items())
        return f"objective: the least CE_expert with {limits}"
    assert isinstance(goal, WeightedSum)
    return f"objective: the least CE_safety + {goal.alpha:g}·CE_expert + {goal.beta:g}·CE_benign"


def _all_experts(bunch: Bunch) -> SearchSpace:
    """Return a space whose experts are all of the bunch's: a method for two models has the first as its base."""
    space = bunch.space
    if list(space.experts) == list(bunch.experts):
        return space
    return SearchSpace(
        method="linear",
        base=str(bunch.base.ref),
        experts={name: str(source.ref) for name, source in bunch.experts.items()},
        layers=space.layers,
        ranges={"weight": Range(0.0, 1.0, 1 / len(bunch.experts))},
        dtype=space.dtype,
    )


def _read(
    folder: Path, names: Sequence[str], trials: Sequence[Trial], goals: Mapping[Split, Goal], safest: str
) -> SearchResult:
    choice = Choice.read(json.loads((folder / "finalists.json").read_text(encoding="utf-8")), goals["selection"])
    return SearchResult(
        recipes={name: read_recipe(folder / f"{name}.yaml") for name in names if name in choice.chosen},
        winner=choice.winner,
        trials=trials,
        goals=goals,
        safest=safest,
        choice=choice,
        summaries=[summarise(name, trials, goals) for name in names],
    )


def _counter(watcher: Watcher, ended: Callable[[Trial], None], what: str, total: int) -> Callable[[Trial], None]:
    """Return what tells the watcher, and `ended`, of each trial."""
    made = 0

    def count(trial: Trial) -> None:
        nonlocal made
        made += 1
        ended(trial)
        watcher.advance(what, made, max(total, made))

    return count
