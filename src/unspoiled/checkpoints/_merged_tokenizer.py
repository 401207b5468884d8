"""The tokenizer of a merged vocabulary: one model's, the donor's, with the other models' tokens added to it.

The donor's tokens keep their ids, its rules for normalising and splitting text stay, and so do its special tokens'
roles. What is added:

- Added tokens (control tokens, mostly) come with their flags. They are cut out of a text before it is split, as in
  the model that they come from.
- Tokens that are part of another model's vocabulary go into the donor's, and for BPE the merges that make or use
  them follow all of the donor's. So a model whose BPE extends the donor's splits text as before, and the donor's
  own merges take precedence. As added tokens they would be cut out of the middle of words, and byte-level ones
  (`Ġhello`) would never match. This needs tokenizers of one kind that spell text alike; others are refused.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspoiled.checkpoints._model_tokens import ModelTokens, added_token, differing_flags
from unspoiled.checkpoints._reader import listed, read_json, safe_path
from unspoiled.checkpoints._tokenizer import TOKENIZER_FILES
from unspoiled.errors import CheckpointError, PreflightError
from unspoiled.files import write_atomic, write_json_atomic

_OTHER_FORMS = (
    *("added_tokens.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""Files that say again what tokenizer.json says; beside a changed tokenizer.json they would contradict it."""


@dataclass(frozen=True)
class MergedTokenizer:
    """The tokenizer of a merged vocabulary.

    Attributes:
        donor: The directory that all tokenizer files are taken from.
        token_ids: The id of every token.
        content: The new content of tokenizer.json, or None if the donor's files are right as they are.
        new_entries: The added tokens that the donor lacks.
        notes: What differs between the models, and what was done about it.
    """

    donor: Path
    token_ids: Mapping[str, int]
    content: Mapping[str, Any] | None
    new_entries: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]

    def write(self, directory: Path) -> None:
        """Write the tokenizer's files and the donor's generation config into a directory.

        Raises:
            CheckpointError: the donor has an unsafe link.
        """
        names = [name for name in TOKENIZER_FILES if (self.donor / name).exists()]
        names += [path.relative_to(self.donor).as_posix() for path in self.donor.glob("additional_chat_templates/*")]
        if (self.donor / "generation_config.json").exists():
            names.append("generation_config.json")
        for name in sorted(names):
            if self.content is not None and name in ("tokenizer.json", *_OTHER_FORMS):
                continue
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(directory / name, safe_path(self.donor, name).read_bytes())
        if self.content is not None:
            write_atomic(directory / "tokenizer.json", json.dumps(self.content, ensure_ascii=False, indent=2))
            self._extend_config(directory)

    def _extend_config(self, directory: Path) -> None:
        """List the new tokens in the config of older transformers versions, which read them from there."""
        if not (directory / "tokenizer_config.json").exists():
            return
        config = read_json(directory, "tokenizer_config.json")
        if isinstance(config.get("added_tokens_decoder"), dict):
            for entry in self.new_entries:
                config["added_tokens_decoder"][str(entry["id"])] = {k: v for k, v in entry.items() if k != "id"}
            write_json_atomic(directory / "tokenizer_config.json", config)


def merge_tokenizers(
    models: Mapping[str, ModelTokens], donor: str, *, union: bool, further: Mapping[str, Mapping[str, Any]]
) -> MergedTokenizer:
    """Add tokens to the donor's tokenizer.

    New ids start behind the donor's last: first the tokens of the other models' vocabularies, then their added
    tokens, each in the order of `models` and of their own ids, then `further`.

    Args:
        models: The models' tokens by name.
        donor: The name of the model to start from.
        union: Whether to add every token of every model, or only `further`.
        further: Tokens that rules name, with the flags to add them with where no model has them.

    Raises:
        PreflightError: another model's vocabulary can't be added to the donor's.
        CheckpointError: the tokenizers library doesn't load the result with the ids that it should have.
    """
    own = models[donor]
    others = {name: tokens for name, tokens in models.items() if name != donor}
    growing = _GrowingTokenizer(donor, own)
    wanted = {name: set(tokens.ids) if union else set(tokens.ids) & set(further) for name, tokens in others.items()}
    for name, tokens in others.items():
        new = [token for token in wanted[name] - growing.ids.keys() if not _added_somewhere(token, others)]
        growing.add_plain(name, tokens, _by_id(tokens, new))
    for name, tokens in others.items():
        for token in _by_id(tokens, [token for token in wanted[name] if token in tokens.added]):
            growing.add(token, name, tokens)
    for token, flags in further.items():
        growing.add_further(token, flags)
    notes = growing.notes + _splitting_notes(donor, own, others)
    in_file = {entry["content"] for entry in own.content.get("added_tokens") or []}
    unsaid = [own.added[token] for token in own.added if token not in in_file]  # its configs alone have them
    new_entries = [*unsaid, *growing.entries.values()]
    changed = bool(growing.plain or new_entries)
    content = _content(own, others.values(), growing.ids, growing.plain, new_entries) if changed else None
    return MergedTokenizer(own.directory, growing.ids, content, new_entries, tuple(dict.fromkeys(notes)))


