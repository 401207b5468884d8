"""Rows that are computed in one forward pass: what the model reads, and which of its states predict what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unspoiled.inference._packed import Pack, pack_sequences
from unspoiled.inference._segments import Tokens

Encoded = tuple[Tokens, Tokens]
"""The token ids of a prompt and of its response."""


@dataclass(frozen=True)
class Batch:
    """Rows that are computed in one forward pass.

    Args:
        rows: Their indices.
        ids: Token ids, packed in one row or padded on the right.
        pack: What the row holds; None with padding.
        places: Where in the flattened ids the state is that predicts each target [targets].
        targets: The response tokens, each (place, token) once [targets].
        uses: For each row, which targets are its response's, in order.
    """

    rows: list[int]
    ids: Tensor
    pack: Pack | None
    places: Tensor
    targets: Tensor
    uses: list[list[int]]


def make_batch(encoded: Sequence[Encoded], rows: list[int], packed: bool, device: torch.device) -> Batch:
    """Return the batch of some rows; those to be packed in ascending order of their sequences."""
    sequences = [sequence_of(encoded[row]) for row in rows]
    if packed:
        pack = pack_sequences(sequences, device)
        ids, paths = pack.ids, pack.paths
    else:
        pack = None
        width = max(map(len, sequences))
        ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in sequences], device=device)
        paths = tuple(tuple(range(i * width, i * width + len(row))) for i, row in enumerate(sequences))
    found: dict[tuple[int, int], int] = {}
    uses = []
    for row, path in zip(rows, paths, strict=True):
        response = encoded[row][1]
        pairs = zip(path[-len(response) :], response, strict=True)
        uses.append([found.setdefault(pair, len(found)) for pair in pairs])
    places, targets = torch.tensor(list(found), device=device).T
    return Batch(rows, ids, pack, places, targets, uses)


def target_weights(batch: Batch, weights: Sequence[float] | None) -> Tensor | None:
    """Return what each target's loss counts in the sum of weights times mean cross-entropies [targets]."""
    if weights is None:
        return None
    counts = [0.0] * len(batch.targets)
    for row, uses in zip(batch.rows, batch.uses, strict=True):
        for use in uses:
            counts[use] += weights[row] / len(uses)
    return torch.tensor(counts, dtype=torch.float32, device=batch.targets.device)


def sequence_of(row: Encoded) -> Tokens:
    """Return what the model reads: all but the last token of the response, which nothing is predicted from."""
    return row[0] + row[1][:-1]


def padded_batches(rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Divide rows into batches of like length, of at most `most` tokens with padding; one row may have more."""
    found: list[list[int]] = []
    for row in sorted(rows, key=lambda row: lengths[row]):
        if not found or (len(found[-1]) + 1) * lengths[row] > most:
            found.append([])
        found[-1].append(row)
    return found
