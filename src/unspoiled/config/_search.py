"""The section of a run's config that says what to search, by which strategies, and what for."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unspoiled.config._section import Section

StrategyName = Literal["grid", "cocktail", "random", "evolve", "gradient", "pareto", "sweep"]


class ObjectiveConfig(Section):
    """What a search wants."""

    kind: Literal["constrained", "weighted"] = "constrained"
    """`constrained`: the least CE_expert with CE_safety, and CE_benign, no higher than the safest expert's;
    `weighted`: the least J = CE_safety + α · CE_expert + β · CE_benign."""
    safety_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of `constrained`: how far CE_safety may be above the safest expert's (less the margin), in nats per token."""
    safety_margin: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Of `constrained`: the share of the safest expert's CE_safety that the merge must stay below it. A search makes
    the merge surer of the wording of refusals, so that at equal CE it refuses less often."""
    benign_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    """Of `constrained`: how far CE_benign may be above the safest expert's, in nats per token."""
    refusal_tokens: Annotated[int, Field(ge=1)] | None = 5
    """CE_safety and CE_benign are taken over so many of a response's first tokens, where it is decided whether a model
    refuses; null for whole responses, as in the paper."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Of `weighted`: α."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of `weighted`: β; the paper has none."""


Interval = Annotated[tuple[float, float], Field(strict=False)]


class SearchConfig(Section):
    """How the coefficients are searched."""

    method: str = "task_arithmetic"
    """The merge method whose parameters move; any that `docs/methods` lists."""
    parameters: Annotated[dict[str, Interval], Field(min_length=1)] = Field(default={"weight": (0.0, 1.5)})
    """The method's parameters that move, each with its smallest and largest value."""
    fixed: dict[str, float | bool] = Field(default={})
    """The method's other parameters, where they shall differ from their defaults."""
    granularity: Literal["model", "group", "smooth", "layer", "module", "tensor"] = "model"
    """One value per expert, per expert and group of layers, per expert and knot with values between interpolated over
    depth, per expert and layer, per expert, layer and module kind (attention, MLP ...), or per expert and tensor."""
    layer_groups: Annotated[int, Field(ge=1)] = 4
    """Number of groups for `granularity: group`, of knots for `smooth`."""
    strategies: Annotated[tuple[StrategyName, ...], Field(min_length=1, strict=False)] = ("cocktail", "gradient")
    """Which strategies to run; the uniform merge is always measured beside them."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What the strategies look for."""
    trials: Annotated[int, Field(ge=1)] = 100
    """Trials each of `random`, `evolve` and `pareto`; of `evolve` as many whole generations as fit, at least one."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    """Initial step of `evolve`, σ₀, of a parameter whose range is 1.5 wide; of others in proportion."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """How often `evolve` starts again when it has converged, each time with a larger population."""
    race: bool = True
    """Stop trials of `evolve` on a part of the rows once they are surely no use; they can't be finalists."""
    steps: Annotated[int, Field(ge=1)] = 60
    """Steps of `gradient`, rounded up to a multiple of 5; `sweep` takes one point per 10 of them, and one more."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Rows of each set per step of `gradient` and `sweep`, and per worker: all workers' rows make one step."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """About how far the first steps of `gradient` and `sweep` move a coefficient whose range is 1.5 wide; others in
    proportion, and later steps less."""
    prior: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """How strongly `gradient` and `sweep` are pulled to their start, so that few rows don't overfit many
    coefficients: nats per token at a distance of 1 of all of them."""
    patience: Annotated[int, Field(ge=1)] = 4
    """After how many checks on the selection split (one in 5 steps) without a better merge `gradient` ends."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """T of `cocktail`'s softmax(−loss / T); its weights are where `evolve`, `gradient` and `sweep` start, too."""
    finalists: Annotated[int, Field(ge=1)] = 3
    """How many of each strategy's best trials write answers on the selection split, where the winner is picked."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the strategies."""

    @model_validator(mode="after")
    def _ordered_ranges(self) -> Self:
        for name, (low, high) in self.parameters.items():
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"parameters.{name} {[low, high]} is not [smallest, largest]")
        if both := sorted(self.parameters.keys() & self.fixed.keys()):
            raise ValueError(f"{both[0]!r} is under both `parameters` and `fixed`: it moves, or it doesn't")
        return self

    @model_validator(mode="after")
    def _distinct_strategies(self) -> Self:
        if len(set(self.strategies)) < len(self.strategies):
            raise ValueError(f"strategies {list(self.strategies)} names one twice: name each once")
        return self
