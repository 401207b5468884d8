"""What the model card is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unspoiled.data import DataCardInputs
from unspoiled.evaluate import Results


@dataclass(frozen=True)
class CardModel:
    """A model that went into the merge.

    Args:
        name: What the card calls it: its hub id, or the name of its directory.
        hub_id: Its id on the hub; None for a local directory, which no link may lead to.
        license: What its own card states, as `declared_license` returns it; None if unknown.
    """

    name: str
    hub_id: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class CardInputs:
    """Everything on the card, in its final form.

    Args:
        name: The merged model's name.
        models: The base and the experts.
        recipe_yaml: The recipe in mergekit's YAML, without paths of this machine.
        guard: What judged the responses.
        hashes: The content hash of every input, by its name.
        results: What was measured, or None when nothing was.
        winner: The name in `results` of the model that this card is about.
        data: How the data of the search were made; None where none were.
        command: What a reader types to get this merge and these numbers again; empty leaves the section out.
        versions: Packages and their versions.

    Raises:
        ValueError: There are results and the winner is not among them, or there is no model.
    """

    name: str
    models: Sequence[CardModel]
    recipe_yaml: str
    guard: str
    hashes: Mapping[str, str]
    results: Results | None = None
    winner: str | None = None
    data: DataCardInputs | None = None
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a card needs the models that were merged, got none")
        if self.results is not None and self.winner not in self.results.models:
            known = ", ".join(map(repr, self.results.models))
            raise ValueError(f"no scores for model {self.winner!r}; there are {known}")
