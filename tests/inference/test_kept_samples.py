"""Samples that are kept: after any number of kills they are those of a process that was never interrupted."""

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from generate_until_killed import PROMPTS, WANTED, kept, opened

from tiny import Bunch
from unspoiled import files
from unspoiled.errors import DataError
from unspoiled.files import read_jsonl
from unspoiled.inference import KeptGenerator, OnSample, Prompt, Sample, ignored

KILLS = 5


class Counting:
    """Writes a sample that shows what it was asked with, and counts; fails at the n-th where told."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._fails_at = fails_at

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
        assert streams is not None
        samples = {}
        for position in reversed(range(len(prompts))):  # in another order than asked for
            if len(self.asked) == self._fails_at:
                raise ConnectionError("gone")
            self.asked.append((prompts[position].user, streams[position]))
            text = f"{prompts[position]} {max_new_tokens} {temperature} {seed} {streams[position] * (temperature > 0)}"
            samples[position] = Sample(text, 1, True)
            on_sample(position, samples[position])
        return [samples[position] for position in range(len(prompts))]


def opening(generator: Counting, opened: list[Counting]) -> Any:
    return lambda: (opened.append(generator), generator)[1]


def test_killed_at_random_moments_the_samples_are_the_same(bunch: Bunch, tmp_path: Path) -> None:
    """None is lost that was said to be kept, none is written twice, and each has the random stream it had."""
    uninterrupted = opened(str(bunch.base)).generate(PROMPTS, **WANTED)
    log = tmp_path / "samples.jsonl"
    script = Path(__file__).with_name("generate_until_killed.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    chance = random.Random(0)
    recorded = 0
    with subprocess.Popen(
        [sys.executable, script, bunch.base, log],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        for _ in range(KILLS):
            # a little further each time: samples that are there are told of first
            killer.stdin.write(f"{recorded + chance.randrange(1, 5)} {chance.random() * 0.02}\n")
            killer.stdin.flush()
            assert killer.stdout.readline() == "killed\n", "it ended before it was killed: give it more prompts"
            lines = len(read_jsonl(log))
            assert lines > recorded
            recorded = lines
        killer.stdin.close()
    assert recorded < len(PROMPTS), "the test's premise"
    assert kept(str(bunch.base), log).generate(PROMPTS, **WANTED) == uninterrupted
    keys = [row["key"] for row in read_jsonl(log)]
    assert len(keys) == len(set(keys)) == len(PROMPTS)


def test_the_model_is_asked_for_what_is_missing_alone(tmp_path: Path) -> None:
    """With the streams of their positions; where nothing is missing it isn't even opened."""
    log = tmp_path / "samples.jsonl"
    prompts = [Prompt("a"), Prompt("b"), Prompt("c"), Prompt("a"), Prompt("d")]
    wanted = {"max_new_tokens": 9, "temperature": 0.5, "seed": 4}
    opened: list[Counting] = []
    broken = KeptGenerator(log, model="m", open=opening(Counting(fails_at=2), opened))
    with pytest.raises(ConnectionError):
        broken.generate(prompts, **wanted)
    rest = Counting()
    told: dict[int, Sample] = {}
    samples = KeptGenerator(log, model="m", open=opening(rest, opened)).generate(
        prompts, **wanted, on_sample=told.__setitem__
    )
    assert sorted(rest.asked) == [("a", 0), ("b", 1), ("c", 2)], "what was finished before the error stays"
    assert list(told.values()) != samples, "as they finish"
    assert [told[position] for position in range(5)] == samples
    assert samples == Counting().generate(prompts, **wanted, streams=range(5))
    again = KeptGenerator(log, model="m", open=opening(Counting(), opened))
    assert again.generate(prompts, **wanted) == samples
    assert again.generate([], **wanted) == []
    assert len(opened) == 2


def test_what_a_sample_depends_on_is_part_of_its_key(tmp_path: Path) -> None:
    log = tmp_path / "samples.jsonl"
    first: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.5, "seed": 4, "streams": [7]}
    counting = Counting()
    for change in ({}, {"max_new_tokens": 8}, {"temperature": 0.6}, {"seed": 5}, {"streams": [8]}, {"temperature": 0}):
        for _ in range(2):
            KeptGenerator(log, model="m", open=lambda: counting).generate([Prompt("a")], **{**first, **change})
    for prompt in (Prompt("b"), Prompt("a", system=""), Prompt("a", prefix="x")):
        KeptGenerator(log, model="m", open=lambda: counting).generate([prompt], **first)
    KeptGenerator(log, model="another", open=lambda: counting).generate([Prompt("a")], **first)
    assert len(counting.asked) == 6 + 3 + 1


def test_a_greedy_sample_depends_on_no_random_stream(tmp_path: Path) -> None:
    """One prompt put many times is answered once; sampled, each time anew."""
    counting = Counting()
    generator = KeptGenerator(tmp_path / "samples.jsonl", model="m", open=lambda: counting)
    told: list[int] = []
    samples = generator.generate([Prompt("a")] * 3, max_new_tokens=9, on_sample=lambda i, _: told.append(i))
    assert len(counting.asked) == 1
    assert samples == [samples[0]] * 3
    assert told == [0, 1, 2]
    generator.generate([Prompt("a")] * 3, max_new_tokens=9, temperature=1.0)
    assert len(counting.asked) == 4


def test_a_torn_record_is_removed_and_said(tmp_path: Path) -> None:
    """It is no sample; the one it would have been is written again, and the user is told, by a call or a warning."""
    log = tmp_path / "samples.jsonl"
    wanted: dict[str, Any] = {"max_new_tokens": 9}
    KeptGenerator(log, model="m", open=Counting).generate([Prompt("a"), Prompt("b")], **wanted)
    whole = log.read_bytes()
    for cut in (1, 2, 40, len(whole.splitlines()[1])):
        log.write_bytes(whole[:-cut])
        notes: list[str] = []
        counting = Counting()
        generator = KeptGenerator(log, model="m", open=lambda: counting, note=notes.append)  # noqa: B023
        generator.generate([Prompt("a"), Prompt("b")], **wanted)
        assert len(notes) == 1
        assert "samples.jsonl:2: removed a torn last record" in notes[0]
        assert len(counting.asked) == 1
        assert sorted(log.read_bytes().splitlines()) == sorted(whole.splitlines())
    log.write_bytes(whole[:-1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        KeptGenerator(log, model="m", open=Counting).generate([Prompt("a")], **wanted)
    assert "removed a torn last record" in str(caught[0].message)


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "samples.jsonl"
    no_tokens = '{"key": "k", "text": "t"}\n'
    for text, message in [(no_tokens, r"samples.jsonl:1: no sample .*'tokens'"), ("x\n{}\n", ":1:")]:
        log.write_text(text)
        with pytest.raises(DataError, match=message):
            KeptGenerator(log, model="m", open=Counting).generate([Prompt("a")], max_new_tokens=9)


def test_samples_faster_than_the_disk_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 samples in no time take a few flushes, not 2,000; they are told of in the order of finishing."""
    flushed: list[int] = []
    append = files.append_jsonl
    monkeypatch.setattr(files, "append_jsonl", lambda path, rows: (append(path, rows), flushed.append(len(rows))))
    told: list[int] = []
    KeptGenerator(tmp_path / "samples.jsonl", model="m", open=Counting).generate(
        [Prompt(str(i)) for i in range(2000)], max_new_tokens=9, on_sample=lambda i, _: told.append(i)
    )
    assert sum(flushed) == 2000
    assert len(flushed) < 100
    assert told == list(reversed(range(2000)))
