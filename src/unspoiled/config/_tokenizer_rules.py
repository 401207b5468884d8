"""The tokenizer section of a recipe: whose vocabulary the merged model gets, and rules for single tokens."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from unspoiled.config._recipe_values import Frozen, ModelName, Text, nothing_is


class ZeroToken(Frozen):
    """The embedding of all zeros, for a token that nothing should depend on."""

    kind: Literal["zero"] = "zero"


class ModelToken(Frozen):
    """The embedding of another token: that of `token` (its text) or `token_id` (its row) in `model`."""

    kind: Literal["model_token"] = "model_token"
    model: ModelName
    token: Text | None = None
    token_id: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.token is None) == (self.token_id is None):
            found = "neither" if self.token is None else "both"
            raise ValueError(f"needs either `token` or `token_id` (got {found}): give the one you know")
        return self


def _source_form(source: object) -> str | None:
    if isinstance(source, ZeroToken):
        return "zero"
    if isinstance(source, ModelToken):
        return "model_token"
    if isinstance(source, dict) and "kind" in source:
        return source["kind"] if source["kind"] in ("zero", "model_token") else None
    return "model"


class TokenRule(Frozen):
    """Where the embedding of one token comes from.

    Attributes:
        source: The model whose embedding of the same token is used; or a `ModelToken`; or a `ZeroToken`.
        force: False: for models that lack the token. True: for all models, in place of their own.
    """

    source: Annotated[
        Annotated[ModelName, Tag("model")]
        | Annotated[ZeroToken, Tag("zero")]
        | Annotated[ModelToken, Tag("model_token")],
        Discriminator(
            _source_form,
            custom_error_type="token_source",
            custom_error_message="must be a model, `{kind: zero}`, or `{kind: model_token, model: ..., token: ...}`",
        ),
    ]
    force: bool = False

    @field_validator("source")
    @classmethod
    def _no_model(cls, source: str | ZeroToken | ModelToken) -> str | ZeroToken | ModelToken:
        if source == "zero":
            raise ValueError("`zero` is no model: write `source: {kind: zero}` for a row of zeros")
        return source


class Tokenizer(Frozen):
    """mergekit's newer way to say which tokenizer the merged model gets.

    Attributes:
        source: `union` (every token of every model), `base` (the base's), or a model, which needn't be one of
            those that are merged.
        tokens: Rules for tokens by their text; a token that the vocabulary lacks is added to it.
        pad_to_multiple_of: Rows are appended to the embeddings up to a multiple of this (at most 2²⁰); None: no rows.
    """

    source: ModelName = "union"
    tokens: Annotated[Mapping[Text, TokenRule], nothing_is({})] = Field(default_factory=dict)
    pad_to_multiple_of: Annotated[int, Field(ge=1, le=2**20)] | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return the section as plain values in mergekit's keys."""
        plain: dict[str, Any] = {"source": self.source}
        if self.tokens:
            plain["tokens"] = {token: _rule_as_plain(rule) for token, rule in self.tokens.items()}
        if self.pad_to_multiple_of is not None:
            plain["pad_to_multiple_of"] = self.pad_to_multiple_of
        return plain


def _rule_as_plain(rule: TokenRule) -> dict[str, Any]:
    source = rule.source if isinstance(rule.source, str) else rule.source.model_dump(exclude_none=True)
    return {"source": source, **({"force": True} if rule.force else {})}
