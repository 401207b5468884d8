"""Several token sequences that share their beginning, run through a model as one sequence.

Every prompt under the chat template begins with the same system message, and every choice of a
multiple-choice row follows the same question. A pack holds the shared root once and the branches side by
side: a branch sees the root and itself, and its positions go on from the root's end, so its logits are
those of root + branch alone. On a CPU this saves a third of the tokens of short rows, and all padding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION = "float32_sdpa"


def _float32_attention(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend in float32 inside a bf16 model: in bf16 the backward pass is several times slower on a CPU."""
    groups = query.shape[1] // key.shape[1]
    with torch.autocast("cpu", enabled=False):
        mixed = scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(groups, dim=1),
            value.float().repeat_interleave(groups, dim=1),
            attn_mask=None if attention_mask is None else attention_mask.float(),
            is_causal=attention_mask is None and query.shape[2] > 1,
            scale=kwargs.get("scaling"),
        )
    return mixed.transpose(1, 2).to(query.dtype).contiguous(), None


AttentionInterface.register(ATTENTION, _float32_attention)


@dataclass(frozen=True)
class Branch:
    """The token ids after the shared root, and how many at the end are the response."""

    ids: tuple[int, ...]
    response: int


@dataclass(frozen=True)
class Pack:
    """Packs as one batch; ``rows``, ``columns`` and ``targets`` name the response tokens' predictions.

    ``ids``, ``positions`` [packs, length]; ``mask`` [packs, 1, length, length], added to the scores;
    ``owners`` [response tokens]: the index of the branch, in the order given, that each belongs to.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owners: Tensor


def plan(sizes: Iterable[int], root: int, capacity: int) -> list[list[int]]:
    """Spread the branches over packs of about ``capacity`` tokens, longest first; return the indices."""
    packs: list[tuple[int, list[int]]] = []
    for index, size in sorted(enumerate(sizes), key=lambda pair: -pair[1]):
        for slot, (used, members) in enumerate(packs):
            if used + size <= capacity:
                packs[slot] = (used + size, [*members, index])
                break
        else:
            packs.append((root + size, [index]))
    return [members for _, members in packs]


def pack(roots: Sequence[Sequence[int]], groups: Sequence[Sequence[Branch]], pad: int) -> Pack:
    """Lay out one pack per root with the branches of its group; the last ids of a branch are its response."""
    length = max(len(root) + sum(len(b.ids) for b in group) for root, group in zip(roots, groups, strict=True))
    ids = torch.full((len(roots), length), pad)
    positions = torch.zeros((len(roots), length), dtype=torch.long)
    owner = torch.full((len(roots), length), -1)
    rows, columns, targets, owners = [], [], [], []
    count = 0
    for row, (root, group) in enumerate(zip(roots, groups, strict=True)):
        start = len(root)
        ids[row, :start] = torch.tensor(root)
        positions[row, :start] = torch.arange(start)
        owner[row, :start] = 0
        for number, branch in enumerate(group, start=1):
            end = start + len(branch.ids)
            ids[row, start:end] = torch.tensor(branch.ids)
            positions[row, start:end] = torch.arange(len(root), len(root) + len(branch.ids))
            owner[row, start:end] = number
            for column in range(end - branch.response, end):
                rows.append(row)
                columns.append(column - 1)
                targets.append(branch.ids[column - start])
                owners.append(count)
            start = end
            count += 1
    sees = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    sees &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    return Pack(
        ids, positions, mask[:, None], torch.tensor(rows), torch.tensor(columns), torch.tensor(targets),
        torch.tensor(owners),
    )  # fmt: skip


def log_probabilities(model: Any, batch: Pack) -> Tensor:
    """Return the log-probability of each response token [response tokens], in float32.

    The head runs on the response's positions only: with 49,152 words it is a fifth of the model's work.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(
        input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
    ).last_hidden_state
    logits = causal.lm_head(hidden[batch.rows, batch.columns]).float()
    chosen: Tensor = logits.log_softmax(-1).gather(1, batch.targets[:, None])
    return chosen[:, 0]
