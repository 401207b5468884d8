"""Merge vocabularies: which tokens a merged model has, and which embedding rows stand for them in every model.

Where all models have the same tokens under the same ids there is nothing to do. Otherwise each model's rows are put
in the merged vocabulary's order, and a token that a model lacks gets a row all the same, so that no merge method
sees a hole:

- the base's row, if the base has the token; the only owner's, if one model has it; else the mean of the owners' rows;
- or what a rule for the token says; with `force` for every model, whether it has the token or not.

Rows behind the last token (models pad their embeddings) have no meaning. They are kept, as the donor's for every
model, or each model's own where all vocabularies are the same. New padding is the mean of the donor's rows: a zero
row of an output head has the logit 0, which beats every real token in models whose logits are negative
(J. Hewitt, "Initializing new word embeddings for pretrained language models", 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unspoiled.checkpoints._merged_tokenizer import MergedTokenizer, counted, merge_tokenizers
from unspoiled.checkpoints._model_tokens import ModelTokens, read_model_tokens
from unspoiled.checkpoints._reader import listed
from unspoiled.checkpoints._source import ModelSource
from unspoiled.checkpoints._tokenizer import tokenizer_signature
from unspoiled.checkpoints._tying import embedding_names
from unspoiled.checkpoints._vocabulary import FromModel, FromToken, MeanOf, TokenRule, Vocabulary, Zero
from unspoiled.errors import CheckpointError, PreflightError


def merge_vocabularies(
    models: Mapping[str, ModelSource],
    *,
    base: str | None,
    source: str,
    rules: Mapping[str, TokenRule] = MappingProxyType({}),
    pad_to_multiple_of: int | None = None,
) -> Vocabulary:
    """Decide the merged model's tokens and where each model's embedding rows for them come from.

    Args:
        models: Every model of the merge by name, the base included.
        base: The name of the base, or None for a merge without one; then the first model counts as the base in
            `source`, and not in filling rows.
        source: `"union"` for every token of every model (the base's ids stay), `"base"` for the base's, or the
            name of a model for its tokens.
        rules: Rules for single tokens, by their text. A token that the vocabulary lacks is added to it.
        pad_to_multiple_of: Round the rows up to a multiple of this. Without it, and at the least, there are as
            many rows as the donor's embedding has (in a union, the largest embedding).

    Raises:
        PreflightError: a name that isn't in the merge, a rule that can't be followed, vocabularies that can't be
            united, or embeddings of different widths.
        CheckpointError: a damaged tokenizer, or one with a token that the embedding has no row for.
    """
    donor = _donor(models, base, source)
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise PreflightError(f"tokenizer: pad_to_multiple_of is {pad_to_multiple_of!r}; give 1 or more.")
    model_rows = _embedding_rows(models)
    directories = {name: model.tokenizer_directory for name, model in models.items()}
    if not all((directory / "tokenizer.json").exists() for directory in directories.values()):
        _require_usable_as_they_are(directories, model_rows, rules, pad_to_multiple_of)
        tokenizer = MergedTokenizer(directories[donor], {}, None, (), ())
        rows = model_rows[donor]
        own = {name: torch.arange(rows) for name in models}
        return Vocabulary(rows, rows, {}, donor, (), own, {}, model_rows, rows, tokenizer)
    read: dict[Path, ModelTokens] = {}
    tokens = {name: read.setdefault(d, read.get(d) or read_model_tokens(d)) for name, d in directories.items()}
    _require_rows(tokens, models, model_rows)
    sources = {token: _rule_source(token, rule, tokens, model_rows) for token, rule in rules.items()}
    tokenizer = merge_tokenizers(
        tokens, donor, union=source == "union", further={token: _flags(rule, tokens) for token, rule in rules.items()}
    )
    size = max(tokenizer.token_ids.values()) + 1
    rows = max(size, *model_rows.values()) if source == "union" else max(size, model_rows[donor])
    if pad_to_multiple_of is not None:
        rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
    ids = tokenizer.token_ids
    own = _own_rows(tokens, model_rows, ids, rows)
    for token, rule in rules.items():
        if rule.force:
            for each in own.values():
                each[ids[token]] = -1
    lent, filled = _lent_rows(own, tokens, ids, base, donor, sources, model_rows[donor])
    notes = [
        *tokenizer.notes,
        *_dropped(tokens, ids),
        *filled,
        *_idle_rules(rules, tokens),
        *_padding_notes(model_rows, size, rows, donor),
    ]
    donor_size = max(tokens[donor].ids.values()) + 1
    token_ids = MappingProxyType(dict(ids))
    return Vocabulary(size, rows, token_ids, donor, tuple(notes), own, lent, model_rows, donor_size, tokenizer)


def _donor(models: Mapping[str, ModelSource], base: str | None, source: str) -> str:
    if not models:
        raise PreflightError("tokenizer: there are no models to take tokens from.")
    named = {"base": base, "tokenizer source": None if source in ("union", "base") else source}
    for role, name in named.items():
        if name is not None and name not in models:
            raise PreflightError(f"{role}: {name!r} is not in the merge. Name one of {listed(models)}.")
    return named["tokenizer source"] or base or next(iter(models))


def _embedding_rows(models: Mapping[str, ModelSource]) -> dict[str, int]:
    """Return the rows of every model's embedding, after checking that a model's vocabulary tensors agree."""
    rows: dict[str, int] = {}
    widths: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, model in models.items():
        shapes = {tensor: model.tensors[tensor].shape for tensor in embedding_names(model.tensors)}
        counts = {shape[0] for shape in shapes.values() if shape}
        if len(counts) != 1:
            seen = ", ".join(f"{tensor} {list(shape)}" for tensor, shape in shapes.items()) or "none"
            raise CheckpointError(
                f"{model.directory}: {name!r} needs an embedding, and a head with as many rows, for its tokens to be "
                f"mapped; found {seen}. Leave the recipe's tokenizer section out if no tokens differ."
            )
        rows[name] = counts.pop()
        for tensor, shape in shapes.items():
            first, width = widths.setdefault(tensor, (name, tuple(shape[1:])))
            if width != tuple(shape[1:]):
                raise PreflightError(
                    f"{tensor}: its rows have the shape {list(width)} in {first!r} and {list(shape[1:])} in {name!r}. "
                    "Merge models of one architecture and size."
                )
    return rows


def _require_usable_as_they_are(
    directories: Mapping[str, Path], rows: Mapping[str, int], rules: Mapping[str, TokenRule], multiple: int | None
) -> None:
    """Let models without tokenizer.json pass if nothing needs to be known of their tokens."""
    lacking = [name for name, directory in directories.items() if not (directory / "tokenizer.json").exists()]
    same = len({tokenizer_signature(directory) for directory in set(directories.values())}) == 1
    if same and len(set(rows.values())) == 1 and not rules and next(iter(rows.values())) % (multiple or 1) == 0:
        return
    raise PreflightError(
        f"tokenizer: {listed(lacking)} have no tokenizer.json, so their tokens can't be mapped. Write one with "
        "transformers, AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY), or leave the recipe's "
        "tokenizer section out if all tokenizers are the same."
    )


def _require_rows(
    tokens: Mapping[str, ModelTokens], models: Mapping[str, ModelSource], rows: Mapping[str, int]
) -> None:
    for name, each in tokens.items():
        beyond = [token for token, token_id in each.ids.items() if token_id >= rows[name]]
        if beyond:
            first = min(beyond, key=each.ids.__getitem__)
            raise CheckpointError(
                f"{each.directory / 'tokenizer.json'}: {counted(beyond)} without a row in the embedding of {name!r} "
                f"({models[name].directory}, {rows[name]} rows), the first {first!r} with id {each.ids[first]}. "
                "Remove them from the tokenizer's files, or resize the model's embedding and train it."
            )


def _rule_source(
    token: str, rule: TokenRule, tokens: Mapping[str, ModelTokens], rows: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Return the row that a rule names as (model, id), or nothing for zeros."""
    if isinstance(rule.source, Zero):
        return ()
    model, where = rule.source.model, f"tokenizer rule for {token!r}"
    if model not in tokens:
        raise PreflightError(f"{where}: {model!r} is not in the merge. Name one of {listed(tokens)}.")
    if isinstance(rule.source, FromToken) and rule.source.token_id is not None:
        if not 0 <= rule.source.token_id < rows[model]:
            raise PreflightError(
                f"{where}: {model!r} has no token with id {rule.source.token_id}; its ids end at {rows[model] - 1}."
            )
        return ((model, rule.source.token_id),)
    wanted = token if isinstance(rule.source, FromModel) else rule.source.token
    if wanted is None or wanted not in tokens[model].ids:
        owners = [name for name, each in tokens.items() if wanted in each.ids]
        raise PreflightError(
            f"{where}: {model!r} has no token {wanted!r}. "
            + (f"Name {listed(owners)}, which has it." if owners else "No model has it; check the spelling.")
        )
    return ((model, tokens[model].ids[wanted]),)


def _flags(rule: TokenRule, tokens: Mapping[str, ModelTokens]) -> Mapping[str, Any]:
    """Return the flags for a token that no model has: those of the token that its row comes from."""
    if not isinstance(rule.source, FromToken):
        return {}
    added = tokens[rule.source.model].added
    return next((e for t, e in added.items() if rule.source.token == t or rule.source.token_id == e["id"]), {})


def _own_rows(
    tokens: Mapping[str, ModelTokens], model_rows: Mapping[str, int], ids: Mapping[str, int], rows: int
) -> dict[str, Tensor]:
    """Return, by model, its own id for every merged row, -1 where it has none."""
    same = all(each.ids == ids for each in tokens.values())
    own = {}
    for name, each in tokens.items():
        own[name] = torch.full((rows,), -1)
        if same:  # then padding has the same place everywhere, and every model keeps its own
            count = min(rows, model_rows[name])
            own[name][:count] = torch.arange(count)
        else:
            pairs = [(ids[token], token_id) for token, token_id in each.ids.items() if token in ids]
            if pairs:
                merged, theirs = torch.tensor(pairs).unbind(1)
                own[name][merged] = theirs
    return own


def _lent_rows(
    own: Mapping[str, Tensor],
    tokens: Mapping[str, ModelTokens],
    ids: Mapping[str, int],
    base: str | None,
    donor: str,
    sources: Mapping[str, tuple[tuple[str, int], ...]],
    donor_rows: int,
) -> tuple[dict[int, MeanOf | None], list[str]]:
    """Return what every row that a model lacks is lent, and notes that say so."""
    texts = {token_id: token for token, token_id in ids.items()}
    lacked: dict[int, list[str]] = {}
    for name, each in own.items():
        for row in (each < 0).nonzero().flatten().tolist():
            lacked.setdefault(row, []).append(name)
    lent: dict[int, MeanOf | None] = {}
    said: dict[tuple[str, str], list[str]] = {}
    for row, names in lacked.items():
        token = texts.get(row)
        if token is None:
            lent[row] = MeanOf(((donor, row),)) if row < donor_rows else None
            continue
        owners = tuple((name, each.ids[token]) for name, each in tokens.items() if token in each.ids)
        if token in sources:
            lent[row], way = MeanOf(sources[token]), "as its rule says"
        elif base is not None and token in tokens[base].ids:
            lent[row], way = MeanOf(((base, tokens[base].ids[token]),)), f"from {base}"
        else:
            lent[row] = MeanOf(owners)
            way = f"from {owners[0][0]}" if len(owners) == 1 else "as the mean of the models that have them"
        for name in names:
            said.setdefault((name, way), []).append(token)
    notes = [f"{name} gets rows for {counted(few)} {way}: {listed(few)}" for (name, way), few in said.items()]
    return lent, notes


def _dropped(tokens: Mapping[str, ModelTokens], ids: Mapping[str, int]) -> list[str]:
    notes = []
    for name, each in tokens.items():
        dropped = sorted(each.ids.keys() - ids.keys(), key=each.ids.__getitem__)
        if dropped:
            notes.append(f"{counted(dropped)} of {name} not in the merged vocabulary: {listed(dropped)}")
    return notes


def _idle_rules(rules: Mapping[str, TokenRule], tokens: Mapping[str, ModelTokens]) -> list[str]:
    idle = [t for t, rule in rules.items() if not rule.force and all(t in each.ids for each in tokens.values())]
    if not idle:
        return []
    return [f"the rules for {listed(idle)} change nothing: every model has the token, and force: true is not set"]


def _padding_notes(model_rows: Mapping[str, int], size: int, rows: int, donor: str) -> list[str]:
    notes = []
    if len({*model_rows.values(), rows}) > 1:
        counts = ", ".join(f"{count} in {name}" for name, count in model_rows.items())
        notes.append(f"the embedding has {rows} rows, {size} of them for tokens ({counts})")
    if rows > max(size, model_rows[donor]):
        notes.append(f"new padding rows are the mean of the rows of {donor}")
    return notes
