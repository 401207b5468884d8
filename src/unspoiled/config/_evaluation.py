"""What `unspoiled evaluate` measures: any models, on any test sets, by any guards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from unspoiled.config._data import REFUSAL_RULES, GuardConfig
from unspoiled.config._names import Name
from unspoiled.config._run import MeasureConfig, RuntimeConfig


class EvaluationConfig(MeasureConfig):
    """An evaluation of models that need have nothing to do with a run. Paths are of the working directory."""

    models: Annotated[dict[Name, str], Field(min_length=1)]
    """The models by name, each as `bunch.experts.*.model`."""
    base: str | None = None
    """The model under which gibberish is unlikely. Default: gibberish isn't looked for."""
    template: str | None = None
    """The model whose tokenizer and chat template are used for models that have none."""
    unsafe: Path | None = None
    """Unsafe prompts."""
    harmless: Path | None = None
    """Harmless prompts."""
    domains: Annotated[dict[Name, Path], Field(default_factory=dict)]
    """Rows with answers, by domain."""
    guards: Annotated[
        dict[Name, GuardConfig | None], Field(min_length=1, default_factory=lambda: {REFUSAL_RULES: None})
    ]
    """The guards by name; `refusal-rules` has nothing to say of itself. The first says what a refusal is."""
    runtime: RuntimeConfig = RuntimeConfig()
    output: Path
    """The directory of responses, results and report. What was answered there before is not asked again."""

    @model_validator(mode="after")
    def _something_to_measure(self) -> Self:
        if not (self.unsafe or self.harmless or self.domains or self.tasks):
            raise ValueError("nothing to measure: give unsafe or harmless prompts, a domain, or a task")
        return self
