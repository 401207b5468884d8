"""A forward pass over a tree of segments as one row without padding: each token computed once, and no other.

Everything in a transformer but attention treats tokens one by one; attention is a function that transformers calls by
name. Ours gathers the queries of segments of like size, with the keys of all that comes before them, into groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unspoiled.inference._segments import Segment, Tokens, segment_tree

ATTENTION = "unspoiled_packed"
"""The name under which transformers finds `attend`; without a pack it is transformers' own "sdpa"."""

_WASTE = 1.25  # a group's area with padding over its area without
_FREE_WASTE = {"cpu": 2**11}  # query-key pairs whose padding costs less than one more call
_FREE_WASTE_ELSEWHERE = 2**18
_LENGTH_STEP = 1.3  # segments are sorted by length in steps of this factor, then by what is before them


@dataclass(frozen=True)
class Group:
    """Segments whose attention is computed in one call.

    Args:
        queries: Where each padded query is in the row [segments * longest segment].
        keys: Where each padded key is in the row [segments * longest path].
        shape: The numbers of segments, padded queries and padded keys.
        mask: Which keys each query sees [segments, 1, longest segment, longest path]; None where nothing comes before
            the segments, so that each query sees its own key and those before it.
    """

    queries: Tensor
    keys: Tensor
    shape: tuple[int, int, int]
    mask: Tensor | None


@dataclass(frozen=True)
class Pack:
    """Sequences in one row, each token of their tree once.

    Args:
        ids: The tokens [1, tokens].
        positions: Their positions in their sequences [1, tokens].
        groups: What attention computes together.
        order: Where each token's result is among those of all groups, padding included [tokens].
        paths: For each sequence, where its tokens are in the row.
        longest: The length of the longest sequence.
    """

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    order: Tensor
    paths: tuple[tuple[int, ...], ...]
    longest: int


def pack_sequences(sequences: Sequence[Tokens], device: torch.device) -> Pack:
    """Return the pack of sorted sequences."""
    segments, ends = segment_tree(sequences)
    paths: list[tuple[int, ...]] = []
    size = 0
    for segment in segments:
        above = () if segment.parent is None else paths[segment.parent]
        paths.append((*above, *range(size, size + len(segment.tokens))))
        size += len(segment.tokens)
    groups: list[Group] = []
    order = torch.empty(size, dtype=torch.long)
    done = 0
    for members in _alike(segments, _FREE_WASTE.get(device.type, _FREE_WASTE_ELSEWHERE)):
        width = max(len(segments[i].tokens) for i in members)
        length = max(len(paths[i]) for i in members)
        queries = torch.zeros(len(members), width, dtype=torch.long)
        keys = torch.zeros(len(members), length, dtype=torch.long)
        before = torch.tensor([segments[i].start for i in members])
        for row, i in enumerate(members):
            path, own = torch.tensor(paths[i]), len(segments[i].tokens)
            keys[row, : len(path)] = path
            queries[row, :own] = path[-own:]
            order[path[-own:]] = torch.arange(own) + done + row * width
        mask = None
        if not _first(segments[members[0]]):
            last = before[:, None] + torch.arange(width)  # the last key that each query sees; padding sees some
            mask = (torch.arange(length) <= last[:, :, None]).unsqueeze(1).to(device)
        shape = (len(members), width, length)
        groups.append(Group(queries.flatten().to(device), keys.flatten().to(device), shape, mask))
        done += queries.numel()
    ids = [token for segment in segments for token in segment.tokens]
    positions = [segment.start + i for segment in segments for i in range(len(segment.tokens))]
    return Pack(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        tuple(groups),
        order.to(device),
        tuple(paths[end] for end in ends),
        max(map(len, sequences)),
    )


def _alike(segments: Sequence[Segment], free: int) -> Iterator[list[int]]:
    """Yield groups of segments, by index, whose padding is a bounded share of their attention.

    Those at the beginning of sequences are by themselves.
    """

    def step(segment: Segment) -> int:
        return int(math.log(len(segment.tokens), _LENGTH_STEP))

    def length(segment: Segment) -> int:
        return segment.start + len(segment.tokens)

    members: list[int] = []
    widest = longest = area = 0
    for i in sorted(range(len(segments)), key=lambda i: (_first(segments[i]), step(segments[i]), length(segments[i]))):
        own, whole = len(segments[i].tokens), length(segments[i])
        padded = (len(members) + 1) * max(widest, own) * max(longest, whole)
        apart = bool(members) and _first(segments[i]) != _first(segments[members[-1]])
        if members and (apart or padded > _WASTE * (area + own * whole) + free):
            yield members
            members, widest, longest, area = [], 0, 0, 0
        members.append(i)
        widest, longest, area = max(widest, own), max(longest, whole), area + own * whole
    yield members


def _first(segment: Segment) -> bool:
    return segment.parent is None


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pack: Pack | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend from each segment of a pack to itself, causally, and to all before it; without a pack, as "sdpa" does.

    Args:
        module: The attention layer.
        query: [1, heads, tokens, size].
        key: [1, key-value heads, tokens, size].
        value: [1, key-value heads, tokens, size of values].
        attention_mask: Ignored with a pack.
        pack: What the row holds.
        scaling: The factor before the softmax.
        dropout: Zero with a pack.
        options: What else the layer asks for.

    Returns:
        [1, tokens, heads, size of values], and no weights.

    Raises:
        NotImplementedError: The layer asks for more than plain attention.
    """
    if pack is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return result
    _refuse_special(pack, dropout, options)
    kind = query.dtype
    if query.device.type == "cpu" and torch.is_grad_enabled():
        query, key, value = query.float(), key.float(), value.float()  # a CPU's backward in bfloat16 is slower
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # [tokens, heads, size]
    parts = [_attend_group(group, query, key, value, scaling) for group in pack.groups]
    return torch.cat(parts).index_select(0, pack.order).to(kind).unsqueeze(0), None


def _attend_group(group: Group, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Return the results of a group's padded queries [segments * longest segment, heads, size]."""
    count, width, length = group.shape
    queries = query.index_select(0, group.queries).view(count, width, *query.shape[1:]).transpose(1, 2)
    keys = key.index_select(0, group.keys).view(count, length, *key.shape[1:]).transpose(1, 2)
    values = value.index_select(0, group.keys).view(count, length, *value.shape[1:]).transpose(1, 2)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
    result = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=group.mask, is_causal=group.mask is None, scale=scaling
    )
    return result.transpose(1, 2).flatten(0, 1)


def _refuse_special(pack: Pack, dropout: float, options: dict[str, Any]) -> None:
    """Raise where a layer wants attention that `attend` doesn't compute."""
    special = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    window = options.get("sliding_window")
    if window is not None and window < pack.longest:
        special.append("sliding_window")
    if options.get("is_causal") is False:
        special.append("is_causal")
    if dropout:
        special.append("dropout")
    if special:
        raise NotImplementedError(f"packed attention can't compute {', '.join(special)}: score without packing.")


def register_attention() -> None:
    """Let transformers find `attend` by its name, with the masks of "sdpa" where there is no pack."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
