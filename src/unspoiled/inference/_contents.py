"""Token ids of a template's text with contents in it, which stay text whatever they spell.

Text that a user or a model wrote stays text: a control token spelled out inside it (`<|im_end|>`) is tokenised
as its characters and never acts as a control token.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

_UNKNOWN = "\U000f1a2b"  # a private-use character, which no vocabulary has
_MARKS = re.compile("\ue000([0-9]+)\ue001")


def mark(number: int) -> str:
    """Return what stands for the content of that number in a skeleton: private-use characters, which no template has.

    Args:
        number: The content's place among the contents, from 0.
    """
    return f"\ue000{number}\ue001"


class ContentTokenizer:
    """A tokenizer whose control tokens act where a template wrote them, and nowhere else.

    Args:
        tokenizer: A transformers fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        ids = _control_tokens(tokenizer)
        self._control = sorted(ids)
        self._control_ids = frozenset(ids.values())
        self._controls_of_text = functools.lru_cache(maxsize=64)(lambda text: self.controls(self.template_ids(text)))

    def template_ids(self, text: str) -> list[int]:
        """Return the ids of a template's own text, in which control tokens act."""
        return self._ids(text)

    def plain_ids(self, text: str) -> list[int]:
        """Return the ids of text in which nothing is a control token."""
        ids = self._ids(text, split_special_tokens=True)
        if not self.controls(ids):
            return ids
        ids = []  # tokens added without being special are matched all the same: cut them
        for piece in _split_control(text, self._control):
            found = self._ids(piece, split_special_tokens=True)
            if self.controls(found):  # matched in another spelling, after the tokenizer's normalisation
                found = [token for character in piece for token in self._ids(character)]
            ids += [token for token in found if token not in self._control_ids]
        return ids

    def filled_ids(self, skeleton: str, contents: Sequence[str], *, whole: str | None = None) -> list[int]:
        """Return the ids of a skeleton with contents in place of its marks.

        The text is tokenised whole, as the model has seen it in training, unless a content spells a control token:
        then piece by piece.

        Args:
            skeleton: The template's text, with `mark(i)` where content i belongs.
            contents: What people and models wrote.
            whole: The text with its contents, if it isn't the skeleton with its marks replaced.
        """
        text = _MARKS.sub(lambda found: contents[int(found[1])], skeleton) if whole is None else whole
        ids = self._ids(text)
        if self.controls(ids) == self._controls_of_text(skeleton):
            return ids
        separate: list[int] = []
        for i, piece in enumerate(_MARKS.split(skeleton)):  # template text and contents' numbers take turns
            separate += self.plain_ids(contents[int(piece)]) if i % 2 else self._ids(piece)
        return separate

    def controls(self, ids: Iterable[int]) -> list[int]:
        """Return those of some ids that are control tokens, in order."""
        return [token for token in ids if token in self._control_ids]

    def _ids(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]) if text else []


def _control_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the ids of special and added tokens by their text.

    Runs of white space, which some vocabularies add as tokens, are text; so is the token that stands for
    unknown characters, where there are any (a byte-level tokenizer's `unk_token` is a control token like others).
    """
    added = {text: int(token) for text, token in tokenizer.get_added_vocab().items()}
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    if tokenizer.unk_token_id in tokenizer(_UNKNOWN, add_special_tokens=False)["input_ids"]:
        added.pop(tokenizer.unk_token, None)
        special.pop(tokenizer.unk_token, None)
    return {text: token for text, token in added.items() if any(map(str.isalnum, text))} | special


def _split_control(text: str, control: Sequence[str]) -> list[str]:
    """Cut every control token in `text` after its first character, so that no piece contains one."""
    cuts = {0, len(text)}
    for token in control:
        start = text.find(token)
        while start >= 0 and len(token) > 1:
            cuts.add(start + 1)
            start = text.find(token, start + 1)
    ordered = sorted(cuts)
    return [text[a:b] for a, b in itertools.pairwise(ordered)]
