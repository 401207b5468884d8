"""Scores that outlive the process: how likely a model holds a response is computed once, and kept in a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from unspoiled.errors import DataError
from unspoiled.files import append_jsonl, hash_value, read_jsonl
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
        self._log = log
        self._model = model
        self._open = open
        self._note = note
        self._scorer: Scorer | None = None
        self._scores: dict[str, ResponseScore] | None = None

    def score(self, exchanges: Sequence[Exchange], *, progress: Progress = silent) -> list[ResponseScore]:
        """Return one score per exchange, in order; see `Scorer.score`.

        Raises:
            DataError: The log is damaged; the message names the line.
        """
        scores = self._read()
        keys = [hash_value([self._model, asdict(exchange)]) for exchange in exchanges]
        missing = {key: exchange for key, exchange in zip(keys, exchanges, strict=True) if key not in scores}
        waiting = list(missing.items())
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            self._scorer = self._scorer or self._open()
            found = self._scorer.score([exchange for _, exchange in some])
            rows = [(key, score) for (key, _), score in zip(some, found, strict=True)]
            append_jsonl(self._log, [{"key": key, **asdict(score)} for key, score in rows])
            scores.update(rows)
            progress(len(exchanges) - len(waiting) + start + len(some), len(exchanges))
        return [scores[key] for key in keys]

    def _read(self) -> dict[str, ResponseScore]:
        if self._scores is None:
            rows = read_jsonl(self._log, repaired=self._note) if self._log.exists() else []
            scores = {}
            for number, row in enumerate(rows, start=1):
                try:
                    scores[str(row["key"])] = ResponseScore(row["log_likelihood"], row["tokens"])
                except KeyError as error:
                    raise DataError(
                        f"{self._log}:{number}: a kept score has no {error}. Remove the line, or the file to score "
                        "all responses anew."
                    ) from error
            self._scores = scores
        return self._scores
