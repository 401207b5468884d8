"""What `unspoiled extract-lora` prints on stderr: how much of the model the adapter holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unspoiled.merging import ExtractedTensor, Extraction

_WIDTH = 80  # columns
_LONGEST_MODULE = 32
_LISTED = 3


def print_extraction(extraction: Extraction) -> None:
    """Print the share of the task vectors' squared norm that the adapter holds, by kind of module."""
    from rich.console import Console
    from rich.text import Text

    from unspoiled.report import plain_table

    table = plain_table()
    table.add_column("module", no_wrap=True)
    for column in ("tensors", "held", "lowest"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind, tensors in _by_kind(extraction).items():
        lowest = min(tensor.energy for tensor in tensors)
        name = kind if len(kind) <= _LONGEST_MODULE else f"…{kind[1 - _LONGEST_MODULE :]}"
        table.add_row(Text(name), str(len(tensors)), f"{_energy(tensors):.1%}", f"{lowest:.1%}")
    console = Console(stderr=True, width=_WIDTH, highlight=False)
    console.print(table)
    console.print(
        f"{extraction.parameters / 1e6:,.2f} M parameters hold {extraction.energy:.1%} of the squared norm of the "
        "difference in these tensors."
    )
    for names, why in [(extraction.left_out, "can't be in a LoRA"), (extraction.excluded, "were excluded")]:
        if names:
            rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            shown = f"{', '.join(names[:_LISTED])}{rest}"
            console.print(f"Not in it: {len(names)} tensors that differ and {why}: {shown}.", markup=False)


def _by_kind(extraction: Extraction) -> dict[str, list[ExtractedTensor]]:
    kinds: dict[str, list[ExtractedTensor]] = {}
    for tensor in extraction.tensors:
        kind = tensor.name.removesuffix(".weight").rpartition(".")[2]
        kinds.setdefault(kind, []).append(tensor)
    return dict(sorted(kinds.items()))


def _energy(tensors: list[ExtractedTensor]) -> float:
    whole = sum(tensor.norm**2 for tensor in tensors)
    return sum(tensor.energy * tensor.norm**2 for tensor in tensors) / whole
