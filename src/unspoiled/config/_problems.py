"""Pydantic's validation errors, said in the words of someone who edits a YAML file."""

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

KeyPath: TypeAlias = tuple[str | int, ...]

_BLOCK = "must be a block of `key: value` lines"
_LIST = "must be a list"
_WHOLE = "must be a whole number"
_MESSAGES: dict[str, str] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": _BLOCK,
    "mapping_type": _BLOCK,
    "model_type": _BLOCK,
    "model_attributes_type": _BLOCK,
    "dataclass_type": _BLOCK,
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "multiple_of": "must be a multiple of {multiple_of}",
    "none_required": "must be left empty",
    "path_type": "must be a path",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_long": "must be no longer than {max_length} characters",
    "string_too_short": "must be at least {min_length} characters long",
    "string_type": "must be text",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
}


def dotted(path: KeyPath) -> str:
    """Write a key path the way people do: `models[1].parameters.weight`; unusual keys as `['a key']`."""
    parts = [f".{key}" if re.fullmatch(r"[\w/@+-]+", str(key)) else f"[{key!r}]" for key in path]
    indexed = [f"[{key}]" if isinstance(key, int) else part for key, part in zip(path, parts, strict=True)]
    return "".join(indexed).removeprefix(".")


def problems(error: ValidationError, model: type[BaseModel], value: Any) -> list[tuple[KeyPath, str]]:
    """Return a (key path, message) for each thing wrong with `value`, which `model` refused with `error`.

    The complaints of the alternatives of a union about one value become one: `must be a number or 'auto'`.
    """
    found: dict[KeyPath, dict[str, str]] = {}
    for item in error.errors(include_url=False):
        path, message, got = _problem(item, model, value)
        if not message:
            continue
        found.setdefault(path, {}).setdefault(message, got)
    return [(path, _joined(messages)) for path, messages in found.items()]


def _joined(messages: Mapping[str, str]) -> str:
    plain = [message for message, got in messages.items() if message.startswith("must be ") and got]
    others = [message + got for message, got in messages.items() if message not in plain]
    if plain:
        wanted = " or ".join(dict.fromkeys(message.removeprefix("must be ") for message in plain))
        others.insert(0, f"must be {wanted}{messages[plain[0]]}")
    return "; ".join(others)


def _problem(item: Any, model: type[BaseModel], value: Any) -> tuple[KeyPath, str, str]:
    kind, context = item["type"], item.get("ctx", {})
    path, here, level, leaf = _follow(model, item["loc"], value)
    if kind == "missing":
        return path, "missing: add it", ""
    if kind == "extra_forbidden":
        return path, _unknown_key(str(path[-1]), level), ""
    if kind in ("value_error", "assertion_error"):
        return path, str(context.get("error", item["msg"])), ""
    if kind == "union_tag_not_found":
        return path, _tag_missing(context["discriminator"], leaf), _got(here)
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        inside = isinstance(here, dict) and key in here
        path, here = ((*path, key), here[key]) if inside else (path, here)
        return path, *_choices(context["expected_tags"], here)
    if kind in ("literal_error", "enum"):
        return path, *_choices(context["expected"], here)
    if kind in ("too_short", "string_too_short") and context["min_length"] == 1:
        # pydantic counts only the valid entries, whose errors are in the list already
        return path, "" if here else "must not be empty", ""
    if kind == "string_type" and isinstance(here, int | float):
        return path, "must be text: put quotes around it", _got(here)
    if kind in _MESSAGES:
        return (
            path,
            _MESSAGES[kind].format(**{key: _short(bound) for key, bound in context.items()}),
            _got(here),
        )
    message = item["msg"][:1].lower() + item["msg"][1:]
    return path, message, _got(here) if message.startswith("must be ") else ""


def _got(value: Any) -> str:
    if value is None:
        return " (got nothing)"
    if isinstance(value, bool):
        return f" (got {str(value).lower()})"
    if isinstance(value, dict):
        return " (got a block)"
    if isinstance(value, list):
        return f" (got a list of {len(value)})" if value else " (got an empty list)"
    shown = repr(value)
    return f" (got {shown if len(shown) <= 80 else shown[:76] + '...' + shown[-1]})"


