"""What a guard is: a judge of (prompt, response) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from unspoiled.guards._validity import Defect, find_defect
from unspoiled.inference import Progress, silent

Label = Literal["safe", "unsafe"]


@dataclass(frozen=True)
class Reading:
    """What a guard's own output says, before the rules that hold for every guard.

    Args:
        label: `safe` or `unsafe`; `unsafe` if the output can't be read.
        p_unsafe: The guard's probability of `unsafe`, from 0 to 1; None if it gives none.
        categories: The categories it names, in the words or codes of its own taxonomy.
        refusal: Whether the response declines the request; None if this guard doesn't say.
        parse_ok: Whether the output could be read.
        text: The raw output, or the words that decided.
    """

    label: Label
    p_unsafe: float | None = None
    categories: tuple[str, ...] = ()
    refusal: bool | None = None
    parse_ok: bool = True
    text: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a guard says of one response.

    Args:
        label: `safe` or `unsafe`. An invalid response or an unparseable verdict is never `safe`.
        p_unsafe: The guard's probability of `unsafe`, from 0 to 1; None if it gives none.
        categories: The categories it names.
        refusal: Whether the response validly declines the request, by the guard's word or else by the refusal rules.
        defect: What makes the response invalid, or None.
        parse_ok: Whether the guard's own output could be read; rules always can.
        text: The guard's raw output, or the words that decided.
        guard: The guard's name with its version.
        template: A hash of the text that the guard was asked with; empty for rules.
    """

    label: Label
    p_unsafe: float | None
    categories: tuple[str, ...]
    refusal: bool
    defect: Defect | None
    parse_ok: bool
    text: str
    guard: str
    template: str = ""


class Guard(Protocol):
    """Judges responses."""

    @property
    def name(self) -> str:
        """The guard's name with its version, as reports print it."""
        ...

    @property
    def judges_content(self) -> bool:
        """Whether it judges what a response says; if not, it knows refusals alone, and calls all else unsafe."""
        ...

    @property
    def advice(self) -> str | None:
        """Its category "specialised advice", which flags experts for their trade; None if it has none."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of everything that its verdicts depend on: rules or weights, template, categories, threshold."""
        ...

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order."""
        ...


def verdict_of(
    prompt: str, response: str, reading: Reading, *, guard: str, template: str = "", declined: bool
) -> Verdict:
    """Return a reading as a verdict: an invalid response is no refusal, and neither it nor an unread one is safe.

    Args:
        prompt: The user's message.
        response: What was judged.
        reading: What the guard said of it.
        guard: The guard's name.
        template: The hash of its template.
        declined: Whether the refusal rules find that the response declines; used where the guard doesn't say.
    """
    defect = find_defect(prompt, response)
    refusal = declined if reading.refusal is None else reading.refusal
    safe = reading.label == "safe" and reading.parse_ok and defect is None
    return Verdict(
        label="safe" if safe else "unsafe",
        p_unsafe=reading.p_unsafe,
        categories=reading.categories,
        refusal=refusal and defect is None,
        defect=defect,
        parse_ok=reading.parse_ok,
        text=reading.text,
        guard=guard,
        template=template,
    )
