"""The license that a model's own card states."""

from __future__ import annotations

from pathlib import Path

from unspoiled.checkpoints._source import ModelSource
from unspoiled.config import load_yaml
from unspoiled.errors import ConfigError

UNLISTED = "other: "
"""What begins the name of a license that the hub has no identifier for."""
_LONGEST = 200_000
"""How much of a card is read, in characters; the front matter stands first."""
_LONGEST_NAME = 100


def declared_license(model: ModelSource) -> str | None:
    """Return the license that a model's card states: a hub identifier, or `other: NAME`; None if unknown.

    Of a LoRA expert the adapter's card counts. A text that can't be read states nothing: the card is a stranger's.
    """
    folder = model.directory if model.adapter is None else model.adapter.directory
    card = (folder if folder.is_dir() else folder.parent) / "README.md"
    front = _front_matter(card)
    stated = front.get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    prefix = ""
    if stated == "other":
        prefix, stated = UNLISTED, front.get("license_name")
    name = " ".join(stated.split())[:_LONGEST_NAME] if isinstance(stated, str) else ""
    return prefix + name if name else None


def _front_matter(card: Path) -> dict[str, object]:
    try:
        with card.open(encoding="utf-8") as file:
            text = file.read(_LONGEST)
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n") or "\n---" not in text:
        return {}
    try:
        found = load_yaml(text[4:].partition("\n---")[0], source=str(card)).value
    except ConfigError:
        return {}
    return found if isinstance(found, dict) else {}
