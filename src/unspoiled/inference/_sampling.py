"""One token per row from logits, each row with a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def choose(logits: Tensor, temperature: float, streams: Sequence[torch.Generator]) -> Tensor:
    """Return one token id per row [rows].

    Args:
        logits: Float32 [rows, vocabulary].
        temperature: 0 takes the likeliest token; otherwise the softmax temperature.
        streams: One per row, each drawn from once; unused at temperature 0.
    """
    if temperature == 0.0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits / temperature, dim=-1).cumsum(-1)
    draws = torch.cat([torch.rand(1, generator=stream) for stream in streams]).to(logits.device)
    threshold = draws.unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def stream_seed(seed: int, stream: int) -> int:
    """Return the seed of a prompt's own random stream, below 2**63; neighbours' are unrelated."""
    return (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03 + 0x2545F491) % (2**63)


def open_stream(seed: int, drawn: int = 0) -> torch.Generator:
    """Return the random stream of a seed, as it is after `drawn` draws."""
    stream = torch.Generator().manual_seed(seed)
    for _ in range(drawn):
        torch.rand(1, generator=stream)
    return stream
