"""Scores that outlive the process: how likely a model holds a response is computed once, and kept in a log."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from unspoiled.errors import DataError
from unspoiled.files import KeyedLog, hash_value
from unspoiled.inference._protocols import Exchange, Progress, ResponseScore, Scorer, silent
from unspoiled.inference.kept import warned

_AT_ONCE = 256  # exchanges scored between two writes: enough to pack, few enough to lose


class KeptScorer:
    """A scorer that keeps every score in a log, and asks its model only for what is not there.

    A score is known by the model and the exchange. One process at a time may have a log open (`files.RunLock`).

    Args:
        log: The JSONL file of scores; made when the first one is kept.
        model: What identifies the model with its chat template: a hash of both.
        open: Opens the scorer; called once, when the first score is missing.
        note: Called with what the user should know, such as that a torn record was removed from the log.
    """

    def __init__(
        self, log: Path, *, model: str, open: Callable[[], Scorer], note: Callable[[str], None] = warned
    ) -> None:
        self._log = KeyedLog(
            log,
            kind="score",
            write=asdict,
            read=lambda row: ResponseScore(row["log_likelihood"], row["tokens"]),
            note=note,
        )
        self._model = model
        self._open = open
        self._scorer: Scorer | None = None

    def score(self, exchanges: Sequence[Exchange], *, progress: Progress = silent) -> list[ResponseScore]:
        """Return one score per exchange, in order; see `Scorer.score`.

        Raises:
            DataError: The log is damaged, the message names the line; or the model's likelihoods are no finite numbers.
        """
        keys = [hash_value([self._model, asdict(exchange)]) for exchange in exchanges]
        self._log.complete(
            dict(zip(keys, exchanges, strict=True)),
            self._score,
            at_once=_AT_ONCE,
            progress=lambda left: progress(len(exchanges) - left, len(exchanges)),
        )
        return [self._log.records[key] for key in keys]

    def _score(self, exchanges: list[Exchange]) -> list[ResponseScore]:
        self._scorer = self._scorer or self._open()
        found = self._scorer.score(exchanges)
        for exchange, score in zip(exchanges, found, strict=True):
            if not math.isfinite(score.log_likelihood):
                raise DataError(
                    f"the log-likelihood of the response to {exchange.prompt.user[:80]!r} is {score.log_likelihood}: "
                    "the weights hold no finite numbers, or overflow where they are multiplied. Compute in float32 "
                    "(`--dtype float32`; in a run's config, `runtime.dtype`), or leave the model out."
                )
        return found
