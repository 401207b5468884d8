"""Which layer a tensor belongs to, read from its name alone, so that no per-architecture table is needed."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.([0-9]{1,6})(?=\.|$)")


def layer_index(tensor: str) -> int | None:
    """Return the 0-based layer of the tensor of that name; None for embeddings, final norm and head.

    The rule: names are split at dots; the layer is the number that comes directly after the first component
    `layers`, `layer`, `h`, `blocks` or `block` with a number after it. So `model.layers.12.mlp.up_proj.bias`
    is in layer 12, `model.layers.3.block_sparse_moe.experts.7.w1.weight` in 3, `transformer.h.3.attn.bias` in
    3 and `decoder.block.4.layer.0.SelfAttention.q.weight` in 4.
    """
    match = _LAYER.search(tensor)
    return int(match[1]) if match else None


def count_layers(tensors: Iterable[str]) -> int:
    """Return the number of layers of a model with these tensor names: the highest layer index + 1, or 0."""
    return max((index + 1 for name in tensors if (index := layer_index(name)) is not None), default=0)
