"""The texts that ask models for questions, and the refusals written without a model.

They are data files, so that a user can read what is asked, and replace it: a folder of one's own holds files of the
same names, and what it lacks is the package's.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from unspoiled.config import Document, load_yaml, load_yaml_file
from unspoiled.data._replies import Schema, require_schema
from unspoiled.errors import ConfigError
from unspoiled.files import hash_value
from unspoiled.inference import Prompt

BORDERLINE, EVERYDAY = "borderline", "everyday"
"""The kinds of harmless questions. `everyday` is also their group in D_benign; borderline ones have a category."""

LEAST_EXAMPLES = 3
"""In-context questions that a request shows."""
_NEEDED = {"safety_question": "category", "borderline_question": "category"}
_GAPS: Mapping[str, frozenset[str]] = {
    "safety_question": frozenset({"category"}),
    "domain_question": frozenset({"domain", "examples", "count"}),
    "borderline_question": frozenset({"category", "examples", "count"}),
    "everyday_question": frozenset({"category", "examples", "count"}),
}
_FILES = [*_GAPS, "benign_examples", "refusals"]


@dataclass(frozen=True)
class RequestTemplate:
    """A request with gaps (`{name}`), the forced beginning of the reply, and the JSON that the reply must be."""

    system: str
    user: str
    prefix: str
    schema: Schema

    def fill(self, **values: object) -> Prompt:
        """Return the request with its gaps filled."""
        return Prompt(self.user.format(**values), system=self.system, prefix=self.prefix.format())


@dataclass(frozen=True)
class RefusalTexts:
    """What a refusal without a model is put together from: an opening and an ending."""

    openings: tuple[str, ...]
    endings: tuple[str, ...]


class Templates:
    """The texts of data generation.

    Args:
        folder: A folder with files that replace the package's of the same names; None for none.

    Raises:
        ConfigError: The folder has a file that replaces nothing, or one that doesn't make sense.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None:
            self._refuse_unknown_files(folder)
        for name in _GAPS:
            self.request(name)
        _ = self.refusals
        if few := [kind for kind, texts in self.benign_examples.items() if len(set(texts)) < LEAST_EXAMPLES]:
            source = self._document("benign_examples").source
            raise ConfigError(f"{source}: {few[0]}: give at least {LEAST_EXAMPLES} different questions.")

    def request(self, name: str) -> RequestTemplate:
        """Return a request by name, such as `safety_question`."""
        document = self._document(name)
        value = document.value
        if not isinstance(value, dict) or set(value) != {"system", "user", "prefix", "schema"}:
            raise ConfigError(f"{document.source}: a request has the keys system, user, prefix and schema, no others.")
        for key, gaps in (("system", frozenset()), ("user", _GAPS[name]), ("prefix", frozenset())):
            _require_gaps(document, key, gaps)
        if (gap := _NEEDED.get(name)) and f"{{{gap}}}" not in value["user"]:
            raise document.error(("user",), f"has no {{{gap}}}: rows are labelled with the category that is asked for.")
        require_schema(value["schema"], document.source)
        # the system message is no format string: it has no gaps, and its braces are braces
        return RequestTemplate(value["system"], value["user"], value["prefix"], value["schema"])

    @cached_property
    def benign_examples(self) -> dict[str, list[str]]:
        """The example questions that requests for harmless questions show: `borderline` and `everyday` ones."""
        return self._lists("benign_examples", BORDERLINE, EVERYDAY)

    @cached_property
    def refusals(self) -> RefusalTexts:
        """The parts of refusals that no model wrote."""
        found = self._lists("refusals", "openings", "endings")
        if all("{topic}" in text for text in found["openings"]):
            source = self._document("refusals").source
            raise ConfigError(f"{source}: give an opening without {{topic}}: some categories have no topic.")
        return RefusalTexts(tuple(found["openings"]), tuple(found["endings"]))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all texts."""
        return hash_value({name: self._document(name).value for name in _FILES})

    def _lists(self, name: str, *keys: str) -> dict[str, list[str]]:
        """Return a file that is a mapping of these keys to lists of texts."""
        document = self._document(name)
        found = document.value
        if not isinstance(found, dict) or set(found) != set(keys) or not all(map(_are_texts, found.values())):
            raise ConfigError(f"{document.source}: give a list of texts under each of {', '.join(keys)}.")
        return found

    def _document(self, name: str) -> Document:
        own = None if self._folder is None else self._folder / f"{name}.yaml"
        return load_yaml_file(own) if own is not None and own.exists() else _packaged(f"{name}.yaml")

    def _refuse_unknown_files(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no directory: `generate.templates` names a folder of YAML files.")
        known = [f"{name}.yaml" for name in _FILES]
        for path in sorted(folder.iterdir()):
            if path.suffix in {".yaml", ".yml"} and path.name not in known:
                raise ConfigError(f"{path} replaces nothing: the files of a templates folder are {', '.join(known)}.")


def _packaged(name: str) -> Document:
    text = resources.files("unspoiled.data").joinpath("templates", name).read_text(encoding="utf-8")
    return load_yaml(text, source=name)


def _require_gaps(document: Document, key: str, gaps: Collection[str]) -> None:
    text = document.value[key]
    if not isinstance(text, str):
        raise document.error((key,), f"is {text!r}: give a text.")
    if key == "system":
        return
    try:
        parts = [part for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise document.error((key,), f"{error}: write {{{{ and }}}} for braces.") from None
    if formatted := [name for _, name, form, conversion in parts if form or conversion]:
        raise document.error((key,), f"{{{formatted[0]}}} is to be formatted: write the gap's name alone.")
    found = {str(name) for _, name, _, _ in parts}
    if unknown := found - set(gaps):
        known = ", ".join(f"{{{gap}}}" for gap in sorted(gaps)) or "none"
        gap = f"{{{sorted(unknown)[0]}}}"
        raise document.error((key,), f"{gap} is no gap here (there are: {known}); write {{{{ and }}}} for braces.")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(text, str) for text in value)
