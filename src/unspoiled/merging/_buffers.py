"""Keep freed buffers at hand while a merge runs.

glibc gives every freed block of more than 128 KiB back to the system, and the next one of its size is mapped anew and
cleared page by page. A merge frees and takes such blocks thousands of times a second, and spent up to a third of its
time on that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_DEFAULT = 128 * 2**10
_KEPT, _LARGEST = 2**30, 32 * 2**20  # bytes of free memory kept in all; of one block (glibc's upper limit)


@contextmanager
def kept_buffers() -> Iterator[None]:
    """Let the allocator keep freed memory until the end of the block; nothing happens where it isn't glibc's."""
    allocator = ctypes.CDLL(None)
    if not (hasattr(allocator, "mallopt") and hasattr(allocator, "malloc_trim")):
        yield
        return
    allocator.mallopt(_MMAP_THRESHOLD, _LARGEST)
    allocator.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        allocator.mallopt(_MMAP_THRESHOLD, _DEFAULT)
        allocator.mallopt(_TRIM_THRESHOLD, _DEFAULT)
        allocator.malloc_trim(0)
