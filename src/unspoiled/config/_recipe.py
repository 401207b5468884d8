"""The recipe: everything that defines one merged model, read from and written to mergekit's YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from unspoiled.config._write import dump_yaml
from unspoiled.config._yaml import load_yaml_documents, read_text, validate

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
# A subclass of float (numpy's float64) would be written as something else than a number.
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False), AfterValidator(float)]
Gradient: TypeAlias = Annotated[tuple[Number, ...], Field(min_length=1, strict=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _form(value: object) -> str | None:
    """Name the form of a parameter value, so that an error speaks about the form that was meant."""
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list | tuple) and value:
        return "filters" if any(isinstance(item, dict | FilteredValue) for item in value) else "gradient"
    return None


def _plain_form(value: object) -> str | None:
    form = _form(value)
    return None if form == "filters" else form


PlainValue: TypeAlias = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[Number, Tag("number")] | Annotated[Gradient, Tag("gradient")],
    Discriminator(
        _plain_form,
        custom_error_type="parameter_value",
        custom_error_message="must be a number, true or false, or a list of numbers (a gradient)",
    ),
]


class FilteredValue(_Frozen):
    """A value for the tensors whose name contains `filter`; without a filter (or with `*`), for all."""

    filter: Text | None = None
    value: PlainValue

    def applies_to(self, tensor: str) -> bool:
        """Return whether this entry is for the tensor of that name."""
        return self.filter is None or self.filter == "*" or self.filter in tensor


ParameterValue: TypeAlias = Annotated[
    Annotated[bool, Tag("switch")]
    | Annotated[Number, Tag("number")]
    | Annotated[Gradient, Tag("gradient")]
    | Annotated[Annotated[tuple[FilteredValue, ...], Field(min_length=1, strict=False)], Tag("filters")],
    Discriminator(
        _form,
        custom_error_type="parameter_value",
        custom_error_message="must be a number, true or false, a list of numbers (a gradient), "
        "or a list of `filter: ...`, `value: ...` entries",
    ),
]
Parameters: TypeAlias = Annotated[
    Mapping[str, ParameterValue], BeforeValidator(lambda given: {} if given is None else given)
]


def resolve(value: ParameterValue, *, tensor: str, layer: int | None, layers: int) -> float | bool | None:
    """Return the number (or switch) that a parameter value means for one tensor.

    A gradient of k entries is interpolated linearly at t = layer / (layers - 1): entry 0 at the first layer,
    entry k - 1 at the last. A model of one layer has t = 1; a tensor of no layer (`layer=None`: embeddings,
    final norm, head) has t = 0. The position is worked out in integers, so that where it falls on an entry
    the result is that entry to the last bit: a list with one entry per layer is exactly one value per layer.

    Args:
        value: A scalar, a gradient, or filters, of which the first whose text is part of `tensor` counts.
        tensor: The tensor's name.
        layer: Its layer, in [0, layers), or None.
        layers: The number of layers of the model; 0 only with `layer=None`.

    Returns:
        The value, or None when there are filters and none of them applies.

    Raises:
        ValueError: `layer` isn't in [0, layers).
    """
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"layer {layer} of {tensor!r} is not in [0, {layers})")
    if not isinstance(value, tuple):
        return value
    numbers: list[float] = []
    for item in value:
        if not isinstance(item, FilteredValue):
            numbers.append(item)
        elif item.applies_to(tensor):
            return resolve(item.value, tensor=tensor, layer=layer, layers=layers)
    return _interpolate(numbers, layer, layers) if numbers else None


def _interpolate(entries: list[float], layer: int | None, layers: int) -> float:
    last = len(entries) - 1
    if layer is None:
        return entries[0]
    if layers == 1:
        return entries[last]
    index, remainder = divmod(layer * last, layers - 1)
    if remainder == 0:
        return entries[index]
    left, right = entries[index], entries[index + 1]
    fraction = remainder / (layers - 1)
    value = (1 - fraction) * left + fraction * right
    return min(max(value, min(left, right)), max(left, right))  # rounding may step one ulp outside


class ModelEntry(_Frozen):
    """One input model of a recipe and its own parameters.

    Attributes:
        model: A path, `hub/id`, `hub/id@revision` or `model+adapter`, as written; a relative path is relative
            to the recipe's directory, and the caller resolves it.
        parameters: Values that go before the recipe's own.
    """

    model: Text
    parameters: Parameters = Field(default_factory=dict)


class Tokenizer(_Frozen):
    """mergekit's newer way to say which tokenizer the merged model gets."""

    not_supported: ClassVar[Mapping[str, str]] = {
        "tokens": "rules for single tokens can't be followed; remove it to keep the embeddings of `source`",
        "pad_to_multiple_of": "remove it to keep the vocabulary's size",
    }
    source: Text


