"""Families that are asked one question per category and answer Yes (a violation) or No."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.guards._format import Answer, lines_of, share_of_unsafe, unread
from unspoiled.guards._protocol import Label, Reading


def read_scores(answers: Sequence[Answer], threshold: float | None, *, about: Sequence[str]) -> Reading:
    """Read each answer as p = P(Yes) / (P(Yes) + P(No)) of the first word; the reading's p_unsafe is the highest.

    Args:
        answers: One per question.
        threshold: From which p a category is violated; None is 0.5, where Yes becomes the likelier word.
        about: The category of each question.
    """
    scores = [share_of_unsafe(answer) for answer in answers]
    found = [(name, score) for name, score in zip(about, scores, strict=True) if score is not None]
    text = ", ".join(f"{name} {score:.3f}" for name, score in found)
    if len(found) < len(scores):
        return unread("; ".join(f"{name}: {answer.text}" for name, answer in zip(about, answers, strict=True)))
    highest = max(score for _, score in found)
    least = 0.5 if threshold is None else threshold
    label: Label = "unsafe" if highest >= least else "safe"
    return Reading(label, highest, tuple(name for name, score in found if score >= least), text=text)


def read_word(answers: Sequence[Answer], _threshold: float | None) -> Reading:
    """Read the only answer's only word: yes is unsafe, no is safe."""
    (answer,) = answers
    words = [line.lower().rstrip(".") for line in lines_of(answer.text)]
    if words not in (["yes"], ["no"]):
        return unread(answer.text)
    return Reading("unsafe" if words == ["yes"] else "safe", text=answer.text)