class _GrowingTokenizer:
    """The donor's tokens and those added so far: `ids` of all, `plain` and `entries` of the new ones."""

    def __init__(self, donor: str, own: ModelTokens) -> None:
        self.donor, self.own = donor, own
        self.ids = dict(own.ids)
        self.plain: list[str] = []
        self.entries: dict[str, Mapping[str, Any]] = {}
        self.notes: list[str] = []
        self._next = itertools.count(max(own.ids.values(), default=-1) + 1)

    def add_plain(self, name: str, tokens: ModelTokens, new: Sequence[str]) -> None:
        """Add tokens of a model's vocabulary."""
        if not new:
            return
        _require_one_spelling(self.donor, self.own, name, tokens, new)
        self.ids |= {token: next(self._next) for token in new}
        self.plain += new
        self.notes.append(f"{counted(new)} of the vocabulary of {name} added: {listed(new)}")

    def add(self, token: str, name: str, tokens: ModelTokens) -> None:
        """Add a model's added token, or note how it differs from the one that is there."""
        theirs = tokens.added[token]
        present = self.own.added.get(token) or self.entries.get(token)
        if present is not None:
            if differing := differing_flags(present, theirs):
                flags = ", ".join(f"{flag} is {present[flag]} and {theirs[flag]}" for flag in differing)
                self.notes.append(f"added token {token!r}: {flags} in {name}; the first is kept")
            return
        if token not in self.ids:
            self.ids[token] = next(self._next)
            self.notes.append(f"the added token {token!r} of {name} is added")
        elif theirs["special"]:
            self.notes.append(f"{token!r} is special in {name} and a usual token in {self.donor}; it becomes special")
        else:
            self.notes.append(f"{token!r} is an added token in {name} and a usual one in {self.donor}, which is kept")
            return
        self.entries[token] = added_token(token, self.ids[token], theirs)

    def add_further(self, token: str, flags: Mapping[str, Any]) -> None:
        """Add a token that no model has."""
        if token not in self.ids:
            self.ids[token] = next(self._next)
            self.entries[token] = added_token(token, self.ids[token], flags)
            self.notes.append(f"{token!r}, which no model has, is added for its rule")


def counted(tokens: Collection[str]) -> str:
    """Return the number of tokens for a message."""
    return "1 token" if len(tokens) == 1 else f"{len(tokens)} tokens"


def _by_id(tokens: ModelTokens, chosen: Iterable[str]) -> list[str]:
    return sorted(chosen, key=tokens.ids.__getitem__)


def _added_somewhere(token: str, models: Mapping[str, ModelTokens]) -> bool:
    return any(token in tokens.added for tokens in models.values())


def _splitting_notes(donor: str, own: ModelTokens, others: Mapping[str, ModelTokens]) -> list[str]:
    notes = []
    for name, tokens in others.items():
        for key, label in (("normalizer", "normalises text"), ("pre_tokenizer", "splits text into words")):
            if tokens.content.get(key) != own.content.get(key):
                notes.append(f"{name} {label} otherwise than {donor}, whose way is kept")
        if tokens.model.get("type") != own.model.get("type"):
            kinds = f"{tokens.model.get('type')} and {own.model.get('type')}"
            notes.append(f"{name} and {donor} have tokenizers of two kinds ({kinds}); {donor}'s is kept")
    return notes


