"""Prompts and responses to token ids under a model's own chat template.

Text that a user or a model wrote stays text: a control token spelled out inside it (`<|im_end|>`) is tokenised
as its characters and never acts as a control token.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from unspoiled.errors import CheckpointError
from unspoiled.inference._protocols import Exchange, Prompt

_MARK = "\ue000{}\ue001"  # private-use characters: no template writes them
_UNKNOWN = "\U000f1a2b"  # another one, which no vocabulary has
_MARKS = re.compile("\ue000([0-9]+)\ue001")


class ChatTemplate:
    """A tokenizer with its chat template.

    A template that knows no system role gets the system message as the beginning of the user's.

    Args:
        tokenizer: A transformers fast tokenizer that has a chat template.

    Raises:
        CheckpointError: The tokenizer has no chat template, or the template can't render a conversation.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise CheckpointError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template. Use an instruct model, or add a "
                "chat_template.jinja to its directory."
            )
        self.tokenizer = tokenizer
        ids = _control_tokens(tokenizer)
        self._control = sorted(ids)
        self._control_ids = frozenset(ids.values())
        self.end_of_turn = self._find_end_of_turn()
        self._has_system_role = self._shows_system_message()
        self.encode = functools.lru_cache(maxsize=65536)(self._encode)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the ids of the prompt up to where the model writes, the forced prefix included."""
        if prompt.system is None:
            messages = [{"role": "user", "content": prompt.user}]
        elif self._has_system_role:
            messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        else:
            messages = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]
        return self._ids(messages, prompt.prefix)

    def response_ids(self, text: str) -> list[int]:
        """Return the ids of a response, its end of turn included."""
        return [*self._plain_ids(text), self.end_of_turn]

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _encode(self, exchange: Exchange) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of an exchange's prompt and of its response (cached as `encode`)."""
        response = self.response_ids(exchange.response)[: exchange.tokens]
        return tuple(self.prompt_ids(exchange.prompt)), tuple(response)

    def _ids(self, messages: Sequence[dict[str, str]], prefix: str) -> list[int]:
        """Return the ids of a conversation, whose control tokens are those that the template writes itself."""
        ids = self._text_ids(self._render(messages) + prefix)
        skeleton = self._render([{**m, "content": _marked(i, m["content"])} for i, m in enumerate(messages)])
        if self._controls(ids) == self._controls(self._text_ids(skeleton)):
            return ids
        separate: list[int] = []
        for i, piece in enumerate(_MARKS.split(skeleton)):  # template text and message numbers take turns
            separate += self._plain_ids(messages[int(piece)]["content"].strip()) if i % 2 else self._text_ids(piece)
        return separate + self._plain_ids(prefix)

    def _controls(self, ids: Iterable[int]) -> list[int]:
        return [token for token in ids if token in self._control_ids]

    def _render(self, messages: Sequence[dict[str, str]], *, reply: bool = True) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply))
        except Exception as error:  # what a template may raise knows no bounds: 1/0, text + number
            roles = ", ".join(message["role"] for message in messages)
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path!r} can't render a conversation of {roles}: "
                f"{str(error) or type(error).__name__}. Correct its chat_template.jinja."
            ) from error

    def _text_ids(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]) if text else []

    def _plain_ids(self, text: str) -> list[int]:
        """Return the ids of text in which nothing is a control token."""
        ids = self._text_ids(text, split_special_tokens=True)
        if not self._controls(ids):
            return ids
        ids = []  # tokens added without being special are matched all the same: cut them
        for piece in _split_control(text, self._control):
            found = self._text_ids(piece, split_special_tokens=True)
            if self._controls(found):  # matched in another spelling, after the tokenizer's normalisation
                found = [token for character in piece for token in self._text_ids(character)]
            ids += [token for token in found if token not in self._control_ids]
        return ids

    def _find_end_of_turn(self) -> int:
        """Return the first control token that the template writes after an assistant's message."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK.format(0)}]
        after = self._render(messages, reply=False).partition(_MARK.format(0))[2]
        if controls := self._controls(self._text_ids(after)):
            return controls[0]
        if self.tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path!r} ends an assistant's turn with no control "
                "token, and the tokenizer has no eos_token. Set eos_token in its tokenizer_config.json."
            )
        return int(self.tokenizer.eos_token_id)

    def _shows_system_message(self) -> bool:
        messages = [{"role": "system", "content": _MARK.format(0)}, {"role": "user", "content": "a"}]
        try:
            return _MARK.format(0) in self._render(messages)
        except CheckpointError:
            return False


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


def _marked(number: int, content: str) -> str:
    """Return a mark in place of a message, inside the message's own outer white space, which templates may trim."""
    core = content.strip()
    start = content.index(core)
    return content[:start] + _MARK.format(number) + content[start + len(core) :]


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