class Recipe(_Frozen):
    """What defines one merged model: method, inputs, parameters, dtype, tokenizer and chat template.

    Whether the method exists and which parameters it has is for the merging layer to say.
    """

    not_supported: ClassVar[Mapping[str, str]] = {
        "slices": "list whole models under `models`, with gradients or `filter` entries as parameters",
        "modules": "merge one module at a time, with `models`",
        "name": "it names a stage of a multi-stage recipe; write each stage as a recipe of its own",
    }
    merge_method: Text
    base_model: Text | None = None
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1, strict=False)]
    parameters: Parameters = Field(default_factory=dict)
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: Text | None = None
    tokenizer: Tokenizer | None = None
    chat_template: Text | None = None

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        seen: dict[str, int] = {}
        for index, entry in enumerate(models):
            if entry.model in seen:
                raise ValueError(
                    f"entries {seen[entry.model]} and {index} are the same model {entry.model!r}: keep one, "
                    "with the sum of the weights"
                )
            seen[entry.model] = index
        return models

    @field_validator("tokenizer_source")
    @classmethod
    def _known_source(cls, source: str | None, info: ValidationInfo) -> str | None:
        if source is not None:
            _check_source(source, info)
        return source

    @field_validator("tokenizer")
    @classmethod
    def _known_tokenizer(cls, tokenizer: Tokenizer | None, info: ValidationInfo) -> Tokenizer | None:
        if tokenizer is not None:
            if info.data.get("tokenizer_source") is not None:
                raise ValueError("given together with `tokenizer_source`: keep one of the two")
            _check_source(tokenizer.source, info)
        return tokenizer

    @field_validator("chat_template")
    @classmethod
    def _known_template(cls, template: str | None) -> str | None:
        if template is not None and template != "auto" and "{" not in template:
            raise ValueError(
                f"mergekit's built-in template {template!r} is not supported yet: write `auto`, the Jinja "
                "text itself, or leave the key out to keep the tokenizer's own template"
            )
        return template

    @property
    def experts(self) -> list[ModelEntry]:
        """The entries of `models` without the base, in their order."""
        return [entry for entry in self.models if entry.model != self.base_model]

    @property
    def tokenizer_donor(self) -> str:
        """The model whose tokenizer the merged model gets: the one named, else the base, else the first."""
        source = self.tokenizer.source if self.tokenizer else self.tokenizer_source
        if source is None or source == "base":
            return self.base_model or self.models[0].model
        return source

    def parameter(
        self, name: str, model_index: int | None, *, tensor: str, layer: int | None, layers: int
    ) -> float | bool | None:
        """Return the value of a parameter for one tensor of one model.

        Args:
            name: The parameter.
            model_index: The model's place in `models` (not in `experts`); None for the recipe's parameters.
            tensor: The tensor's name.
            layer: Its layer, in [0, layers), or None for a tensor of no layer.
            layers: The number of layers of the model.

        Returns:
            The model's value if it has one for this tensor, else the recipe's, else None.
        """
        sources = [self.parameters] if model_index is None else [self.models[model_index].parameters, self.parameters]
        for parameters in sources:
            if name in parameters:
                value = resolve(parameters[name], tensor=tensor, layer=layer, layers=layers)
                if value is not None:
                    return value
        return None

    def to_yaml(self) -> str:
        """Write the recipe as mergekit's YAML; `parse_recipe` gives back an equal recipe."""
        plain = self.model_dump(exclude_defaults=True)
        plain["models"] = [entry.model_dump(exclude_defaults=True) for entry in self.models]
        return dump_yaml(plain)


def _check_source(source: str, info: ValidationInfo) -> None:
    if source == "union":
        raise ValueError("`union` is not supported yet: write `base` or one of the recipe's models")
    if "models" not in info.data or "base_model" not in info.data:
        return  # reported already, and what is missing here would only repeat it
    base = info.data["base_model"]
    if source == "base":
        if base is None:
            raise ValueError("`base` needs a `base_model`: add one, or write one of the recipe's models")
        return
    models = list(dict.fromkeys([entry.model for entry in info.data["models"]] + ([base] if base else [])))
    if source not in models:
        known = ", ".join(map(repr, models))
        raise ValueError(f"must be `base` or a model of this recipe: {known} (got {source!r})")


def parse_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from YAML text; `source` is its name in error messages.

    Raises:
        ConfigError: `SOURCE:LINE: ...` for each thing that is wrong or not supported yet.
    """
    first, *more = load_yaml_documents(text, source=source)
    if more:
        raise more[0].error(
            (),
            "recipes of several documents (multi-stage) are not supported yet: write each stage to a file of "
            "its own and name the earlier output as a model of the later",
        )
    return validate(Recipe, first)


def read_recipe(path: str | Path) -> Recipe:
    """Read the recipe in the file `path`; errors as in `parse_recipe`."""
    return parse_recipe(read_text(path), str(path))