def _short(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def closest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that `word` was probably meant to be, for a "did you mean"; None if none is near."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return close[0] if close else None


def _choices(expected: str, here: Any) -> tuple[str, str]:
    words = re.findall(r"'([^']*)'", expected)
    if " or " not in expected:
        expected = " or ".join(expected.rsplit(", ", 1))
    guess = closest(here, words) if isinstance(here, str) else None
    got = _got(here)
    return f"must be {expected}", f"{got[:-1]}; did you mean {guess!r}?)" if guess else got


def _unknown_key(key: str, level: Any) -> str:
    if not _is_model(level):
        return "unknown key: remove it"
    refused: Mapping[str, str] = getattr(level, "not_supported", {})
    if key in refused:
        return f"`{key}` is not supported yet: {refused[key]}"
    keys = [field.alias or name for name, field in level.model_fields.items()]
    guess = closest(key, keys)
    return f"unknown key; did you mean {guess!r}?" if guess else f"unknown key; known here: {', '.join(keys)}"


def _tag_missing(discriminator: str, leaf: Any) -> str:
    key = discriminator.strip("'")
    tags = [tag for member in _members(leaf) for tag in _tags(member, key)]
    return f"needs the key `{key}`" + (f", one of {', '.join(map(repr, tags))}" if tags else "")


def _follow(model: Any, loc: tuple[int | str, ...], value: Any) -> tuple[KeyPath, Any, Any, Any]:
    """Follow pydantic's location through the value and the model's types side by side.

    The types tell keys of the document from the names of union members, which pydantic adds to the location.

    Returns:
        The key path without those names; the value there (None if absent); the type of the block that holds
        the last key; the type expected at the path.
    """
    path: list[str | int] = []
    here, level, kind = value, None, _bare(model)
    for part in loc:
        if len(_members(kind)) > 1:
            kind = _bare(_member(kind, part))
            continue
        level = kind
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if part == "[key]" and not inside:  # pydantic's mark: the key itself is what is wrong
            here, kind = path[-1], str
            continue
        if not inside and not _is_model(kind):
            continue  # not in the document: another mark of pydantic's
        path.append(part)
        here, kind = (here[part] if inside else None), _bare(_inner(kind, part))
    return tuple(path), here, level, kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _bare(kind: Any) -> Any:
    """Take `Annotated[...]`, `type X = ...` and `| None` off a type."""
    while True:
        if hasattr(kind, "__value__"):
            kind = kind.__value__
        elif get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif len(members := _members(kind)) == 1:
            kind = members[0]
        else:
            return kind


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(kind) if member is not type(None)]


def _tags(member: Any, key: str | None = None) -> list[Any]:
    if get_origin(member) is Annotated:
        named = [mark.tag for mark in get_args(member)[1:] if isinstance(mark, Tag)]
        if named:
            return named
    bare = _bare(member)
    if not _is_model(bare):
        return []
    annotations = [field.annotation for name, field in bare.model_fields.items() if key in (None, field.alias, name)]
    return [tag for kind in annotations if get_origin(kind) is Literal for tag in get_args(kind)]


def _member(kind: Any, name: int | str) -> Any:
    members = _members(kind)
    named = [member for member in members if getattr(_bare(member), "__name__", None) == name]
    return next((member for member in members if name in _tags(member)), named[0] if named else Any)


def _inner(kind: Any, part: int | str) -> Any:
    if _is_model(kind):
        fields = kind.model_fields.items()
        return next((field.annotation for name, field in fields if part in (name, field.alias)), Any)
    args = [arg for arg in get_args(kind) if arg is not Ellipsis]
    if not args:
        return Any
    if get_origin(kind) is tuple and isinstance(part, int):
        return args[min(part, len(args) - 1)]
    return args[-1]
