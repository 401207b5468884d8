"""Harm categories: the built-in taxonomies, and a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unspoiled.config import TAXONOMIES, load_yaml, load_yaml_file
from unspoiled.data._templates import EVERYDAY
from unspoiled.errors import ConfigError


@dataclass(frozen=True)
class Category:
    """A kind of harm.

    Args:
        name: What the questioner is asked about, and reports call it.
        topic: What completes "I can't help with ..."; None where nothing was given.
    """

    name: str
    topic: str | None = None


def read_taxonomy(name: str | Path) -> list[Category]:
    """Return the harm categories of a built-in taxonomy, or of a YAML file.

    The file is a list of names, or of mappings with `name` and `topic`.

    Args:
        name: `beavertails`, `llama-guard`, `ailuminate`, or the file's path.

    Raises:
        ConfigError: The file holds anything but a list of distinct categories.
    """
    if name in TAXONOMIES:
        text = resources.files("unspoiled.data").joinpath("templates", "taxonomies", f"{name}.yaml").read_text("utf-8")
        document = load_yaml(text, source=f"{name}.yaml")
    else:
        document = load_yaml_file(Path(name))
    value = document.value
    categories = [_category(item) for item in value] if isinstance(value, list) else []
    found = [category for category in categories if category is not None]
    if not found or len(found) < len(categories):
        raise ConfigError(
            f"{document.source}: a taxonomy is a YAML list of category names, such as `- Violence`, or of mappings "
            "with `name` and `topic`."
        )
    if len({category.name for category in found}) < len(found):
        raise ConfigError(f"{document.source}: a category is listed twice: name each once.")
    if EVERYDAY in {category.name for category in found}:
        raise ConfigError(f"{document.source}: {EVERYDAY!r} is the group of questions without a category: rename it.")
    return found


def _category(item: object) -> Category | None:
    if isinstance(item, str) and item.strip():
        return Category(item)
    if isinstance(item, dict) and {"name"} <= set(item) <= {"name", "topic"}:
        name, topic = item["name"], item.get("topic")
        if isinstance(name, str) and name.strip() and (topic is None or isinstance(topic, str)):
            return Category(name, topic)
    return None
