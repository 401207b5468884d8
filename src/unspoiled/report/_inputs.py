"""What a report is made of. The report reads these and nothing else: no run directory, no model, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from unspoiled.evaluate import REFUSAL, Rate, Results

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
    """One candidate of a search, by what the search minimises, in nats per response token.

    A trial that failed has an objective of NaN or infinity: it is counted, never drawn. One that breaks a limit is
    drawn as a cross, and is never the best.
    """

    number: int
    strategy: str
    objective: float
    feasible: bool = True


@dataclass(frozen=True)
class SearchRow:
    """What one strategy did, and its best candidate by loss."""

    strategy: str
    trials: int
    failed: int
    losses: tuple[float, float, float | None] | None
    """CE_safety, CE_expert and CE_benign of the best, in nats per response token; None if there is none."""
    feasible: bool | None
    """Whether the best keeps the limits."""
    split: str
    """Whose rows the candidates were scored on."""
    tokens: int
    """What the trials cost, in tokens of a forward pass."""
    saved: float | None
    """The share of that cost saved by stopping hopeless trials early, in [0, 1]."""
    volume: float | None
    """The hypervolume of the candidates' front, in [0, 1]; None without candidates."""


@dataclass(frozen=True)
class FinalistRow:
    """What one finalist wrote on the selection split; the safest expert, whose rates are the limits, has no trial."""

    strategy: str
    trial: int | None
    chosen: bool
    """Whether it is its strategy's choice."""
    refusal: Rate
    over_refusal: Rate | None
    agreement: Mapping[str, Rate]
    """By domain: how often it answered as the domain's expert."""
    broken: float
    """By how much its rates break the safest expert's, beyond one standard error, as a share."""


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
    experts: Sequence[str]
    """The experts' names."""
    recipes: Mapping[str, CoefficientTable]
    """By the merge's name."""
    trials: Sequence[TrialPoint]
    yields: Mapping[str, Mapping[str, int]]
    """By data set: counts such as asked, kept, unrefused, duplicates."""
    stage_seconds: Mapping[str, float]
    recipe_yaml: str
    command: str
    """What a reader types to get these numbers again."""
    responses: Sequence[ResponseRow]
    aligned: str | None = None
    """The aligned parent; None takes the expert with the highest refusal rate."""
    objective: str = ""
    """What the search minimised, in a phrase."""
    searches: Sequence[SearchRow] = ()
    finalists: Sequence[FinalistRow] = ()
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
    def aligned_parent(self) -> str | None:
        """The aligned parent: the one named, else the expert that refuses most; None without any."""
        measured = [name for name in self.experts if name in self.results.models]
        refusal = {name: self.results.models[name].rates[REFUSAL].rate for name in measured}
        return self.aligned or max(refusal, key=refusal.__getitem__, default=None)
