"""The parts of a model that an audit goes by: its embeddings, each layer, its head."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.checkpoints import is_input_side
from unspoiled.config import layer_stack, stack_depths

EMBEDDINGS, HEAD = "embeddings", "head"


class Layers:
    """The parts of one architecture, from its tensors' names.

    Args:
        tensors: The names of the model's tensors.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        depths = stack_depths(tensors)
        self._main = max(depths, key=lambda stack: depths[stack], default=None)
        places = {place for tensor in tensors if (place := layer_stack(tensor)) is not None}
        ordered = sorted(places, key=lambda place: (place[0] != self._main, place))
        outside = {self.of(tensor) for tensor in tensors if layer_stack(tensor) is None}
        self.labels = [
            *([EMBEDDINGS] if EMBEDDINGS in outside else []),
            *(self._label(*place) for place in ordered),
            *([HEAD] if HEAD in outside else []),
        ]
        """`embeddings`, `layer 0`, ..., `head`: the final norm and the output head. A tied head is the embeddings.
        Layers of a further stack (a vision tower) bear its name and come after the deepest stack's."""

    def of(self, tensor: str) -> str:
        """Return the part that a tensor belongs to."""
        place = layer_stack(tensor)
        if place is None:
            return EMBEDDINGS if is_input_side(tensor) else HEAD
        return self._label(*place)

    def _label(self, stack: str, index: int) -> str:
        return f"layer {index}" if stack == self._main else f"{stack} {index}"
