"""The recipe: everything that defines one merged model, in mergekit's words."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from unspoiled.config._problems import closest
from unspoiled.config._recipe_values import Frozen, ModelName, Parameters, Text, nothing_is, resolve
from unspoiled.config._tokenizer_rules import ModelToken, Tokenizer, TokenRule
from unspoiled.config._write import dump_yaml

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]

BUILT_IN_TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
"""The chat templates that a recipe may name instead of writing them out."""


class ModelEntry(Frozen):
    """One input model of a recipe and its own parameters.

    Attributes:
        model: A path, `hub/id`, `hub/id@revision` or `model+adapter`, as written; a relative path is relative
            to the recipe's directory, and the caller resolves it.
        parameters: Values that go before the recipe's own.
        statistics: A file of what the method needs to know of the model's data, relative like `model`; None for
            methods that need nothing. mergekit has no such key.
    """

    model: ModelName
    parameters: Parameters = Field(default_factory=dict)
    statistics: Text | None = None


def _two_ends(given: object) -> object:
    if isinstance(given, list | tuple) and len(given) != 2:
        raise ValueError(f"must be the first layer and the one after the last, as in [0, 24] (got {list(given)!r})")
    return given


def _some_layers(ends: tuple[int, int]) -> tuple[int, int]:
    start, end = ends
    if not 0 <= start < end:
        raise ValueError(f"must start at layer 0 or later and end after its start (got [{start}, {end}])")
    return ends


class SliceSource(Frozen):
    """Some consecutive layers of one model, as an input of one slice.

    Attributes:
        model: As in `ModelEntry`.
        layer_range: The first layer and the one after the last: 0 <= start < end.
        parameters: Values that go before the slice's own.
    """

    model: ModelName
    layer_range: Annotated[
        tuple[int, int], Field(strict=False), BeforeValidator(_two_ends), AfterValidator(_some_layers)
    ]
    parameters: Parameters = Field(default_factory=dict)

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.layer_range[1] - self.layer_range[0]


class Slice(Frozen):
    """Some consecutive layers of the merged model, and what they are merged from.

    Attributes:
        sources: What is merged, all with the same number of layers.
        base_model: The base for this slice; None for the recipe's.
        parameters: Values that go before the recipe's own.
    """

    not_supported: ClassVar[Mapping[str, str]] = {"residual_weight": "mergekit reads it and does nothing; remove it"}
    sources: Annotated[tuple[SliceSource, ...], Field(min_length=1, strict=False)]
    base_model: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("sources")
    @classmethod
    def _side_by_side(cls, sources: tuple[SliceSource, ...]) -> tuple[SliceSource, ...]:
        seen: dict[tuple[str, tuple[int, int]], int] = {}
        for index, source in enumerate(sources):
            if source.layers != sources[0].layers:
                raise ValueError(
                    f"entry 0 has {_layers(sources[0].layers)} and entry {index} has {_layers(source.layers)}: all "
                    "must have the same number; correct a layer_range"
                )
            key = (source.model, source.layer_range)
            if key in seen:
                raise ValueError(_twice(seen[key], index, f"layers of the same model {source.model!r}"))
            seen[key] = index
        return sources

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.sources[0].layers


class Recipe(Frozen):
    """What defines one merged model: method, inputs, parameters, dtype, tokenizer and chat template.

    The inputs are whole `models`, or `slices` that are stacked into the merged model in their order; exactly one
    of the two is given. Whether the method exists and which parameters it has is for the merging layer to say.

    Attributes:
        name: What later recipes of a file call the merged model that this one makes; None for a recipe that no
            other one uses.
    """

    not_supported: ClassVar[Mapping[str, str]] = {
        "modules": "merge one module at a time, with `models` or `slices`",
        "gate_mode": "mixture-of-experts recipes (of mergekit-moe) can't be merged; use mergekit for them",
        "experts": "mixture-of-experts recipes (of mergekit-moe) can't be merged; use mergekit for them",
        "genome": "recipes of mergekit-evolve can't be merged; name the models under `models`, or search with a run",
    }
    name: Text | None = None
    merge_method: Text
    base_model: ModelName | None = None
    models: Annotated[tuple[ModelEntry, ...], Field(strict=False), nothing_is(())] = ()
    slices: Annotated[tuple[Slice, ...], Field(strict=False), nothing_is(())] = ()
    parameters: Parameters = Field(default_factory=dict)
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: ModelName | None = None
    tokenizer: Tokenizer | None = None
    chat_template: Text | None = None

    @field_validator("name")
    @classmethod
    def _can_be_named(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if name in ("base", "union"):
            raise ValueError(f"{name!r} has another meaning as a tokenizer's source: choose another name")
        # `+` and `@` part a model's name from its adapter and revision, and the name becomes a directory
        unfit = name.startswith(".") or name != name.strip() or not name.isprintable() or set(name) & set("/\\+@")
        if unfit or len(name.encode()) > 200:
            raise ValueError(
                f"must fit the name of a directory: at most 200 bytes, none of / \\ + @, no dot at the start and no "
                f"space around it (got {name!r})"
            )
        return name

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        seen: dict[str, int] = {}
        for index, entry in enumerate(models):
            if entry.model in seen:
                raise ValueError(_twice(seen[entry.model], index, f"the same model {entry.model!r}"))
            seen[entry.model] = index
        return models

    @field_validator("slices")
    @classmethod
    def _not_both(cls, slices: tuple[Slice, ...], info: ValidationInfo) -> tuple[Slice, ...]:
        if slices and info.data.get("models"):
            raise ValueError("given together with `models`: keep one of the two")
        return slices

    @model_validator(mode="after")
    def _either(self) -> Self:
        if not self.models and not self.slices:
            raise ValueError("needs either `models` (whole models) or `slices` (ranges of layers): add one")
        return self

    @field_validator("dtype", "out_dtype", mode="before")
    @classmethod
    def _torch_name(cls, dtype: object) -> object:
        return dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype

    @field_validator("tokenizer_source")
    @classmethod
    def _known_source(cls, source: str | None, info: ValidationInfo) -> str | None:
        _check_base(source, info)
        return source

    @field_validator("tokenizer")
    @classmethod
    def _known_tokenizer(cls, tokenizer: Tokenizer | None, info: ValidationInfo) -> Tokenizer | None:
        if tokenizer is not None:
            if info.data.get("tokenizer_source") is not None:
                raise ValueError("given together with `tokenizer_source`: keep one of the two")
            _check_base(tokenizer.source, info)
        return tokenizer

    @field_validator("chat_template")
    @classmethod
    def _known_template(cls, template: str | None) -> str | None:
        known = ("auto", *BUILT_IN_TEMPLATES)
        if template is None or template in known or "{" in template:
            return template
        guess = closest(template, known)
        raise ValueError(
            f"must be {', '.join(map(repr, known))} or Jinja text, which has a '{{' in it (got "
            f"{template[:40]!r}{f'; did you mean {guess!r}?' if guess else ''})"
        )

    @property
    def slice_count(self) -> int:
        """The number of slices; whole models are one."""
        return len(self.slices) or 1

    def slice_sources(self, index: int = 0) -> tuple[ModelEntry | SliceSource, ...]:
        """Return what is merged into the slice of that index, which is 0 for a recipe of whole models."""
        self._check_slice(index)
        return self.slices[index].sources if self.slices else self.models

    def slice_base(self, index: int = 0) -> str | None:
        """Return the base of the slice of that index: its own if it names one, else the recipe's."""
        self._check_slice(index)
        return (self.slices[index].base_model if self.slices else None) or self.base_model

    def _check_slice(self, index: int) -> None:
        if not 0 <= index < self.slice_count:
            raise ValueError(f"slice {index} is not in [0, {self.slice_count})")

    @property
    def experts(self) -> list[ModelEntry]:
        """The models that are merged without the base, each once, in their order.

        With slices they stand without parameters, for those belong to a model's place in a slice.
        """
        if self.models:
            return [entry for entry in self.models if entry.model != self.base_model]
        named = [
            source.model
            for index, part in enumerate(self.slices)
            for source in part.sources
            if source.model != self.slice_base(index)
        ]
        return [ModelEntry(model=model) for model in dict.fromkeys(named)]

    @property
    def model_names(self) -> list[str]:
        """Every model that the recipe names, each once: the base, what is merged, then the tokenizer's sources."""
        named: list[str | None] = [self.base_model, *(entry.model for entry in self.models)]
        for part in self.slices:
            named += [*(source.model for source in part.sources), part.base_model]
        tokenizer = self.tokenizer or Tokenizer(source=self.tokenizer_source or "base")
        if tokenizer.source not in ("union", "base"):
            named.append(tokenizer.source)
        named += [_model_of(rule) for rule in tokenizer.tokens.values()]
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def tokenizer_donor(self) -> str:
        """The model whose tokenizer the merged model gets: the one named, else the base, else the first.

        With `union` it is the one that the tokens of the others are added to.
        """
        source = self.tokenizer.source if self.tokenizer else self.tokenizer_source
        if source is None or source in ("base", "union"):
            return self.base_model or self.slice_sources(0)[0].model
        return source

    def parameter(
        self,
        name: str,
        source_index: int | None,
        *,
        tensor: str,
        layer: int | None,
        layers: int,
        slice_index: int = 0,
    ) -> float | bool | None:
        """Return the value of a parameter for one tensor of one model.

        Args:
            name: The parameter.
            source_index: The model's place in `slice_sources(slice_index)`, so in `models` and not in `experts`;
                None for the value of the whole merge.
            tensor: The tensor's name, which filters are compared with.
            layer: Its layer, counted from the first of the slice, in [0, layers); None for a tensor of no layer.
            layers: The number of layers of the slice, or of the model where whole models are merged.
            slice_index: The slice; 0 where whole models are merged.

        Returns:
            The first value that holds for this tensor: the source's, the slice's, the recipe's; None if none does.

        Raises:
            ValueError: there is no such slice, or `layer` isn't in [0, layers).
        """
        sources = self.slice_sources(slice_index)
        levels = [] if source_index is None else [sources[source_index].parameters]
        levels += [self.slices[slice_index].parameters] if self.slices else []
        for parameters in [*levels, self.parameters]:
            if name in parameters:
                value = resolve(parameters[name], tensor=tensor, layer=layer, layers=layers)
                if value is not None:
                    return value
        return None

    def with_models(self, renamed: Mapping[str, str]) -> "Recipe":
        """Return the recipe with other names for its models (old -> new), wherever it names them.

        Models that `renamed` doesn't have keep their names.
        """

        def new(name: str | None) -> str | None:
            return name if name is None else renamed.get(name, name)

        def moved(entry: Any, key: str = "model") -> Any:
            return entry.model_copy(update={key: new(getattr(entry, key))})

        slices = tuple(
            moved(part, "base_model").model_copy(update={"sources": tuple(map(moved, part.sources))})
            for part in self.slices
        )
        changed: dict[str, Any] = {"models": tuple(map(moved, self.models)), "slices": slices}
        if self.tokenizer_source not in ("union", "base"):
            changed["tokenizer_source"] = new(self.tokenizer_source)
        if self.tokenizer is not None:
            tokens = {token: _with_model(rule, renamed) for token, rule in self.tokenizer.tokens.items()}
            tokenizer = self.tokenizer.model_copy(update={"tokens": tokens})
            changed["tokenizer"] = tokenizer if tokenizer.source in ("union", "base") else moved(tokenizer, "source")
        return Recipe.model_validate(dict(moved(self, "base_model").model_copy(update=changed)))

    def to_yaml(self) -> str:
        """Write the recipe as mergekit's YAML; `parse_recipe` gives back an equal recipe."""
        plain = self.model_dump(exclude_defaults=True)
        if self.tokenizer is not None:
            plain["tokenizer"] = self.tokenizer.as_plain()
        return dump_yaml(plain)


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def _twice(first: int, second: int, what: str) -> str:
    return f"entries {first} and {second} are {what}: keep one, with the sum of the weights"


def _check_base(source: str | None, info: ValidationInfo) -> None:
    if source == "base" and "base_model" in info.data and info.data["base_model"] is None:
        raise ValueError("`base` needs a `base_model`: add one, or write one of the recipe's models")


def _model_of(rule: TokenRule) -> str | None:
    if isinstance(rule.source, ModelToken):
        return rule.source.model
    return rule.source if isinstance(rule.source, str) else None


def _with_model(rule: TokenRule, renamed: Mapping[str, str]) -> TokenRule:
    model = _model_of(rule)
    if model is None or model not in renamed:
        return rule
    source = renamed[model]
    if isinstance(rule.source, ModelToken):
        return rule.model_copy(update={"source": rule.source.model_copy(update={"model": source})})
    return rule.model_copy(update={"source": source})
