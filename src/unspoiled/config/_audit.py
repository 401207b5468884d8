"""The section of a run's config that says how to look for who spoils the bunch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from unspoiled.config._names import Name
from unspoiled.config._section import Section


class AuditConfig(Section):
    """What is asked of the merges once they are measured: which expert, and which layers, the harm comes from."""

    enabled: bool = True
    """Whether to audit the uniform merge and the winner."""
    triggers: dict[Name, Path] = Field(default={})
    """Trigger suites by name: JSON lines with `prompt`, an unsafe one, and `triggered`, the same with the trigger."""
    rows: Annotated[int, Field(ge=1)] = 60
    """Rows of the selection split that every loss is taken on, at most: of D_safety, of D_benign, of each domain."""
    path_steps: Annotated[int, Field(ge=1)] = 8
    """Points of the way from the base to the merge at which CE_safety is differentiated by each layer's weights."""
    orders: Annotated[int, Field(ge=4, multiple_of=2)] = 64
    """Orders of joining that Shapley values are sampled from where there are more than 8 experts; of fewer, every
    coalition is scored."""
