"""YAML as this package reads it: plain values, every key's line number, and no surprises.

The reading rules are YAML 1.2's core schema with less in it: `1e-3` is a number; only `true` and `false` are
booleans; dates, `yes`, `0x1F` and `0o17` stay text; anchors, aliases, tags, duplicate keys, keys that aren't
text and numbers that aren't finite are refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from unspoiled.config._problems import KeyPath, dotted, problems
from unspoiled.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64

NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {word: meaning for text, meaning in (("true", True), ("false", False), ("null", None))
          for word in (text, text.capitalize(), text.upper())} | {"": None, "~": None}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """One YAML document as plain Python values (dict, list, str, int, float, bool, None).

    Attributes:
        value: The document.
        source: The file's name as error messages show it.
        lines: The 1-based line of every key and list item, by key path; `()` is the document itself.
    """

    value: Any
    source: str
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath = ()) -> int:
        """Return the 1-based line of `path`, or of its nearest ancestor that is in the document."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Return (not raise) the ConfigError `SOURCE:LINE: key.path: message`."""
        return ConfigError(self.describe(path, message))

    def describe(self, path: KeyPath, message: str) -> str:
        """Return `SOURCE:LINE: key.path: message`."""
        name = dotted(path)
        return f"{self.source}:{self.line(path)}: {name + ': ' if name else ''}{message}"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser and composer, refusing what a config has no need of."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.depth = 0
        super().__init__(text)

    def refuse(self, mark: Any, message: str) -> ConfigError:
        return ConfigError(f"{self.source}:{mark.line + 1}: {message}")

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise self.refuse(
                event.start_mark,
                f"anchors and aliases are not read (got {sign + anchor!r}): write the value out, "
                "or put quotes around it if it is meant as text",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            raise self.refuse(
                event.start_mark,
                f"tags are not read (got {shown!r}): remove it, or put quotes around text like it",
            )
        if self.depth == MAX_DEPTH:
            raise self.refuse(event.start_mark, f"nested more than {MAX_DEPTH} deep: flatten it")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def value(self, node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
        """Return the plain value of `node`, adding the line of everything below `path` to `lines`."""
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, lines)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                lines[*path, index] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index), lines))
            return items
        return self.scalar(node)

    def mapping(self, node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            mark = key_node.start_mark
            if not isinstance(key, str):
                shown = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or a block"
                raise self.refuse(mark, f"a key must be text (got {shown}): put quotes around it")
            here = (*path, key)
            if key in found:
                raise self.refuse(
                    mark, f"{dotted(here)}: given twice, first in line {lines[here]}: remove one of the two"
                )
            lines[here] = mark.line + 1
            found[key] = self.value(value_node, here, lines)
        return found

    def scalar(self, node: Any) -> str | int | float | bool | None:
        text: str = node.value
        if node.style is not None:
            return self.text(node)
        if text in _WORDS:
            return _WORDS[text]
        number = float(text) if NUMBER.fullmatch(text) else None
        if _NOT_FINITE.fullmatch(text) or (number is not None and not math.isfinite(number)):
            raise self.refuse(node.start_mark, f"{text[:40]!r} is not a finite number: write an ordinary number")
        if number is None:
            return self.text(node)
        if not _INTEGER.fullmatch(text):
            return number
        whole = int(text)
        if abs(whole) >= 2**64:
            raise self.refuse(node.start_mark, f"{text[:40]!r} needs more than 64 bits: write it with a decimal point")
        return whole

    def text(self, node: Any) -> str:
        try:  # joins the escaped surrogate pairs that JSON writers make of one character
            joined: str = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.refuse(
                node.start_mark, f"{node.value[:40]!r} holds half a character: correct its \\u escape"
            ) from None
        return joined


def load_yaml(text: str, *, source: str) -> Document:
    """Read `text`, which holds one YAML document.

    Raises:
        ConfigError: `SOURCE:LINE: ...` when the text isn't valid YAML, is empty, holds more than one document
            or anything this module's rules refuse.
    """
    documents = load_yaml_documents(text, source=source)
    if len(documents) > 1:
        raise documents[1].error(
            (), "a second document starts here: keep one in the file, without a '---' line between"
        )
    return documents[0]


def load_yaml_documents(text: str, *, source: str) -> list[Document]:
    """Read `text`, which holds one or more YAML documents separated by `---`, by the rules of `load_yaml`."""
    documents: list[Document] = []
    loader = None
    try:
        loader = _Loader(text, source)
        while loader.check_node():
            node: Any = loader.get_node()
            lines: dict[KeyPath, int] = {(): node.start_mark.line + 1}
            documents.append(Document(loader.value(node, (), lines), source, lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(
            f"{source}:{line}: not valid YAML: {error.problem or error.context}: check the indentation "
            "(spaces, no tabs), and put quotes around text that holds ': ' or starts with a sign such as * !"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{source}:{line}: the character {chr(error.character)!r} is not allowed: remove it"
        ) from None
    except ValueError as error:  # PyYAML's own conversions: an escape beyond Unicode, a version number of a mile
        line = loader.line + 1 if loader else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error}: correct it, or put quotes around it") from None
    if not documents or documents[0].value is None:
        raise ConfigError(f"{source}:1: empty: nothing but comments or blank lines is in it")
    return documents


def read_text(path: str | Path) -> str:
    """Return the text of a config file, which is UTF-8 of at most `MAX_BYTES`; ConfigError otherwise."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}): check the path") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}: larger than {MAX_BYTES >> 20} MiB, too large for YAML written by hand: check the path"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text: save it as UTF-8, or check the path") from None


def load_yaml_file(path: str | Path) -> Document:
    """Read the one YAML document in the file `path`, by the rules of `load_yaml`."""
    return load_yaml(read_text(path), source=str(path))


def validate(model: type[Model], document: Document, *, at: KeyPath = ()) -> Model:
    """Return the part of `document` under `at` as a `model`.

    Values are validated as JSON values, so that a model with `strict=True` still takes lists for tuples and
    text for paths. A model may name keys that it knows and refuses in a class variable
    `not_supported: ClassVar[Mapping[str, str]]` (key -> what to do instead).

    Raises:
        ConfigError: One line `SOURCE:LINE: key.path: what is wrong` for each problem, in the lines' order.
    """
    value = document.value
    for depth, key in enumerate(at):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise document.error(at[: depth + 1], "missing: add it") from None
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        found = [((*at, *path), message) for path, message in problems(error, model, value)]
        found.sort(key=lambda problem: document.line(problem[0]))
        raise ConfigError("\n".join(document.describe(*problem) for problem in found)) from None


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of `model`, by which editors complete and check a YAML file as it is typed."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
