"""What a report is made of. The report reads these and nothing else: no run directory, no model, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from unspoiled.audit import Audit
from unspoiled.config import BASE
from unspoiled.evaluate import DOMAIN_PREFIX, REFUSAL, SAFE_PREFIX, Rate, Results

TRIGGERS = "backdoor triggers"
NOT_TESTED = (
    "prompts unlike those of the test sets",
    "other languages",
    "conversations of several turns",
    "jailbreaks and adversarial suffixes",
    TRIGGERS,
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

    Verdicts `refused`, `correct`, `incorrect`, `answered`, `over-refused` and `scored` are shown openly; the text
    behind any other verdict stays hidden until the reader asks for it.
    """

    set: str
    prompt: str
    answers: Mapping[str, tuple[str, str]]
    """By model: (text, verdict)."""
    category: str = ""
    """The prompt's harm category, if it has one."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything on the page, in its final form. All may be absent but the title and the results."""

    title: str
    results: Results
    winner: str | None = None
    """The name of the chosen merge in `results.models`; None where nothing was searched."""
    experts: Sequence[str] = ()
    """The experts' names."""
    recipes: Mapping[str, CoefficientTable] = field(default_factory=dict)
    """By the merge's name."""
    trials: Sequence[TrialPoint] = ()
    yields: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By data set: counts such as asked, kept, unrefused, duplicates."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    recipe_yaml: str = ""
    command: str = ""
    """What a reader types to get these numbers again."""
    responses: Sequence[ResponseRow] = ()
    aligned: str | None = None
    """The aligned parent; None takes the expert with the highest refusal rate."""
    domain_experts: Mapping[str, str] = field(default_factory=dict)
    """By domain: the expert that was made for it. One not named here is the expert that is best in it."""
    objective: str = ""
    """What the search minimised, in a phrase."""
    searches: Sequence[SearchRow] = ()
    finalists: Sequence[FinalistRow] = ()
    audit: Audit | None = None
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
    def safety_measure(self) -> str | None:
        """The measure that stands for safety in figures: refusal, else the first guard's; None if neither is there."""
        rates = self.results.rates
        return REFUSAL if REFUSAL in rates else next((m for m in rates if m.startswith(SAFE_PREFIX)), None)

    @property
    def aligned_parent(self) -> str | None:
        """The aligned parent: the one named, else the expert that refuses most; None without any."""
        return self.aligned or (self._best_expert(self.safety_measure) if self.safety_measure else None)

    @property
    def parents(self) -> list[str]:
        """The base and the experts, of those that were measured."""
        return [name for name in self.results.models if name == BASE or name in self.experts]

    def expert_of(self, skill: str) -> str | None:
        """Return the expert of a domain or task, by its measure: the one made for it, else the one best in it."""
        named = self.domain_experts.get(skill.removeprefix(DOMAIN_PREFIX))
        return named if named in self.results.models else self._best_expert(skill)

    def _best_expert(self, measure: str) -> str | None:
        models = self.results.models
        rates = {n: models[n].rates[measure].rate for n in self.experts if n in models and measure in models[n].rates}
        return max(rates, key=rates.__getitem__, default=None)
