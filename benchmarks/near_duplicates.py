"""How long finding near-duplicates takes, in what memory, and how many are found: three ways on the same prompts.

    python benchmarks/near_duplicates.py [PROMPTS]

- `letter counts`: `PromptIndex` as it is, which filters by the counts of letters and loses nothing.
- `one by one`: `PromptIndex` that compares each prompt with all before it by rapidfuzz.
- `MinHash`: datasketch's LSH on runs of three letters, 32 bands of 5, with its candidates compared by rapidfuzz.

Prompts are made up; the first 500 come again at the end, changed word by word or letter by letter until they are
only just near-duplicates (90% alike), and each way is asked for them. `one by one` grows with the square of the
number, so that it does a tenth of the prompts, and its time for all is 100 times that. Each runs in its own process,
on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from measured_process import measure
from similar_prompts import change_a_letter, change_a_word, just_similar_pairs, made_up_prompts
from unspoiled.data import PromptIndex

BANDS, ROWS, LETTERS = 32, 5, 3
CHANGED = 500
SHARE_ONE_BY_ONE = 10


class Index(Protocol):
    """What finds near-duplicates."""

    def add(self, prompt: str) -> None: ...
    def find(self, prompt: str) -> object | None: ...


class MinHashIndex:
    """datasketch's LSH as finder of candidates."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._prompts: list[str] = []

    def add(self, prompt: str) -> None:
        self._lsh.insert(len(self._prompts), self._hash(prompt), check_duplication=False)
        self._prompts.append(prompt)

    def find(self, prompt: str) -> str | None:
        from rapidfuzz import fuzz, process

        candidates = [self._prompts[number] for number in self._lsh.query(self._hash(prompt))]
        found = process.extractOne(prompt, candidates, scorer=fuzz.ratio, score_cutoff=90)
        return None if found is None else str(found[0])

    def _hash(self, prompt: str) -> object:
        from datasketch import MinHash

        runs = {prompt[start : start + LETTERS] for start in range(len(prompt) - LETTERS + 1)} or {prompt}
        hashed = MinHash(num_perm=BANDS * ROWS, hashfunc=zlib.crc32)
        hashed.update_batch([run.encode() for run in runs])
        return hashed


WAYS: dict[str, Callable[[], Index]] = {
    "letter counts": PromptIndex,
    "one by one": lambda: PromptIndex(scan_limit=sys.maxsize),
    "MinHash": MinHashIndex,
}


@dataclass(frozen=True)
class Result:
    """What one way took, and the share of the changed prompts that it found."""

    seconds: float
    bytes: int
    words: float
    letters: float


def run(way: str, count: int) -> None:
    """Add `count` prompts, each looked for first; print the seconds and what is found of the changed ones."""
    index, prompts = WAYS[way](), made_up_prompts(count)
    start = time.perf_counter()
    for prompt in prompts:
        index.find(prompt)
        index.add(prompt)
    seconds = time.perf_counter() - start
    found = {}
    for name, edit in (("words", change_a_word), ("letters", change_a_letter)):
        pairs = just_similar_pairs(prompts[:CHANGED], edit)
        found[name] = sum(index.find(changed) is not None for _, changed in pairs) / len(pairs)
    print(json.dumps({"seconds": seconds, **found}))


def measured(way: str, count: int) -> Result:
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [sys.executable, __file__, str(count), "--way", way]
    usage = measure(command, cwd=Path.cwd(), environment=environment)
    few = measure([*command[:2], str(CHANGED), "--way", way], cwd=Path.cwd(), environment=environment)
    values = json.loads(usage.output.splitlines()[-1])
    return Result(values["seconds"], usage.private - few.private, values["words"], values["letters"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=int, nargs="?", default=20_000)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way is not None:
        run(given.way, given.prompts)
        return
    results = {way: measured(way, given.prompts // (SHARE_ONE_BY_ONE if way == "one by one" else 1)) for way in WAYS}
    ours = results["letter counts"]
    print(f"{given.prompts} prompts, relative to letter counts ({ours.seconds:.0f} s, {ours.bytes / 1e6:.0f} MB):")
    for way, result in results.items():
        scale = SHARE_ONE_BY_ONE**2 if way == "one by one" else 1
        print(
            f"  {way:14} time {result.seconds * scale / ours.seconds:5.1f}x"
            + (" (from a tenth)" if scale > 1 else f"  memory {result.bytes / ours.bytes:5.1f}x")
            + f"  found: {result.words:.1%} of changed words, {result.letters:.1%} of changed letters"
        )


if __name__ == "__main__":
    main()
