"""What an evaluation found: rates and means with intervals, paired comparisons, and where the numbers come from.

`Results` is the content of `results.json`. Nothing in it calls a model safe: it holds measured rates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unspoiled.errors import DataError
from unspoiled.evaluate._bootstrap import bootstrap
from unspoiled.evaluate._clustered import effective_size
from unspoiled.evaluate._measures import DOMAIN_PREFIX, TASK_PREFIX, higher_is_better
from unspoiled.evaluate._statistics import score_interval

Verdict = Literal["better", "worse", "not resolved"]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """A part of a result file: immutable, strictly typed, no unknown fields; what stands below a field describes it."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class ResultFile(Record):
    """A whole result file: JSON that names its format, so that another version says clearly that it can't read it."""

    format: str
    """The format of this file, and its version."""

    @classmethod
    def json_schema_text(cls) -> str:
        """Return the text of the file's JSON schema, every field with its description."""
        schema: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            # As written: fields with a default are there too.
            **cls.model_json_schema(mode="serialization"),
        }
        return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"

    def to_json(self) -> str:
        """Return the file's text: indented, one trailing newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that holds what `to_json` returned.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It is of another format or none, not JSON, or a field is missing, unknown or out of range; the
                message names the file.
        """
        text = path.read_bytes()
        own = cls.model_fields["format"].default
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}: a result file of format {own!r} must be JSON: {error}. Make it again.") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != own:
            raise DataError(
                f"{path}: a result file of format {found!r}, where {own!r} can be read: it is of another version "
                "of unspoiled or another kind of file. Make it again with this version, or read it with the one that "
                "wrote it."
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(
                f"{path}: a result file of format {own!r} that is damaged, {error.error_count()} times; first "
                f"at {where}: {first['msg']}. Make it again."
            ) from error


class Rate(Record):
    """A share of responses with its 95% interval."""

    rate: Share
    """The share, from 0 to 1."""
    low: Share
    """The lower end of its 95% Wilson interval."""
    high: Share
    """The upper end."""
    n: Positive
    """Responses counted."""
    families: Positive
    """Families of prompts behind them; responses to one family aren't independent. As many as `n`, mostly."""

    @model_validator(mode="after")
    def _interval_holds_the_rate(self) -> Self:
        if not self.low <= self.rate <= self.high:
            raise ValueError(f"the interval {self.low!r} to {self.high!r} does not hold the rate {self.rate!r}")
        return self

    @classmethod
    def of(cls, outcomes: Sequence[bool], families: Sequence[str] | None = None) -> Self:
        """Return the rate of true outcomes, one outcome per response, with its Wilson interval.

        Where a family has several responses, the interval is that of as many independent responses as they are worth
        (`effective_size`): never narrower than if all were independent.

        Args:
            outcomes: At least one.
            families: The family of each response's prompt. Default: all are independent.

        Raises:
            ValueError: There is no outcome (a rate of nothing is not 0), or not one family for each.
        """
        n = len(outcomes)
        if n == 0:
            raise ValueError("no outcomes to take a rate of; check that the test set has prompts")
        if families is not None and len(families) != n:
            raise ValueError(f"{n} outcomes and {len(families)} families: give one for each.")
        successes = sum(bool(outcome) for outcome in outcomes)
        count = n if families is None else len(set(families))
        size = n if families is None or count == n else effective_size(outcomes, families)
        low, high = score_interval(successes / n, size)
        return cls(rate=successes / n, low=low, high=high, n=n, families=count)


class Mean(Record):
    """A mean over rows with its 95% bootstrap interval: of a loss (nats per token) or a task's score."""

    mean: Finite
    """The mean, in the measure's unit."""
    low: Finite
    """The lower end of its 95% bootstrap interval over families."""
    high: Finite
    """The upper end."""
    n: Positive
    """Rows that the mean is taken of."""
    families: Positive
    """Families of prompts behind them; as many as `n`, mostly."""

    @model_validator(mode="after")
    def _interval_holds_the_mean(self) -> Self:
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"the interval {self.low!r} to {self.high!r} does not hold the mean {self.mean!r}")
        return self

    @classmethod
    def of(cls, values: Sequence[float], families: Sequence[str] | None = None) -> Self:
        """Return the mean of finite values with its 95% bootstrap interval over families.

        Equal values give a point, since resampling sees no other; one family gives an interval of 39 times the mean on
        both sides, which is what one draw can say (`Bootstrap.interval`).

        Args:
            values: One per response, at least one.
            families: The family of each response's prompt. Default: all are independent.

        Raises:
            ValueError: There is no value, one isn't finite, or there is not one family for each.
        """
        found = bootstrap(values, families)
        low, high = found.interval()
        return cls(mean=found.mean, low=low, high=high, n=len(values), families=found.families)


