"""The names that a config gives to experts, domains, guards and suites: each can be the name of a file."""

from typing import Annotated, TypeAlias

from pydantic import Field

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
