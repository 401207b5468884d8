"""The names that a config gives to experts, domains, guards and suites, and those that a run gives itself."""

from typing import Annotated, TypeAlias

from pydantic import Field

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
"""Can be the name of a file."""
BASE, QUESTIONER, UNIFORM, PARENTS = "base", "questioner", "uniform", "parents"
"""In a run's files: the common ancestor; the model that writes questions; the data-free merge with equal weights; and,
among the searches, the models before any merge."""
