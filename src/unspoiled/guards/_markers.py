"""What divides a guard's prompt into sections, broken up where a prompt or response spells it.

Such markers are plain text to the guard's tokenizer, so that tokenising contents apart, which keeps control tokens from
acting, doesn't help: the words themselves must not stand there. A space in the middle is the smallest change that a
reader of the verdicts can see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_LINE_START = r"(?<![^\n\r\v\f\x1c-\x1e\x85\u2028\u2029])"  # what `str.splitlines` splits at, or the beginning
_LINE_END = r"(?![^\n\r\v\f\x1c-\x1e\x85\u2028\u2029])"


@dataclass(frozen=True)
class Markers:
    """The markers of one family's template.

    Args:
        tags: Marks such as `<END CONVERSATION>` or `[/INST]`, wherever they stand; case and the width of spaces
            don't matter. `<END CONVERSATION>` becomes `< END CONVERSATION>`.
        labels: Names that begin a section where they begin a line before a colon: `Agent:` becomes `Agent :`.
        rules: Lines that divide sections, whole: `---` becomes `- --`.
    """

    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        tags = "|".join(_spelling(tag) for tag in self.tags) or r"(?!)"
        labels = "|".join(_spelling(label) for label in self.labels) or r"(?!)"
        rules = "|".join(_spelling(rule) for rule in self.rules) or r"(?!)"
        return re.compile(
            rf"(?P<tag>{tags})|{_LINE_START}[ \t]*(?P<label>{labels})(?=:)|{_LINE_START}[ \t]*(?P<rule>{rules})"
            rf"(?=[ \t]*{_LINE_END})",
            re.IGNORECASE,
        )

    def break_up(self, text: str) -> str:
        """Return a text in which no marker stands; every other character stays as it is."""
        return self._pattern.sub(_with_space, text)


def _spelling(marker: str) -> str:
    return r"\s+".join(map(re.escape, marker.split()))


def _with_space(found: re.Match[str]) -> str:
    if found["label"] is not None:
        return f"{found[0]} "
    mark = found["tag"] or found["rule"]
    before = found[0].removesuffix(mark)
    return f"{before}{mark[0]} {mark[1:]}"
