"""The texts that ask models for questions; data files, so that a user can read what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unspoiled.config import load_yaml, load_yaml_file
from unspoiled.errors import ConfigError
from unspoiled.inference import Prompt

BEAVERTAILS = "beavertails"


@dataclass(frozen=True)
class RequestTemplate:
    """A request with gaps (`{name}`), and the forced beginning of the reply."""

    system: str
    user: str
    prefix: str

    def fill(self, **values: object) -> Prompt:
        """Return the request with its gaps filled."""
        return Prompt(self.user.format(**values), system=self.system, prefix=self.prefix.format())


def read_request(name: str) -> RequestTemplate:
    """Read one of the package's request templates by name."""
    source = f"{name}.yaml"
    text = resources.files("unspoiled.data").joinpath("templates", source).read_text(encoding="utf-8")
    return RequestTemplate(**load_yaml(text, source=source).value)


def read_benign_examples() -> dict[str, list[str]]:
    """Return the example questions that requests for harmless questions show: `borderline` and `everyday` ones."""
    text = resources.files("unspoiled.data").joinpath("templates", "benign_examples.yaml").read_text(encoding="utf-8")
    found: dict[str, list[str]] = load_yaml(text, source="benign_examples.yaml").value
    return found


def read_taxonomy(name: str | Path) -> list[str]:
    """Return the harm categories of the built-in taxonomy, or of a YAML file with a list of names.

    Raises:
        ConfigError: The file holds anything but a list of distinct texts.
    """
    if name == BEAVERTAILS:
        text = resources.files("unspoiled.data").joinpath("templates", "beavertails.yaml").read_text(encoding="utf-8")
        document = load_yaml(text, source="beavertails.yaml")
    else:
        document = load_yaml_file(Path(name))
    categories = document.value
    if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
        raise ConfigError(f"{document.source}: a taxonomy is a YAML list of category names, such as `- Violence`.")
    if len(set(categories)) < len(categories):
        raise ConfigError(f"{document.source}: a category is listed twice: name each once.")
    return categories
