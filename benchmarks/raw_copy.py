"""Read files whole through one buffer and write as many bytes as the first one has: the least that a merge must do.

    python benchmarks/raw_copy.py OUT IN [IN ...]

Prints the seconds from the first `open` to the end of `fsync`, so the interpreter's start isn't among them.
"""

from __future__ import annotations

import os
import sys
import time

BUFFER = 1 << 20
"""Bytes read or written by one call: small enough to stay in a processor's cache."""


def raw_copy(out: str, inputs: list[str]) -> float:
    """Return the seconds that it took.

    Args:
        out: The file to write; an old one is replaced. It gets the length of the first input.
        inputs: The files to read, of any lengths.
    """
    buffer = memoryview(bytearray(BUFFER))
    start = time.perf_counter()
    sources = [os.open(path, os.O_RDONLY) for path in inputs]
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    left = os.fstat(sources[0]).st_size
    reading = list(sources)
    while reading or left:  # a piece of each in turn, as a merge does
        for source in list(reading):
            if os.readv(source, [buffer]) == 0:
                reading.remove(source)
        left -= os.write(target, buffer[: min(left, BUFFER)])
    os.fsync(target)
    for descriptor in [*sources, target]:
        os.close(descriptor)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(raw_copy(sys.argv[1], sys.argv[2:]))
