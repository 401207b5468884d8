"""Prompts and responses to token ids under a model's own chat template.

Text that a user or a model wrote stays text: a control token spelled out inside it (`<|im_end|>`) is tokenised
as its characters and never acts as a control token.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from unspoiled.errors import CheckpointError
from unspoiled.inference._protocols import Exchange, Prompt

_CONTENT = "\ue000{}\ue001"  # private-use characters: no template writes them


class ChatTemplate:
    """A tokenizer with its chat template.

    Args:
        tokenizer: A transformers fast tokenizer that has a chat template.

    Raises:
        CheckpointError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise CheckpointError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template. Use an instruct model, or add a "
                "chat_template.jinja to its directory."
            )
        self.tokenizer = tokenizer
        self._control = sorted({str(t) for t in tokenizer.all_special_tokens} | set(tokenizer.get_added_vocab()))
        self.end_of_turn = self._find_end_of_turn()
        self.encode = functools.lru_cache(maxsize=65536)(self._encode)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the ids of the prompt up to where the model writes, the forced prefix included."""
        messages = [{"role": "user", "content": prompt.user}]
        if prompt.system is not None:
            messages.insert(0, {"role": "system", "content": prompt.system})
        return self._ids(messages, prompt.prefix)

    def response_ids(self, text: str) -> list[int]:
        """Return the ids of a response, its end of turn included."""
        return [*self._plain_ids(text), self.end_of_turn]

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, exchange: Exchange) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of an exchange's prompt and of its response (cached as `encode`)."""
        return tuple(self.prompt_ids(exchange.prompt)), tuple(self.response_ids(exchange.response))

    def _ids(self, messages: list[dict[str, str]], prefix: str) -> list[int]:
        contents = [message["content"] for message in messages]
        if not any(token in content for token in self._control for content in [*contents, prefix]):
            return self._template_ids(self._render(messages) + prefix)
        marked = [{**m, "content": _CONTENT.format(i)} for i, m in enumerate(messages)]
        rest = self._render(marked)
        ids: list[int] = []
        for i, content in enumerate(contents):
            before, found, rest = rest.partition(_CONTENT.format(i))
            ids += self._template_ids(before)
            if found:
                ids += self._plain_ids(content)
        return ids + self._template_ids(rest) + self._plain_ids(prefix)

    def _render(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _template_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _plain_ids(self, text: str) -> list[int]:
        if not text:
            return []
        if not any(token in text for token in self._control):
            return self._template_ids(text)
        ids: list[int] = []
        for piece in _split_control(text, self._control):  # a split token can't be matched as itself
            ids += self._template_ids(piece)
        return ids

    def _find_end_of_turn(self) -> int:
        """Return the first control token that the template writes after an assistant's message."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _CONTENT.format(0)}]
        text = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        control = set(self.tokenizer.all_special_ids) | set(self.tokenizer.get_added_vocab().values())
        after = text.partition(_CONTENT.format(0))[2]
        for token in self._template_ids(after):
            if token in control:
                return int(token)
        if self.tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path!r} ends an assistant's turn with no control "
                "token, and the tokenizer has no eos_token. Set eos_token in its tokenizer_config.json."
            )
        return int(self.tokenizer.eos_token_id)


def _split_control(text: str, control: list[str]) -> list[str]:
    """Cut every control token in `text` after its first character, so that no piece contains one."""
    cuts = {0, len(text)}
    for token in control:
        start = text.find(token)
        while start >= 0 and len(token) > 1:
            cuts.add(start + 1)
            start = text.find(token, start + 1)
    ordered = sorted(cuts)
    return [text[a:b] for a, b in itertools.pairwise(ordered)]
