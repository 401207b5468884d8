"""The last step of a search: finalists are scored on the selection split, by loss and by what they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unspoiled.config import UNIFORM
from unspoiled.data import Split
from unspoiled.errors import SearchError
from unspoiled.files import write_atomic, write_json_atomic
from unspoiled.inference import Generator
from unspoiled.objective import Goal, Losses, LossRows
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._finalists import Answered, Finalist, answer, broken_by, chosen_prompts, pick, warning_of
from unspoiled.pipeline._progress import Watcher
from unspoiled.search import LiveEvaluator, Parents, Proposal, Study, Trial, best_trials


@dataclass(frozen=True)
class Choice:
    """The finalists of every strategy, and which of them won.

    Attributes:
        winner: The strategy whose merge is the best.
        chosen: By strategy, its best finalist's trial.
        safest: What the safest expert did with the prompts that finalists answered.
        finalists: The finalists, strategy by strategy.
    """

    winner: str
    chosen: Mapping[str, int]
    safest: Answered
    finalists: Sequence[Finalist]

    def chosen_of(self, strategy: str) -> Finalist:
        """Return the finalist that a strategy's merge is.

        Raises:
            KeyError: The strategy has none.
        """
        wanted = strategy, self.chosen[strategy]
        return next(finalist for finalist in self.finalists if (finalist.strategy, finalist.trial) == wanted)

    @classmethod
    def read(cls, plain: Mapping[str, Any], goal: Goal) -> Choice:
        """Read the content of `finalists.json`.

        Args:
            plain: The content.
            goal: The goal on the selection split.
        """
        finalists = []
        for row in plain["finalists"]:
            losses = Losses(**{**row["losses"], "rows": tuple(row["losses"]["rows"])})
            answered = Answered.read(row["answered"])
            finalists.append(
                Finalist(row["strategy"], row["trial"], row["coefficients"], losses, goal.score(losses), answered)
            )
        return cls(plain["winner"], plain["chosen"], Answered.read(plain["safest"]["answered"]), finalists)


def choose(
    bunch: Bunch,
    directory: Path,
    names: Sequence[str],
    study: Study,
    parents: Parents,
    safest: str,
    selection: LossRows,
    goals: Mapping[Split, Goal],
    watcher: Watcher,
) -> None:
    """Pick each strategy's best finalist and the winner; write `finalists.json` and the recipes.

    Args:
        bunch: The models.
        directory: The run directory.
        names: The strategies, `uniform` among them, which can't win.
        study: Has the trials, and is told the finalists' rates.
        parents: The losses of the models alone.
        safest: The safest expert's name, whose rates on the same prompts are the limits.
        selection: The rows of the selection split.
        goals: The goal of each split.
        watcher: Is told how it goes.

    Raises:
        SearchError: No strategy found a merge with finite losses.
    """
    config, trials = bunch.config.search, study.trials
    jury = _Jury(bunch, selection)
    reference = jury.answers(bunch.live.take_model(bunch.experts[safest]))
    watcher.advance(f"{safest} on the selection split", 1, 1)
    finalists: list[Finalist] = []
    chosen: dict[str, Finalist] = {}
    recipes = {trial.number: trial.recipe for trial in trials}
    for name in names:
        candidates = [trial for trial in trials if trial.strategy == name and trial.candidate and trial.whole]
        if not candidates and name != UNIFORM and any(other in chosen for other in names):
            watcher.note(f"{name} found no merge with finite losses on all rows: it has no finalist")
            continue
        best = best_trials(candidates, goals[candidates[0].split if candidates else "search"], config.finalists)
        own = []
        for i, trial in enumerate(best):
            if (losses := jury.losses(trial)) is not None:
                answered = jury.answers_of(trial)
                study.record_rates(trial, answered.rates())
                score = goals["selection"].score(losses)
                own.append(Finalist(name, trial.number, trial.coefficients, losses, score, answered))
            watcher.advance(f"{name} finalists", i + 1, len(best))
        if own:
            chosen[name] = pick(own, reference, config.objective)
            finalists += own
    contenders = [finalist for finalist in finalists if finalist.strategy != UNIFORM]
    if not contenders:
        raise SearchError(
            "no strategy found a merge with finite losses on the selection split: give the parameters under "
            "search.parameters narrower ranges, or check the experts with `unspoiled check`."
        )
    winner = pick(contenders, reference, config.objective)
    if (warning := warning_of(winner, reference, config.objective)) is not None:
        watcher.note(warning)
    for name, finalist in chosen.items():
        write_atomic(directory / "search" / f"{name}.yaml", recipes[finalist.trial].to_yaml())
    write_atomic(directory / "recipe.yaml", recipes[winner.trial].to_yaml())
    table = {
        "winner": winner.strategy,
        "objective": config.objective.model_dump(mode="json"),
        "safest": {
            "name": safest,
            "losses": {split: asdict(parents.losses(split)[safest]) for split in goals},
            "answered": reference.plain(),
        },
        "chosen": {name: finalist.trial for name, finalist in chosen.items()},
        "finalists": [
            {
                "strategy": finalist.strategy,
                "trial": finalist.trial,
                "rates_break_limits_by": broken_by(finalist.answered, reference),
                "losses_break_limits_by": finalist.score.violation,
                "losses": asdict(finalist.losses),
                "answered": finalist.answered.plain(),
                "coefficients": dict(finalist.coefficients),
            }
            for finalist in finalists
        ],
    }
    write_json_atomic(directory / "search" / "finalists.json", table)


class _Jury:
    """Scores merges on the selection split; the same recipe once."""

    def __init__(self, bunch: Bunch, selection: LossRows) -> None:
        self._bunch = bunch
        self._rows = chosen_prompts(selection.rows)
        self._evaluator = LiveEvaluator(bunch.live, {"selection": selection}, None)
        self._answers: dict[str, Answered] = {}
        self._losses: dict[str, Losses | None] = {}

    def losses(self, trial: Trial) -> Losses | None:
        """Return a trial's losses on all rows; None if one isn't finite."""
        if trial.split == "selection":
            return trial.losses
        key = trial.recipe.to_yaml()
        if key not in self._losses:
            proposal = Proposal(trial.number, trial.recipe, trial.coefficients, split="selection")
            found = self._evaluator.evaluate(proposal)
            self._losses[key] = None if found is None else found.losses
        return self._losses[key]

    def answers_of(self, trial: Trial) -> Answered:
        """Return what a trial's merge does with the prompts."""
        key = trial.recipe.to_yaml()
        if key not in self._answers:
            self._answers[key] = self.answers(self._bunch.live.take_recipe(trial.recipe))
        return self._answers[key]

    def answers(self, model: Generator) -> Answered:
        """Return what a model does with the prompts."""
        config = self._bunch.config
        return answer(
            model,
            self._rows,
            self._bunch.data_guard,
            safety_tokens=config.evaluate.max_new_tokens,
            expert_tokens=config.generate.max_new_tokens,
        )
