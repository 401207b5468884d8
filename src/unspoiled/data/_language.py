"""The language that a text is written in, or that it can't be told.

By py3langid (BSD licence, its weights are in the package, needs NumPy alone), which downloads nothing. A wrong guess
would lose a good question, so that a language is only named at a confidence that wrong guesses on short questions
don't reach; the rest is `unknown`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from unspoiled.errors import ConfigError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNKNOWN = "unknown"
"""The language of texts that are too short, mixed, or in no language (numbers, code)."""
_SURE = 0.7
_NO_LANGUAGE = "zxx"
_QUOTATIONS = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」')
_SENTENCE_ENDS = re.compile(r"[.!?:;。！？؟।…\n]+")


def language_of(text: str) -> str:
    """Return a text's language as an ISO 639 code (`en`, `de`, ...), or `unknown`.

    The text is judged by its sentences, and without what it quotes, so that a question in one language about a
    sentence in another is not taken for a question in the other.
    """
    own = _QUOTATIONS.sub(" ", text)
    if not own.strip(" .!?"):
        own = text
    found = {_surely(sentence) for sentence in _SENTENCE_ENDS.split(own)} - {UNKNOWN}
    if len(found) > 1:
        return UNKNOWN
    return found.pop() if found else _surely(own)


def require_known_languages(languages: Sequence[str]) -> None:
    """Check that each is a language that can be recognised.

    Raises:
        ConfigError: One isn't; the message suggests the nearest codes.
    """
    known = _identifier().labels
    for language in languages:
        if language not in known:
            near = difflib.get_close_matches(language[:2].lower(), known, n=3)
            meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ConfigError(
                f"languages: {language!r} is no language that can be recognised.{meant} "
                "Give ISO 639 codes such as 'en' or 'de', or leave `languages` out to keep all."
            )


def _surely(text: str) -> str:
    language, confidence = _identifier().classify(text)
    return language if confidence >= _SURE and language != _NO_LANGUAGE else UNKNOWN


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
