"""What the rest of the tool asks of a model: to write, and to say how likely a response is."""

from __future__ import annotations

import itertools
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


OnSample = Callable[[int, Sample], None]
"""Called with (the prompt's position, its sample) as samples finish, in the order of finishing."""


def ignored(position: int, sample: Sample) -> None:
    """Do nothing with a finished sample."""


def counted(progress: Progress, total: int) -> OnSample:
    """Return what reports finished samples as progress: (samples finished, `total`)."""
    done = itertools.count(1)
    return lambda position, sample: progress(next(done), total)


class Generator(Protocol):
    """Writes responses."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_sample: OnSample = ignored,
    ) -> list[Sample]:
        """Return one sample per prompt, in the prompts' order.

        Args:
            prompts: What to answer.
            max_new_tokens: Longest response, in tokens.
            temperature: 0 is greedy; otherwise the softmax temperature of plain sampling.
            seed: Each prompt draws from its own random stream of (seed, stream), whatever the batching.
            streams: One non-negative number per prompt. Default: the positions 0, 1, ... Who asks again for a part of
                the prompts gives the positions that they had.
            on_sample: Called as samples finish.
        """
        ...


@dataclass(frozen=True)
class Completion:
    """Tokens that a model wrote after given tokens.

    Args:
        tokens: The ids written, the stop token that ended them included.
        finished: Whether a stop token ended them, and not the limit.
        watched: For each place of `tokens`, the log-probabilities (nats) there of the tokens that were watched.
    """

    tokens: tuple[int, ...]
    finished: bool
    watched: tuple[tuple[float, ...], ...] = ()


class Completer(Protocol):
    """Continues token ids: what a guard needs, whose format is not a chat template's."""

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, watch: Sequence[int] = ()
    ) -> list[Completion]:
        """Return the greedy continuation of each prompt, in order.

        Args:
            prompts: Token ids, each at least one.
            max_new_tokens: Longest continuation, in tokens.
            watch: Token ids whose log-probability is wanted at every place written.
        """
        ...


class Scorer(Protocol):
    """Says how likely given responses are."""

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        """Return one score per exchange, in order."""
        ...