def _require_one_spelling(donor: str, own: ModelTokens, name: str, tokens: ModelTokens, new: Sequence[str]) -> None:
    """Refuse to put tokens into a vocabulary where they would stand for other text, or never be found."""

    def way(each: ModelTokens) -> object:
        affixes = [each.model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")]
        return [each.model.get("type", "BPE"), affixes, _spelling(each.content.get("decoder"))]

    kind = own.model.get("type", "BPE")
    why = ""
    if way(own) != way(tokens):
        why = f"the two models' tokenizers spell text in different ways (kinds {kind} and {tokens.model.get('type')})"
    elif not isinstance(own.model["vocab"], dict):
        why = f"tokens can't be added to a {kind} vocabulary, whose scores belong to one training"
    if why:
        raise PreflightError(
            f"tokenizer source union: {name!r} has {counted(new)} that {donor!r} lacks ({listed(new, 3)}), and "
            f"{why}. Choose source: base or a model, so that one of the two vocabularies is used."
        )


def _spelling(decoder: object) -> object:
    """Return what a decoder says of how tokens spell text, without settings that only concern offsets."""
    if not isinstance(decoder, Mapping):
        return decoder
    if decoder.get("type") == "Sequence":
        return [_spelling(part) for part in decoder.get("decoders") or []]
    if decoder.get("type") == "ByteLevel":
        return "ByteLevel"
    return dict(decoder)


def _content(
    own: ModelTokens,
    others: Iterable[ModelTokens],
    ids: Mapping[str, int],
    plain: Sequence[str],
    entries: Sequence[Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Return the donor's tokenizer.json with the new tokens, tried out in the library that will load it."""
    model = dict(own.model)
    if plain:
        model["vocab"] = {**model["vocab"], **{token: ids[token] for token in plain}}
        if model.get("type", "BPE") == "BPE":
            model["merges"] = _merges(own, others, set(plain), model["vocab"])
    listed_tokens = sorted([*(own.content.get("added_tokens") or []), *entries], key=lambda entry: int(entry["id"]))
    content = {**own.content, "model": model, "added_tokens": listed_tokens}
    if (found := _loaded_ids(own.directory, content)) != ids and isinstance(model["vocab"], dict):
        # The library numbers added tokens from the vocabulary's end on, whatever id the file says, so those that
        # lie before the end go into the vocabulary, where ids are what is written.
        model["vocab"] = {**model["vocab"], **{entry["content"]: ids[entry["content"]] for entry in listed_tokens}}
        found = _loaded_ids(own.directory, content)
    if found != ids:
        wrong = sorted(token for token in ids.keys() | found.keys() if ids.get(token) != found.get(token))
        raise CheckpointError(
            f"{own.directory / 'tokenizer.json'} can't be extended: loaded again, {len(wrong)} tokens have other ids "
            f"than they should, such as {wrong[0]!r} ({found.get(wrong[0])} for {ids.get(wrong[0])}). "
            "Choose source: base or another model."
        )
    return content


def _merges(own: ModelTokens, others: Iterable[ModelTokens], plain: set[str], vocabulary: Mapping[str, int]) -> Any:
    merges = [_pair(merge) for merge in own.model.get("merges") or []]
    known = set(merges)
    prefix = own.model.get("continuing_subword_prefix") or ""
    for tokens in others:
        for merge in map(_pair, tokens.model.get("merges") or []):
            made = merge[0] + merge[1].removeprefix(prefix)
            if merge not in known and plain & {*merge, made} and {*merge, made} <= vocabulary.keys():
                known.add(merge)
                merges.append(merge)
    old_form = any(isinstance(merge, str) for merge in own.model.get("merges") or [])
    if old_form and not any(" " in part for merge in merges for part in merge):
        return [" ".join(merge) for merge in merges]
    return [list(merge) for merge in merges]


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return str(first), str(second)


def _loaded_ids(directory: Path, content: Mapping[str, Any]) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        return dict(Tokenizer.from_str(json.dumps(content)).get_vocab(with_added_tokens=True))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(
            f"{directory / 'tokenizer.json'}, with tokens added, can't be loaded ({error}). "
            "Choose source: base or another model."
        ) from error
