"""How a family of guard models is asked, and how its answers are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from unspoiled.files import hash_value
from unspoiled.guards._markers import Markers
from unspoiled.guards._protocol import Label, Reading
from unspoiled.inference import mark

_GAPS = re.compile(r"\{(prompt|response)\}")


@dataclass(frozen=True)
class Question:
    """One prompt put to the guard for each pair.

    Args:
        template: The whole prompt, with `{prompt}` and `{response}` where the contents belong.
        about: The category that it asks about; empty if the answer names the categories.
    """

    template: str
    about: str = ""

    def skeleton(self) -> tuple[str, list[str]]:
        """Return the template with marks in place of its gaps, and the gaps' names by mark."""
        names: list[str] = []

        def marked(gap: re.Match[str]) -> str:
            names.append(gap[1])
            return mark(len(names) - 1)

        return _GAPS.sub(marked, self.template), names


@dataclass(frozen=True)
class Answer:
    """What the guard wrote to one question.

    Args:
        text: Its words, control tokens left out.
        p: The probabilities of the family's unsafe and safe word where the guard began to write, that is in place of
            the first token that isn't blank; None if all are.
    """

    text: str
    p: tuple[float, float] | None = None


Read = Callable[[Sequence[Answer], float | None], Reading]
"""Reads the answers to a pair's questions, given the threshold on p_unsafe, or None for the written label."""


@dataclass(frozen=True)
class GuardFormat:
    """A family's format, with its options chosen.

    Args:
        questions: Asked of every pair, in this order; at least one.
        read: Turns the answers into a reading. Anything unexpected is unsafe and not parsed.
        markers: What must not stand in contents.
        control: Control tokens that the family's tokenizer must have.
        words: The unsafe and the safe word whose probabilities the family defines; None if it defines none.
        most_tokens: Longest answer, in tokens.
        strips: Whether the template takes the white space off the ends of contents.
        begins: Whether the tokenizer's beginning-of-text token comes first, which the template doesn't write.
        reading: What was chosen of how answers are read, in words.
    """

    questions: tuple[Question, ...]
    read: Read
    markers: Markers
    control: tuple[str, ...] = ()
    words: tuple[str, str] | None = None
    most_tokens: int = 64
    strips: bool = False
    begins: bool = False
    reading: str = ""

    @property
    def fingerprint(self) -> str:
        """A hash of the text that the guard is asked with, and of what was chosen of the reading."""
        asked = [[question.template, question.about] for question in self.questions]
        broken = [self.markers.tags, self.markers.labels, self.markers.rules]
        return hash_value([asked, broken, self.strips, self.begins, self.reading])

    def content(self, text: str) -> str:
        """Return a prompt or response as it is put into the template."""
        return self.markers.break_up(text.strip() if self.strips else text)

    def render(self, prompt: str, response: str) -> list[str]:
        """Return the text of every question of a pair."""
        contents = {"prompt": self.content(prompt), "response": self.content(response)}
        return [_GAPS.sub(lambda gap: contents[gap[1]], question.template) for question in self.questions]


def read_template(name: str, **values: str) -> str:
    """Return the package's template of that name, with those of its gaps filled that don't differ between pairs."""
    text = resources.files("unspoiled.guards").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")
    for gap, value in values.items():
        text = text.replace(f"{{{gap}}}", value)
    return text


def unread(text: str) -> Reading:
    """Return the reading of an answer that can't be read."""
    return Reading("unsafe", parse_ok=False, text=text)


_LEAST_MASS = 0.1  # below it, both words are so unlikely that their ratio says nothing


def share_of_unsafe(answer: Answer) -> float | None:
    """Return P(unsafe word) / (P(unsafe word) + P(safe word)); None where nothing was watched, or both are unlikely."""
    if answer.p is None or sum(answer.p) < _LEAST_MASS:
        return None
    return answer.p[0] / sum(answer.p)


def label_of(written: Label, p_unsafe: float | None, threshold: float | None) -> Label:
    """Return the label: by the threshold if there are a threshold and a probability, else the written one."""
    if threshold is None or p_unsafe is None:
        return written
    return "unsafe" if p_unsafe >= threshold else "safe"


def lines_of(text: str) -> list[str]:
    """Return the lines of an answer that aren't blank, without the white space at their ends."""
    return [line.strip() for line in text.splitlines() if line.strip()]
