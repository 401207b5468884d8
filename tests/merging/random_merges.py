"""Shared by the tests of DARE and DELLA: merges by any number of threads, and what repeated draws average to."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from recipes import opened, recipe
from torch import Tensor

from tiny import Bunch
from unspoiled.merging import merge_to_directory


def bytes_by_threads(method: str, bunch: Bunch, directory: Path, **parameters: Any) -> list[dict[str, str]]:
    """Merge a full and a LoRA expert with 1, 2 and 4 threads, and return the hashes of all files of each."""
    weights = {str(bunch.full): 0.6, f"{bunch.base}+{bunch.aligned}": 0.7}
    wanted = recipe(method, weights, bunch.base, dtype="bfloat16", parameters=parameters)
    results = []
    for threads in (1, 2, 4):
        out = directory / str(threads)
        merge_to_directory(wanted, opened(wanted), out, threads=threads)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        results.append({str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    return results


def mean_and_error(draws: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean of merges with different seeds, and its standard error, entry by entry."""
    stacked = torch.stack(draws).double()
    return stacked.mean(0), stacked.std(0) / len(draws) ** 0.5
