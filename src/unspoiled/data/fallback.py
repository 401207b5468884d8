"""Refusals without a model: the targets where nobody in the bunch refuses."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from unspoiled.data._rows import Question
from unspoiled.data._taxonomy import Category
from unspoiled.data._templates import RefusalTexts
from unspoiled.files import hash_value

TEMPLATES = "templates"
"""The author of such a refusal, as rows name it."""


class TemplateRefusals:
    """Writes short, varied refusals that name what a category is about.

    Args:
        texts: Openings and endings.
        categories: The taxonomy; a category's topic fills the openings' gap.
    """

    def __init__(self, texts: RefusalTexts, categories: Sequence[Category]) -> None:
        self._texts = texts
        self._topics: Mapping[str, str | None] = {category.name: category.topic for category in categories}
        self.fingerprint = hash_value([texts.openings, texts.endings, sorted(self._topics.items())])

    def write(self, question: Question, seed: int) -> str:
        """Return the refusal of a question, which the seed and the question decide."""
        topic = self._topics.get(question.group)
        openings = [text for text in self._texts.openings if topic is not None or "{topic}" not in text]
        draw = random.Random(f"{seed}:{question.id}:refusal")
        opening = draw.choice(openings).replace("{topic}", topic or "")
        return f"{opening} {draw.choice(self._texts.endings)}".strip()
