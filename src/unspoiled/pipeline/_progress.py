"""What a run tells while it works."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Is told how a run goes; the CLI draws it, scripts may ignore it."""

    def begin(self, stage: str) -> None:
        """A stage begins."""
        ...

    def advance(self, what: str, done: int, total: int) -> None:
        """Part of a stage is done: `done` of `total` items of `what`."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...

    def kept(self, stage: str) -> None:
        """A stage had nothing to do: its products are there already."""
        ...


class Unwatched:
    """A `Watcher` that tells nobody."""

    def begin(self, stage: str) -> None:
        """Ignore it."""

    def advance(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def kept(self, stage: str) -> None:
        """Ignore it."""
