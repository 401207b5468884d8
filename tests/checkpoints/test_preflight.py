"""Preflight: everything that is wrong, all at once, before any work."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import Bunch, tiny_base, tiny_tokenizer
from unspoiled.checkpoints import ModelRef, ModelSource, open_model, output_layout, preflight, require_finite
from unspoiled.checkpoints import _preflight as preflight_module
from unspoiled.errors import CheckpointError, PreflightError

BF16 = torch.bfloat16


def open_path(path: Path) -> ModelSource:
    return open_model(ModelRef(str(path)))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def expert(bunch: Bunch, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bunch.full, tmp_path / "expert"))


def problems(bunch: Bunch, expert: Path) -> str:
    return "\n".join(preflight(open_path(bunch.base), {"chef": open_path(expert)}, output=None, dtype=BF16).problems)


def test_a_bunch_that_fits_has_no_problem_and_a_measured_estimate(bunch: Bunch, tmp_path: Path) -> None:
    cache: dict[Path, Any] = {}
    base = open_model(ModelRef(str(bunch.base)), cache=cache)
    experts = {
        "aligned": open_model(ModelRef(str(bunch.base), None, ModelRef(str(bunch.aligned))), cache=cache),
        "full": open_path(bunch.full),
    }
    report = preflight(base, experts, output=tmp_path / "out", dtype=BF16)
    assert report.problems == ()
    assert report.warnings == ()
    report.raise_if_problems()
    weights = load_file(bunch.base / "model.safetensors")
    assert report.parameters == sum(tensor.numel() for tensor in weights.values())
    assert report.disk_bytes >= 2 * report.parameters
    assert report.memory_bytes >= 4 * report.parameters + sum(
        tensor.nbytes for tensor in load_file(bunch.aligned / "adapter_model.safetensors").values()
    )
    assert not (tmp_path / "out").exists()


def test_every_problem_is_a_bullet_of_one_error(bunch: Bunch, tmp_path: Path) -> None:
    deeper = open_path(tiny_base(tmp_path / "deeper", layers=3))
    smaller = open_path(tiny_base(tmp_path / "smaller", vocab_size=280))
    report = preflight(open_path(bunch.base), {"deep": deeper, "small": smaller}, output=None, dtype=torch.int8)
    with pytest.raises(PreflightError) as caught:
        report.raise_if_problems()
    text = str(caught.value)
    for part in (
        "output dtype int8 is not one of bfloat16, float16, float32",
        "expert 'deep': num_hidden_layers is 3 in its config, but 2 in the base's",
        "expert 'deep': has 9 tensors that the base lacks: 'model.layers.2.input_layernorm.weight'",
        "expert 'small': vocab_size is 280 in its config, but 300 in the base's",
        "expert 'small': other shapes than the base: 'model.embed_tokens.weight' [280, 32] instead of",
        "expert 'small': the tokenizer differs from the base's: vocabulary size: 300 and 280",
    ):
        assert f"  - {part}" in text or part in text
    assert text.count("\n  - ") == len(report.problems)


def test_missing_tensors_are_listed(bunch: Bunch, expert: Path) -> None:
    tensors = load_file(expert / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, expert / "model.safetensors", {"format": "pt"})
    assert problems(bunch, expert) == "expert 'chef': lacks 1 tensors that the base has: 'model.norm.weight'"


def test_another_architecture_is_named(bunch: Bunch, expert: Path) -> None:
    edit_json(
        expert / "config.json",
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        num_attention_heads=4,
    )
    found = problems(bunch, expert)
    assert "architecture ['MistralForCausalLM'], but the base has ['LlamaForCausalLM']" in found
    assert "model_type is 'mistral' in its config, but 'llama' in the base's" in found
    assert "num_attention_heads is 4 in its config, but 2 in the base's" in found


def with_buffer(path: Path, buffer: torch.Tensor) -> ModelSource:
    tensors = load_file(path / "model.safetensors") | {"position_ids": buffer}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return open_path(path)


@pytest.mark.parametrize("buffer", [torch.arange(4), torch.tensor([True, False])])
def test_equal_integer_buffers_are_copied_in_their_own_dtype(bunch: Bunch, expert: Path, buffer: torch.Tensor) -> None:
    base = with_buffer(Path(shutil.copytree(bunch.base, expert.parent / "base")), buffer)
    chef = with_buffer(expert, buffer)
    report = preflight(base, {"chef": chef}, output=None, dtype=BF16)
    assert report.problems == ()
    layout = output_layout([base, chef])
    assert dict(layout.copied) == {"position_ids": buffer.dtype}
    assert layout.with_dtype(BF16)["position_ids"] == (buffer.dtype, tuple(buffer.shape))
    others = {dtype for name, (dtype, _) in layout.with_dtype(BF16).items() if name != "position_ids"}
    assert others == {BF16}


@pytest.mark.parametrize("other", [torch.arange(4) + 1, torch.arange(4).float()], ids=["values", "dtype"])
def test_integer_buffers_that_differ_are_named(bunch: Bunch, expert: Path, other: torch.Tensor) -> None:
    base = with_buffer(Path(shutil.copytree(bunch.base, expert.parent / "base")), torch.arange(4))
    report = preflight(base, {"chef": with_buffer(expert, other)}, output=None, dtype=BF16)
    assert len(report.problems) == 1
    assert report.problems[0].startswith("expert 'chef': tensors in ")
    assert report.problems[0].endswith("differ from the base's, and integers can't be merged: 'position_ids'")


def test_templates_and_special_tokens_are_warnings(bunch: Bunch, expert: Path) -> None:
    (expert / "chat_template.jinja").write_text("{{ messages }}")
    edit_json(expert / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit_json(expert / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    report = preflight(open_path(bunch.base), {"chef": open_path(expert)}, output=None, dtype=BF16)
    assert report.problems == ()
    rope, role, template = report.warnings
    assert "rope_theta is 500000.0, and 10000.0 in the base" in rope
    assert role == "expert 'chef': differs from the base in eos_token: '<|im_end|>' and '<|endoftext|>'"
    assert template.startswith("expert 'chef': differs from the base in chat template:\n---")


def test_an_expert_without_tokenizer_is_a_warning(bunch: Bunch, expert: Path) -> None:
    (expert / "tokenizer.json").unlink()
    report = preflight(open_path(bunch.base), {"chef": open_path(expert)}, output=None, dtype=BF16)
    assert report.problems == ()
    assert "its tokenizer could not be compared" in report.warnings[0]


def test_an_adapter_with_its_own_vocabulary_is_a_problem(bunch: Bunch, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(bunch.aligned, tmp_path / "adapter"))
    tiny_tokenizer(vocab_size=290).save_pretrained(adapter)
    cache: dict[Path, Any] = {}
    base = open_model(ModelRef(str(bunch.base)), cache=cache)
    expert = open_model(ModelRef(str(bunch.base), None, ModelRef(str(adapter))), cache=cache)
    report = preflight(base, {"aligned": expert}, output=None, dtype=BF16)
    assert "expert 'aligned': the tokenizer differs from the base's: vocabulary size: 300 and 290" in report.problems


def test_a_mix_of_tied_and_untied_heads_is_a_warning(bunch: Bunch, tmp_path: Path) -> None:
    untied = open_path(tiny_base(tmp_path / "untied", tie=False))
    base = open_path(bunch.base)
    for one, other in ((base, untied), (untied, base)):
        report = preflight(one, {"x": other}, output=None, dtype=BF16)
        assert report.problems == ()
        assert "only one of it and the base has a tied head; the merge's is untied" in report.warnings[0]


def test_a_full_disk_is_a_problem_and_little_memory_a_warning(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "free_bytes", lambda path: 1000)
    monkeypatch.setattr(preflight_module, "available_memory", lambda: 1000)
    base = open_path(bunch.base)
    report = preflight(base, {}, output=tmp_path, dtype=BF16)
    assert len(report.problems) == 1
    assert "the merged checkpoint takes 0.05 GB and 0.00 GB are free" in report.problems[0]
    assert "a live merge takes about" in report.warnings[0]
    assert preflight(base, {}, output=None, dtype=BF16).problems == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_is_found_wherever_it_is(dtype: torch.dtype, bad: float) -> None:
    for index in ((0, 0), (3, 2), (6, 4)):
        tensor = torch.randn(7, 5).to(dtype)
        require_finite(tensor, model="chef", name="w")
        tensor[index] = bad
        with pytest.raises(
            CheckpointError,
            match=rf"chef: tensor 'w' has 1 NaN or Inf values of 35, the first at \[{index[0]}, {index[1]}\]",
        ):
            require_finite(tensor, model="chef", name="w")


def test_extreme_finite_empty_and_integer_tensors_pass() -> None:
    largest = torch.finfo(torch.float32).max
    for tensor in (torch.tensor([largest, -largest]), torch.empty(0), torch.arange(3), torch.tensor(1.0)):
        require_finite(tensor, model="m", name="w")
    with pytest.raises(CheckpointError, match=r"the first at \[\] \(nan\)"):
        require_finite(torch.tensor(float("nan")), model="m", name="w")
