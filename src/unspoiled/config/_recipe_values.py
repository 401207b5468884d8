"""The values inside a recipe: names of models, and parameters as numbers, gradients over layers, and filters."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

Text: TypeAlias = Annotated[str, Field(min_length=1)]
# A subclass of float (numpy's float64) would be written as something else than a number.
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False), AfterValidator(float)]


class Frozen(BaseModel):
    """What every block of a recipe is: unchangeable, without unknown keys, and strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def nothing_is(empty: Any) -> BeforeValidator:
    """Read a key that is there without a value as `empty`."""
    return BeforeValidator(lambda given: empty if given is None else given)


def _model_as_text(given: object) -> object:
    """Write the block form of a model's name, `{model: {path, revision}, lora}`, as the text it stands for."""
    if not isinstance(given, dict) or not given.keys() <= {"model", "lora", "override_architecture"}:
        return given
    if given.get("override_architecture") is not None:
        raise ValueError(
            "`override_architecture` is not supported: layers are found by the tensors' names; name the model alone"
        )
    parts = [_part_as_text(given.get("model"))]
    if given.get("lora") is not None:
        parts.append(_part_as_text(given["lora"]))
    return given if None in parts else "+".join(map(str, parts))


def _part_as_text(given: object) -> str | None:
    if isinstance(given, str):
        return given
    if not isinstance(given, dict) or not given.keys() <= {"path", "revision"}:
        return None
    path, revision = given.get("path"), given.get("revision")
    if not isinstance(path, str) or not isinstance(revision, str | None):
        return None
    return path if revision is None else f"{path}@{revision}"


ModelName: TypeAlias = Annotated[Text, BeforeValidator(_model_as_text)]
"""`PATH`, `HUB/ID`, `HUB/ID@REVISION`, each with `+ADAPTER`, as written."""


Gradient: TypeAlias = Annotated[tuple[Number, ...], Field(min_length=1, strict=False)]
Switches: TypeAlias = Annotated[tuple[bool, ...], Field(min_length=1, strict=False)]


def _form(value: object) -> str | None:
    """Name the form of a parameter value, so that an error speaks about the form that was meant."""
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, dict | FilteredValue):
        return "filter"
    if isinstance(value, list | tuple) and value:
        if any(isinstance(item, dict | FilteredValue) for item in value):
            return "filters"
        return "switches" if all(isinstance(item, bool) for item in value) else "gradient"
    return None


def _plain_form(value: object) -> str | None:
    form = _form(value)
    return None if form in ("filter", "filters") else form


_Plain: TypeAlias = (
    Annotated[bool, Tag("switch")]
    | Annotated[Number, Tag("number")]
    | Annotated[Gradient, Tag("gradient")]
    | Annotated[Switches, Tag("switches")]
)
PlainValue: TypeAlias = Annotated[
    _Plain,
    Discriminator(
        _plain_form,
        custom_error_type="parameter_value",
        custom_error_message="must be a number, true or false, or a list of numbers (a gradient)",
    ),
]


class FilteredValue(Frozen):
    """A value for the tensors whose name contains `filter`; without a filter (or with `*`), for all."""

    filter: Text | None = None
    value: PlainValue

    def applies_to(self, tensor: str) -> bool:
        """Return whether this entry is for the tensor of that name."""
        return self.filter is None or self.filter == "*" or self.filter in tensor


ParameterValue: TypeAlias = Annotated[
    _Plain
    | Annotated[FilteredValue, Tag("filter")]
    | Annotated[Annotated[tuple[FilteredValue, ...], Field(min_length=1, strict=False)], Tag("filters")],
    Discriminator(
        _form,
        custom_error_type="parameter_value",
        custom_error_message="must be a number, true or false, a list of numbers (a gradient), "
        "or a list of `filter: ...`, `value: ...` entries",
    ),
]
Parameters: TypeAlias = Annotated[Mapping[str, ParameterValue], nothing_is({})]


def resolve(value: ParameterValue, *, tensor: str, layer: int | None, layers: int) -> float | bool | None:
    """Return the number (or switch) that a parameter value means for one tensor.

    A gradient of k entries is interpolated linearly at t = layer / (layers - 1): entry 0 at the first layer,
    entry k - 1 at the last. A model or slice of one layer has t = 1; a tensor of no layer (`layer=None`:
    embeddings, final norm, head) has t = 0. The position is worked out in integers, so that where it falls on
    an entry the result is that entry to the last bit: a list with one entry per layer is exactly one value per
    layer. A list of switches isn't interpolated: the entry at or before the position counts.

    Args:
        value: A scalar, a gradient or switches over the layers, or filters, of which the first whose text is part
            of `tensor` counts.
        tensor: The tensor's name.
        layer: Its layer, in [0, layers), or None.
        layers: The number of layers of the model or slice; 0 only with `layer=None`.

    Returns:
        The value, or None when there are filters and none of them applies.

    Raises:
        ValueError: `layer` isn't in [0, layers).
    """
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"layer {layer} of {tensor!r} is not in [0, {layers})")
    if isinstance(value, FilteredValue):
        value = (value,)
    if not isinstance(value, tuple):
        return value
    entries: list[float | bool] = []
    for item in value:
        if not isinstance(item, FilteredValue):
            entries.append(item)
        elif item.applies_to(tensor):
            return resolve(item.value, tensor=tensor, layer=layer, layers=layers)
    return _at_layer(entries, layer, layers) if entries else None


def _at_layer(entries: list[float | bool], layer: int | None, layers: int) -> float | bool:
    shares = interpolation(len(entries), layer, layers)
    index, share = shares[0]
    if len(shares) == 1 or isinstance(entries[index], bool):
        return entries[index]
    left, right = entries[index], entries[index + 1]
    value = share * left + shares[1][1] * right
    return min(max(value, min(left, right)), max(left, right))  # rounding may step one ulp outside


def interpolation(entries: int, layer: int | None, layers: int) -> list[tuple[int, float]]:
    """Return which entries of a gradient over the layers make its value at one layer, and the share of each.

    Args:
        entries: The gradient's length, at least 1.
        layer: The layer, in [0, layers); None for a tensor of no layer.
        layers: The number of layers.

    Returns:
        One entry with share 1, or two neighbours whose shares sum to 1.
    """
    last = entries - 1
    if layer is None:
        return [(0, 1.0)]
    if layers == 1:
        return [(last, 1.0)]
    index, remainder = divmod(layer * last, layers - 1)
    if remainder == 0:
        return [(index, 1.0)]
    fraction = remainder / (layers - 1)
    return [(index, 1 - fraction), (index + 1, fraction)]
