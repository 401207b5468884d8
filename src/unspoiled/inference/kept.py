"""Samples that outlive the process: what a generator wrote is kept in a log, and never asked for again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from unspoiled.files import KeyedLog, hash_value
from unspoiled.inference._protocols import Generator, OnSample, Prompt, Sample, ignored

_FLUSHING_SHARE = 0.05  # of the time: a flush to the disk takes some milliseconds, which may be longer than a sample


def warned(message: str) -> None:
    """Tell the user by a Python warning."""
    warnings.warn(message, stacklevel=2)


class KeptGenerator:
    """A generator that keeps every sample in a log, and asks its model only for what is not there.

    The same calls made again, after whatever ended the process, write what is missing with the random streams that it
    had, and give what a process never interrupted would have given, but for what rounding makes of other batches. One
    process at a time may have a log open (`files.RunLock`).

    A sample is known by the model, the prompt, the limit, the temperature, the seed and the stream; a greedy one by the
    first three, so that a prompt put twice is answered once.

    Args:
        log: The JSONL file of samples; made when the first one is kept.
        model: What identifies the model with its chat template: a hash of both, or where and as what it is served.
        open: Opens the generator; called once, when the first sample is missing.
        note: Called with what the user should know, such as that a torn record was removed from the log.
    """

    def __init__(
        self, log: Path, *, model: str, open: Callable[[], Generator], note: Callable[[str], None] = warned
    ) -> None:
        self._log = KeyedLog(
            log,
            kind="sample",
            write=asdict,
            read=lambda row: Sample(row["text"], row["tokens"], row["finished"]),
            note=note,
        )
        self._model = model
        self._open = open
        self._generator: Generator | None = None

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
        """Return one sample per prompt, in order; see `Generator.generate`.

        `on_sample` is called for the samples in the log first, then for new ones, each when it is on the disk.

        Raises:
            DataError: The log is damaged; the message names the line.
        """
        samples = self._log.records
        numbers = range(len(prompts)) if streams is None else streams
        keys = [
            self._key(prompt, max_new_tokens, temperature, seed, number)
            for prompt, number in zip(prompts, numbers, strict=True)
        ]
        missing: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            if key in samples:
                on_sample(position, samples[key])
            else:
                missing.setdefault(key, []).append(position)
        if missing:
            self._generator = self._generator or self._open()
            first = [positions[0] for positions in missing.values()]
            with _Writing(self._log, missing, on_sample) as writing:
                self._generator.generate(
                    [prompts[position] for position in first],
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seed=seed,
                    streams=[numbers[position] for position in first],
                    on_sample=writing.keep,
                )
        return [samples[key] for key in keys]

    def _key(self, prompt: Prompt, max_new_tokens: int, temperature: float, seed: int, stream: int) -> str:
        drawn = [float(temperature), seed, stream] if temperature > 0 else []
        return hash_value([self._model, asdict(prompt), max_new_tokens, *drawn])


class _Writing:
    """Puts samples on the disk as they come, some at a time where they come faster than it takes.

    Args:
        log: The log.
        missing: The positions that are to be told of each key, in the order in which the keys are asked for.
        on_sample: Told of samples that are on the disk.
    """

    def __init__(self, log: KeyedLog[Sample], missing: dict[str, list[int]], on_sample: OnSample) -> None:
        self._log = log
        self._missing = missing
        self._keys = list(missing)
        self._on_sample = on_sample
        self._waiting: dict[str, Sample] = {}
        self._flush_after = 0.0

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()  # after an error too: what is finished stays

    def keep(self, asked: int, sample: Sample) -> None:
        self._waiting[self._keys[asked]] = sample
        if time.monotonic() >= self._flush_after:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        flushed, self._waiting = self._waiting, {}
        began = time.monotonic()
        self._log.keep(flushed)
        ended = time.monotonic()
        self._flush_after = ended + (ended - began) * (1 / _FLUSHING_SHARE - 1)
        for key, sample in flushed.items():
            for position in self._missing[key]:
                self._on_sample(position, sample)
