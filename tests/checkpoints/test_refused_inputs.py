"""Bad input, as a user meets it: a merge ends before any work, with one message and nothing left behind."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from command import unspoiled
from tiny import Bunch, tiny_base

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"


@dataclass(frozen=True)
class Inputs:
    """Copies to spoil: a full expert, the same in shards, and an adapter."""

    full: Path
    shards: Path
    adapter: Path


def tensors_changed(expert: Path, file: str = WEIGHTS, **changes: torch.Tensor | None) -> None:
    tensors = load_file(expert / file) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, expert / file)


def value_changed(expert: Path, tensor: str, value: float) -> None:
    changed = load_file(expert / WEIGHTS)[tensor]
    changed.view(-1)[3] = value
    tensors_changed(expert, **{tensor: changed})


def json_changed(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def header_changed(expert: Path, change: Callable[[str], str]) -> None:
    file = expert / WEIGHTS
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].decode()).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def truncated(expert: Path) -> None:
    shard = sorted(expert.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def renamed(expert: Path, name: str) -> None:
    (expert / WEIGHTS).rename(expert / name)


def linked(expert: Path) -> None:
    (expert / WEIGHTS).rename(expert.parent / "elsewhere.safetensors")
    (expert / WEIGHTS).symlink_to(expert.parent / "elsewhere.safetensors")


def index_leads_out(expert: Path) -> None:
    index = json.loads((expert / INDEX).read_text())
    json_changed(expert / INDEX, weight_map=index["weight_map"] | {NORM: "../model.safetensors"})


def duplicated(header: str) -> str:
    return '{"model.norm.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + header[1:]


def overlapping(header: str) -> str:
    entries = json.loads(header)
    first, second = [name for name, entry in entries.items() if entry.get("shape") == [32]][:2]
    entries[second]["data_offsets"] = entries[first]["data_offsets"]
    return json.dumps(entries)


FAULTS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "NaN": ("full", lambda path: value_changed(path, UP, float("nan")), ["/full", UP, "NaN"]),
    "infinity": ("full", lambda path: value_changed(path, UP, float("inf")), ["/full", UP]),
    "overflow of the output dtype": ("full", lambda path: value_changed(path, UP, 1e6), [UP, "overflow float16"]),
    "another shape": ("full", lambda path: tensors_changed(path, **{NORM: torch.ones(31)}), [NORM]),
    "another vocabulary": (
        "full",
        lambda path: tensors_changed(path, **{"model.embed_tokens.weight": torch.ones(280, 32)}),
        ["model.embed_tokens.weight"],
    ),
    "FP8": (
        "full",
        lambda path: tensors_changed(path, **{UP: torch.ones(64, 32).to(torch.float8_e4m3fn)}),
        ["/full", UP, "F8_E4M3", "original"],
    ),
    "int8": ("full", lambda path: tensors_changed(path, **{UP: torch.ones(64, 32).to(torch.int8)}), [UP, "I8"]),
    "int4": (
        "full",
        lambda path: json_changed(path / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        ["/full/config.json", "gptq", "original"],
    ),
    "GGUF": ("full", lambda path: renamed(path, "model.Q4_0.gguf"), ["/full", "GGUF", "safetensors"]),
    "a missing tensor": ("full", lambda path: tensors_changed(path, **{NORM: None}), ["/full", NORM]),
    "an extra tensor": ("full", lambda path: tensors_changed(path, strange=torch.ones(1)), ["strange"]),
    "a truncated shard": ("shards", truncated, ["/shards/model-00002-of-", "damaged"]),
    "overlapping tensors": ("full", lambda path: header_changed(path, overlapping), ["/full/model.saf", "overlaps"]),
    "duplicate names": ("full", lambda path: header_changed(path, duplicated), [f"names '{NORM}' twice"]),
    "an index that leads out": ("shards", index_leads_out, ["/shards", "'../model.safetensors'", "leads out"]),
    "a link that leads out": ("full", linked, ["/full/model.safetensors is a link to"]),
    "a pickle": ("full", lambda path: renamed(path, "pytorch_model.bin"), ["pytorch_model.bin", "runs code"]),
    "remote code": (
        "full",
        lambda path: json_changed(path / "config.json", auto_map={"AutoModel": "model.Model"}),
        ["/full/config.json", "auto_map"],
    ),
    "DoRA": ("adapter", lambda path: json_changed(path / "adapter_config.json", use_dora=True), ["use_dora"]),
    "modules_to_save": (
        "adapter",
        lambda path: json_changed(path / "adapter_config.json", modules_to_save=["lm_head"]),
        ["/adapter/adapter_config.json", "modules_to_save", "merge_and_unload"],
    ),
    "an adapter without a matching key": (
        "adapter",
        lambda path: tensors_changed(
            path,
            "adapter_model.safetensors",
            **{"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 32)},
            **{"base_model.model.model.layers.9.mlp.up_proj.lora_B.weight": torch.ones(64, 4)},
        ),
        ["/adapter/adapter_model.safetensors", "model.layers.9.mlp.up_proj"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_merge_is_refused_with_one_message_and_nothing_left(bunch: Bunch, tmp_path: Path, fault: str) -> None:
    inputs = Inputs(
        full=Path(shutil.copytree(bunch.full, tmp_path / "full")),
        shards=tiny_base(tmp_path / "shards", seed=4, max_shard_size=40_000),
        adapter=Path(shutil.copytree(bunch.aligned, tmp_path / "adapter")),
    )
    which, spoil, complaint = FAULTS[fault]
    expert = getattr(inputs, which)
    spoil(expert)
    model = f"{bunch.base}+{expert}" if which == "adapter" else str(expert)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge_method: task_arithmetic\nbase_model: {bunch.base}\nout_dtype: float16\n"
        f"models:\n  - model: {model}\n    parameters: {{weight: 1.0}}\n"
    )
    before = sorted(tmp_path.rglob("*"))
    done = unspoiled("merge", recipe, tmp_path / "out", "--quiet")
    assert done.code not in (0, 1), "a code of its own, not a crash"
    assert done.err.count("Error: ") == 1
    assert done.err.startswith("Error: ")
    for part in complaint:
        assert part in done.err
    assert sorted(tmp_path.rglob("*")) == before
