"""Everything that is wrong, at once: steps of a check of which each may fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from unspoiled.errors import PreflightError, UnspoiledError

Made = TypeVar("Made")


class Attempts:
    """The steps of a check, and the problems that they met."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def make(self, make: Callable[[], Made], *, of: str = "") -> Made | None:
        """Return what `make` returns; if it fails, remember what is wrong (with `of`, what is) and return None."""
        try:
            return make()
        except UnspoiledError as error:
            self.problems.append(f"{of}: {error}" if of else str(error))
        except OSError as error:
            self.problems.append(f"{error.filename}: {error.strerror}. Check the path in the config.")
        return None

    def found(self, problems: Iterable[str]) -> None:
        """Remember problems that were found otherwise."""
        self.problems += problems

    def require_none(self, where: str = "before any work") -> None:
        """Check that nothing was wrong.

        Raises:
            PreflightError: Something was; the message lists everything that is.
        """
        if self.problems:
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            listed = "\n".join(f"  - {problem}" for problem in self.problems)
            raise PreflightError(f"{count} {where}:\n{listed}")
