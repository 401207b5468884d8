"""Which layer a tensor belongs to, read from its name alone, so that no per-architecture table is needed."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.([0-9]{1,6})(?=\.|$)")


def layer_stack(tensor: str) -> tuple[str, int] | None:
    """Return the stack of layers that a tensor is in and its 0-based layer there; None for a tensor outside of layers.

    A model may have several stacks of different depths (vision and language towers, encoder and decoder), so that
    a position in depth means something within one stack only. The stack is the name up to the number.

    The rule: names are split at dots; the layer is the number that comes directly after the first component
    `layers`, `layer`, `h`, `blocks` or `block` with a number after it. So `model.layers.12.mlp.up_proj.bias` is
    ("model.layers", 12), `visual.blocks.3.attn.qkv.weight` ("visual.blocks", 3), and
    `decoder.block.4.layer.0.SelfAttention.q.weight` ("decoder.block", 4).
    """
    match = _LAYER.search(tensor)
    return (tensor[: match.start(1) - 1], int(match[1])) if match else None


def layer_index(tensor: str) -> int | None:
    """Return the 0-based layer of a tensor in its stack; None for embeddings, final norm and head."""
    found = layer_stack(tensor)
    return found[1] if found else None


def stack_depths(tensors: Iterable[str]) -> dict[str, int]:
    """Return every stack of layers among these tensor names and its depth: its highest layer index + 1."""
    depths: dict[str, int] = {}
    for stack, index in filter(None, map(layer_stack, tensors)):
        depths[stack] = max(depths.get(stack, 0), index + 1)
    return depths


def count_layers(tensors: Iterable[str]) -> int:
    """Return the depth of the deepest stack of a model with these tensor names, or 0."""
    return max(stack_depths(tensors).values(), default=0)