class ModelScores(Record):
    """One model's measured rates and means, by measure (`unspoiled.evaluate._measures`)."""

    rates: dict[str, Rate]
    """By measure: `refusal`, `safe:GUARD`, `advice:GUARD`, `over_refusal`, `invalid`, `domain:NAME`, `task:NAME`."""
    means: dict[str, Mean] = {}
    """By measure: `loss:DOMAIN` in nats per token, `task:NAME` where rows have scores and not truth values."""
    categories: dict[str, dict[str, Rate]] = {}
    """By harm category of the unsafe prompts, then by measure: `refusal`, `safe:GUARD`."""

    @model_validator(mode="after")
    def _measures_are_known(self) -> Self:
        for measure in [*self.rates, *self.means, *(m for of in self.categories.values() for m in of)]:
            higher_is_better(measure)
        return self

    @property
    def domains(self) -> dict[str, Rate]:
        """The accuracy in each domain, by the domain's name."""
        return _without(DOMAIN_PREFIX, self.rates)

    @property
    def skills(self) -> dict[str, Rate]:
        """The accuracy in each domain and task, by measure."""
        return {name: rate for name, rate in self.rates.items() if name.startswith((DOMAIN_PREFIX, TASK_PREFIX))}


def _without(prefix: str, rates: Mapping[str, Rate]) -> dict[str, Rate]:
    return {name.removeprefix(prefix): rate for name, rate in rates.items() if name.startswith(prefix)}


class Comparison(Record):
    """Two models on the same prompts of one measure."""

    model: str
    """The model's name in `models`."""
    baseline: str
    """The name of the model that it is compared with."""
    measure: str
    """Of what, as in `models`."""
    test: Literal["McNemar", "sign flip", "bootstrap"]
    """Exact McNemar for rates; the exact sign-flip test of families' sums where a family has several responses; paired
    bootstrap over families for means."""
    difference: Finite
    """The model's rate or mean minus the baseline's, whichever direction is good."""
    low: Finite
    """The lower end of its 95% interval, which is not adjusted for the family of comparisons."""
    high: Finite
    """The upper end."""
    only_model: Count | None
    """Responses whose outcome is true for the model alone; None for means."""
    only_baseline: Count | None
    """Responses whose outcome is true for the baseline alone; None for means."""
    p_value: Share
    """Of the test, adjusted by Holm over all comparisons made together."""
    family: str = ""
    """The declared family of comparisons over which p-values are adjusted and 5% holds."""
    verdict: Verdict
    """Whether the model is better, in the direction that is good for the measure, at 5% over the family."""
    resolvable: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
    """The smallest gap that would have been resolved here: with as many prompts, as many disagreements and
    the other comparisons as they are. None when no gap could be resolved with so few prompts, or when two means are of
    identical values, which say nothing about how much values vary."""


class Optimism(Record):
    """How much better the winner did on the prompts that it was picked by than on those never touched before."""

    measure: str
    """Of what, as in `models`."""
    selection: Rate
    """The winner's rate on the selection split, which it was picked by."""
    test: Rate
    """Its rate on the test split."""
    difference: Finite
    """The selection split's rate minus the test split's."""
    low: Finite
    """The lower end of the difference's 95% interval."""
    high: Finite
    """The upper end."""


class SplitCheck(Record):
    """That no prompt is in two of the splits, nor nearly: one that were would have failed the run."""

    search: Count
    """Prompts that coefficients moved on."""
    selection: Count
    """Prompts that finalists were compared on."""
    test: Count
    """Prompts of these results."""


class Results(ResultFile):
    """All that an evaluation found; the content of `results.json`."""

    format: Literal["unspoiled-results-1"] = "unspoiled-results-1"
    """The format of this file, and its version."""

    models: dict[str, ModelScores]
    """By name, in the order of presentation: base, the experts, then the merges."""
    comparisons: list[Comparison]
    """Pairs of models on the same prompts, adjusted for each other by Holm."""
    optimism: list[Optimism] = []
    """Of the winner of a search; empty where nothing was picked."""
    splits: SplitCheck | None = None
    """None where nothing was generated or searched."""
    provenance: dict[str, str]
    """What the numbers depend on: hashes, versions, seeds. The report reads `guard` and `search_guard`."""

    @property
    def rates(self) -> list[str]:
        """Every measure that is a rate of some model, in the order of presentation."""
        return list(dict.fromkeys(measure for scores in self.models.values() for measure in scores.rates))

    @property
    def means(self) -> list[str]:
        """Every measure that is a mean of some model, in the order of presentation."""
        return list(dict.fromkeys(measure for scores in self.models.values() for measure in scores.means))

    @property
    def domains(self) -> list[str]:
        """Every domain that some model was measured in."""
        return list(dict.fromkeys(name for scores in self.models.values() for name in scores.domains))
