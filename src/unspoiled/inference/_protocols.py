"""What the rest of the tool asks of a model: to write, and to say how likely a response is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


def silent(done: int, total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Prompt:
    """One turn put to a model under its own chat template.

    Args:
        user: The user's message.
        system: The system message; None leaves it to the template.
        prefix: The forced beginning of the reply. It is not part of the sample's text.
    """

    user: str
    system: str | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Sample:
    """What a model wrote after a prompt: the text, the tokens it took, and whether it ended by itself."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class Exchange:
    """A prompt and the response to score.

    Args:
        prompt: The prompt.
        response: The response.
        tokens: Score only so many of the response's first tokens, at least 1; None for all and the end of turn.
    """

    prompt: Prompt
    response: str
    tokens: int | None = None


@dataclass(frozen=True)
class ResponseScore:
    """The log-likelihood (nats, summed) of a response's tokens, the end of turn included, and their number."""

    log_likelihood: float
    tokens: int

    @property
    def cross_entropy(self) -> float:
        """Mean negative log-likelihood per response token, in nats."""
        return -self.log_likelihood / self.tokens


class Generator(Protocol):
    """Writes responses."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Progress = silent,
    ) -> list[Sample]:
        """Return one sample per prompt, in the prompts' order.

        Args:
            prompts: What to answer.
            max_new_tokens: Longest response, in tokens.
            temperature: 0 is greedy; otherwise the softmax temperature of plain sampling.
            seed: Each prompt draws from its own stream of (seed, position), whatever the batching.
            progress: Called as samples finish.
        """
        ...


class Scorer(Protocol):
    """Says how likely given responses are."""

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        """Return one score per exchange, in order."""
        ...
