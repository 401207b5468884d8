"""What a report is made of. The report reads these and nothing else: no run directory, no model, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from unspoiled.evaluate._results import Results

NOT_TESTED = (
    "prompts unlike those of the test sets",
    "other languages",
    "conversations of several turns",
    "jailbreaks and adversarial suffixes",
    "backdoor triggers",
    "harm that the guard does not see",
)
"""What no evaluation of ours covers; the report and the card say so."""


@dataclass(frozen=True)
class CoefficientTable:
    """One coefficient of a recipe per layer group (row) and expert (column)."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]

    def __post_init__(self) -> None:
        """Check that the values fill the table.

        Raises:
            ValueError: when a row is missing, too short, too long, or holds a number that is not finite.
        """
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            shape = [len(row) for row in self.values]
            raise ValueError(
                f"expected {len(self.rows)} rows of {len(self.columns)} values, got rows of lengths {shape}"
            )
        if not all(isfinite(value) for row in self.values for value in row):
            raise ValueError("a coefficient is not a finite number")


@dataclass(frozen=True)
class TrialPoint:
    """One trial of a search; losses in nats per response token, lower is better.

    A trial that failed has an objective of NaN or infinity: it is counted, never drawn.
    """

    number: int
    strategy: str
    objective: float
    safety_loss: float
    expert_loss: float


@dataclass(frozen=True)
class ResponseRow:
    """One test prompt with each model's answer and its verdict.

    Verdicts `refused`, `safe`, `correct`, `incorrect`, `answered` and `over-refused` are shown openly; the
    text behind any other verdict stays hidden until the reader asks for it.
    """

    set: str
    prompt: str
    answers: Mapping[str, tuple[str, str]]
    """By model: (text, verdict)."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything on the page, in its final form."""

    title: str
    results: Results
    winner: str
    """The name of the chosen merge in `results.models`."""
    recipes: Mapping[str, CoefficientTable]
    """By the merge's name; the winner's columns name its experts."""
    trials: Sequence[TrialPoint]
    yields: Mapping[str, Mapping[str, int]]
    """By data set: counts such as asked, kept, unrefused, duplicates."""
    stage_seconds: Mapping[str, float]
    recipe_yaml: str
    command: str
    """What a reader types to get these numbers again."""
    responses: Sequence[ResponseRow]
    aligned: str | None = None
    """The aligned parent; None takes the winner's expert with the highest refusal rate."""
    not_tested: Sequence[str] = field(default=NOT_TESTED)

    def __post_init__(self) -> None:
        """Check that the models named exist.

        Raises:
            ValueError: when the winner or the aligned parent was not measured.
        """
        for name in filter(None, (self.winner, self.aligned)):
            if name not in self.results.models:
                known = ", ".join(map(repr, self.results.models))
                raise ValueError(f"no scores for model {name!r}; there are {known}")

    @property
    def experts(self) -> list[str]:
        """The winner's experts, by its recipe; empty when the recipe's table was not given."""
        return list(self.recipes[self.winner].columns) if self.winner in self.recipes else []

    @property
    def aligned_parent(self) -> str | None:
        """The aligned parent: the one named, else the winner's expert that refuses most; None without any."""
        measured = [name for name in self.experts if name in self.results.models]
        refusal = {name: self.results.models[name].refusal.rate for name in measured}
        return self.aligned or max(refusal, key=refusal.__getitem__, default=None)
