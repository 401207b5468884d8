"""Prompts and responses to token ids under a model's own chat template; what people and models wrote stays text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from unspoiled.errors import CheckpointError
from unspoiled.inference._contents import ContentTokenizer, mark
from unspoiled.inference._protocols import Exchange, Prompt


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
        self._contents = ContentTokenizer(tokenizer)
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
        return [*self._contents.plain_ids(text), self.end_of_turn]

    def decode(self, ids: list[int]) -> str:
        """Return the text of generated ids, control tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _encode(self, exchange: Exchange) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of an exchange's prompt and of its response (cached as `encode`)."""
        response = self.response_ids(exchange.response)[: exchange.tokens]
        return tuple(self.prompt_ids(exchange.prompt)), tuple(response)

    def _ids(self, messages: Sequence[dict[str, str]], prefix: str) -> list[int]:
        """Return the ids of a conversation, whose control tokens are those that the template writes itself."""
        skeleton = self._render([{**m, "content": _marked(i, m["content"])} for i, m in enumerate(messages)])
        contents = [*(message["content"].strip() for message in messages), prefix]
        whole = self._render(messages) + prefix
        return self._contents.filled_ids(skeleton + mark(len(messages)), contents, whole=whole)

    def _render(self, messages: Sequence[dict[str, str]], *, reply: bool = True) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=reply))
        except Exception as error:  # what a template may raise knows no bounds: 1/0, text + number
            roles = ", ".join(message["role"] for message in messages)
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path!r} can't render a conversation of {roles}: "
                f"{str(error) or type(error).__name__}. Correct its chat_template.jinja."
            ) from error

    def _find_end_of_turn(self) -> int:
        """Return the first control token that the template writes after an assistant's message."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark(0)}]
        after = self._render(messages, reply=False).partition(mark(0))[2]
        if controls := self._contents.controls(self._contents.template_ids(after)):
            return controls[0]
        if self.tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path!r} ends an assistant's turn with no control "
                "token, and the tokenizer has no eos_token. Set eos_token in its tokenizer_config.json."
            )
        return int(self.tokenizer.eos_token_id)

    def _shows_system_message(self) -> bool:
        messages = [{"role": "system", "content": mark(0)}, {"role": "user", "content": "a"}]
        try:
            return mark(0) in self._render(messages)
        except CheckpointError:
            return False


def _marked(number: int, content: str) -> str:
    """Return a mark in place of a message, inside the message's own outer white space, which templates may trim."""
    core = content.strip()
    start = content.index(core)
    return content[:start] + mark(number) + content[start + len(core) :]
