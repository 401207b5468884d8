"""Recipes, inputs and destinations that used to end in a traceback, in other weights, or in a lost input."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from recipes import opened, recipe
from safetensors.torch import load_file, save_file

from tiny import Bunch
from unspoiled.config import Recipe, parse_recipes
from unspoiled.errors import CheckpointError, ConfigError, PreflightError, RunDirectoryError
from unspoiled.merging import Models, merge_stages, merge_to_directory

UP0 = "model.layers.0.mlp.up_proj.weight"


def stages(text: str) -> tuple[Recipe, ...]:
    return parse_recipes(text, "stages.yml")


def raw(path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "nearswap", "arcee_fusion", "pcb"])
def test_methods_that_measure_or_clamp_still_show_what_is_not_finite(
    bunch: Bunch, tmp_path: Path, method: str, value: float
) -> None:
    """LAPACK fails on NaN and swallows infinity, a clamp swallows it too, and NaN with a sign is no histogram bin."""
    shutil.copytree(bunch.full, tmp_path / "diverged")
    tensors = load_file(tmp_path / "diverged/model.safetensors")
    tensors[UP0][3, 5] = value
    save_file(tensors, tmp_path / "diverged/model.safetensors", {"format": "pt"})
    parameters = "{t: 0.5}" if method == "nearswap" else "{}"
    (wanted,) = stages(
        f"merge_method: {method}\nbase_model: {bunch.base}\nparameters: {parameters}\n"
        f"models: [{{model: {tmp_path / 'diverged'}}}]"
    )
    with pytest.raises(CheckpointError, match=rf"/diverged: tensor '{UP0}' has 1 NaN or Inf"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


def test_safemerge_does_not_let_nan_decide(tmp_path: Path) -> None:
    """The unaligned model only decides, so its NaN never reaches the weights by itself."""
    names = {}
    for index, name in enumerate(["base", "expert", "safe", "unsafe"]):
        weights = torch.arange(16.0).reshape(4, 4).roll(index)
        if name == "unsafe":
            weights[1, 2] = math.nan
        names[name] = raw(tmp_path / f"{name}.safetensors", w=weights)
    (wanted,) = stages(
        f"merge_method: safemerge\nbase_model: {names['base']}\nmodels:\n- model: {names['expert']}\n"
        f"- {{model: {names['safe']}, parameters: {{safety: 1}}}}\n"
        f"- {{model: {names['unsafe']}, parameters: {{safety: -1}}}}"
    )
    with pytest.raises(CheckpointError, match=r"unsafe.safetensors: tensor 'w' has 1 NaN"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


def test_whole_numbers_do_not_decide_the_dtype(tmp_path: Path) -> None:
    """A long index buffer beside few weights once made the weights int64: all of them 0."""
    one = raw(tmp_path / "a.safetensors", ids=torch.arange(100), w=torch.full((2, 2), 0.25))
    other = raw(tmp_path / "b.safetensors", ids=torch.arange(100), w=torch.full((2, 2), 0.75))
    wanted = recipe("linear", {one: 1.0, other: 1.0})
    merge_to_directory(wanted, opened(wanted), tmp_path / "out")
    merged = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(merged["w"], torch.full((2, 2), 0.5))
    assert torch.equal(merged["ids"], torch.arange(100))


@pytest.mark.parametrize("method", ["karcher", "model_stock", "multislerp", "arcee_fusion"])
def test_tensors_without_elements_are_kept(tmp_path: Path, method: str) -> None:
    """An expert group of size zero or an empty buffer has no norm to measure."""
    given = [raw(tmp_path / f"{i}.safetensors", none=torch.zeros(0, 4), w=torch.eye(4) * (i + 1)) for i in range(3)]
    models = given[1:2] if method == "arcee_fusion" else given[1:]
    base = f"base_model: {given[0]}\n" if method in ("model_stock", "arcee_fusion") else ""
    weight = ", parameters: {weight: 1}" if method == "multislerp" else ""
    (wanted,) = stages(
        f"merge_method: {method}\n{base}models:\n" + "\n".join(f"- {{model: {m}{weight}}}" for m in models)
    )
    merge_to_directory(wanted, opened(wanted), tmp_path / "out")
    assert load_file(tmp_path / "out/model.safetensors")["none"].shape == (0, 4)


def test_a_weight_beyond_float32_is_refused(bunch: Bunch, tmp_path: Path) -> None:
    wanted = recipe("task_arithmetic", {str(bunch.full): -1e300}, bunch.base)
    with pytest.raises(ConfigError, match=r"'weight' .* is -1e\+300: it must lie within float32's range"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


def test_seeds_that_float64_runs_together_are_refused(bunch: Bunch, tmp_path: Path) -> None:
    """2⁵³ + 1 is read as 2⁵³: two seeds that would give one merge."""
    (wanted,) = stages(
        f"merge_method: dare_linear\nbase_model: {bunch.base}\nparameters: {{seed: {2**53 + 1}}}\n"
        f"models: [{{model: {bunch.full}, parameters: {{weight: 1, density: 0.5}}}}]"
    )
    with pytest.raises(ConfigError, match=r"'seed' .* must lie between 0 and 9007199254740991"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


@pytest.mark.parametrize(("width", "layers", "message"), [(6, 2, "different shapes"), (4, 1, "lacks 'layers.1.w'")])
def test_a_base_beside_the_slices_must_fit_too(tmp_path: Path, width: int, layers: int, message: str) -> None:
    def model(name: str, layers: int, width: int) -> str:
        return raw(tmp_path / f"{name}.safetensors", **{f"layers.{i}.w": torch.eye(width) for i in range(layers)})

    (wanted,) = stages(
        f"merge_method: task_arithmetic\nbase_model: {model('base', layers, width)}\nslices:\n- sources:\n"
        f"  - {{model: {model('expert', 2, 4)}, layer_range: [0, 2], parameters: {{weight: 1}}}}"
    )
    with pytest.raises(PreflightError, match=message):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


def test_an_input_is_never_replaced_by_the_output(bunch: Bunch, tmp_path: Path) -> None:
    """An earlier output may be overwritten, but not while it is what the merge reads, nor what holds it."""
    first = recipe("linear", {str(bunch.base): 1.0})
    merge_to_directory(first, Models.open([first], tmp_path), tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "mine/inner")
    before = (tmp_path / "mine/unspoiled.json").stat()
    for name in ("mine", "mine/inner"):
        wanted = recipe("linear", {name: 1.0, str(bunch.full): 1.0})
        with pytest.raises(RunDirectoryError, match=rf"mine is or holds the input '{name}'"):
            merge_stages([wanted], tmp_path, tmp_path / "mine")
    assert (tmp_path / "mine/unspoiled.json").stat() == before


LATE = """\
name: first
merge_method: linear
models: [{{model: {base}, parameters: {{weight: 1}}}}]
---
merge_method: {method}
models: [{{model: first, parameters: {{weight: 1}}}}, {{model: {other}, parameters: {{weight: 1}}}}]
"""


@pytest.mark.parametrize(
    ("method", "other", "out", "error"),
    [
        ("linea", "first+./nope", "out", ConfigError),
        ("linear", "./nope", "out", CheckpointError),
        ("linear", "{base}", "/", RunDirectoryError),
        ("linear", "{base}", "foreign", RunDirectoryError),
    ],
)
def test_what_only_the_last_stage_needs_is_checked_before_the_first(
    bunch: Bunch, tmp_path: Path, method: str, other: str, out: str, error: type[Exception]
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.txt").write_text("mine")
    recipes = stages(LATE.format(base=bunch.base, method=method, other=other.format(base=bunch.base)))
    begun: list[str] = []
    with pytest.raises(error):
        merge_stages(recipes, tmp_path, tmp_path / out, progress=lambda stage, _done, _total: begun.append(stage))
    assert begun == []


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
def test_an_input_of_no_weight_is_checked_all_the_same(bunch: Bunch, tmp_path: Path, method: str) -> None:
    """A diverged expert must not pass because a search has set its weight to zero."""
    shutil.copytree(bunch.full, tmp_path / "diverged")
    tensors = load_file(tmp_path / "diverged/model.safetensors")
    tensors[UP0][3, 5] = math.nan
    save_file(tensors, tmp_path / "diverged/model.safetensors", {"format": "pt"})
    base = None if method == "linear" else bunch.base
    wanted = recipe(method, {str(bunch.full): 1.0, str(tmp_path / "diverged"): 0.0}, base)
    with pytest.raises(CheckpointError, match=rf"/diverged: tensor '{UP0}' has 1 NaN or Inf"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out")


def test_an_output_within_an_input_is_refused(bunch: Bunch, tmp_path: Path) -> None:
    shutil.copytree(bunch.full, tmp_path / "expert")
    wanted = recipe("linear", {str(tmp_path / "expert"): 1.0})
    with pytest.raises(RunDirectoryError, match="lies within the input"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "expert" / "inner")


def test_float64_is_merged_to_float32(tmp_path: Path) -> None:
    """The arithmetic is float32: float64 files would claim a precision that isn't there, at twice the size."""
    (wanted,) = stages(
        f"merge_method: linear\nparameters: {{weight: 1}}\nmodels: "
        f"[{{model: {raw(tmp_path / 'a.safetensors', w=torch.ones(2, 2, dtype=torch.float64))}}}]"
    )
    merge_to_directory(wanted, opened(wanted), tmp_path / "out")
    assert load_file(tmp_path / "out/model.safetensors")["w"].dtype == torch.float32
