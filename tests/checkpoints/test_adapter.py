"""LoRA adapters against PEFT's own merge, and the adapters that are refused."""

import json
import shutil
import warnings
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tiny import Bunch, tiny_adapter, tiny_base
from unspoiled.checkpoints import open_adapter, open_checkpoint
from unspoiled.errors import CheckpointError

Q0 = "model.layers.0.self_attn.q_proj.weight"


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def assert_agrees_with_peft(base: Path, adapter: Path) -> set[str]:
    """Compare base + dense delta with PEFT, every tensor; return the names that the adapter changes."""
    checkpoint = open_checkpoint(base)
    deltas = open_adapter(adapter, checkpoint).deltas
    expected = merged_by_peft(base, adapter)
    assert deltas.keys() <= checkpoint.tensors.keys() <= expected.keys()
    for name in checkpoint.tensors:
        merged = checkpoint.read(name).float()
        if name in deltas:
            assert deltas[name].shape == tuple(merged.shape)
            assert deltas[name].dense().abs().max() > 0.01, "a delta of nothing would prove nothing"
            merged = merged + deltas[name].dense()
        torch.testing.assert_close(merged, expected[name], rtol=1e-6, atol=1e-6)
    return set(deltas)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank 1": {"rank": 1},
    "alpha below rank": {"lora_alpha": 3},
    "rslora": {"use_rslora": True},
    "rank and alpha patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7, "^model.layers.0.self_attn.v_proj": 3},
        "alpha_pattern": {"o_proj": 1, "mlp.down_proj": 32, r".*\.0\..*k_proj": 5},
    },
    "patterns that only look alike": {
        "rank_pattern": {"proj": 2, "q_pro": 2},
        "alpha_pattern": {"ayers.0": 3},
    },
    "the first of two matching patterns": {"alpha_pattern": {"q_proj": 1, "self_attn.q_proj": 32}},
    "rslora with patterns": {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 9},
        "alpha_pattern": {"q_proj": 5},
    },
    "one layer of one kind": {"target_modules": ["v_proj"], "layers_to_transform": [1]},
}


@pytest.mark.filterwarnings("ignore:.*(pattern|rslora)")
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_agrees_with_peft(bunch: Bunch, tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = tiny_adapter(bunch.base, tmp_path / "adapter", seed=5, **options)
    changed = assert_agrees_with_peft(bunch.base, adapter)
    assert len(changed) == (1 if "layers_to_transform" in options else 14)


def test_agrees_with_peft_on_embeddings_and_head_of_an_untied_base(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", tie=False)
    adapter = tiny_adapter(base, tmp_path / "adapter", 5, target_modules=["embed_tokens", "lm_head", "q_proj"])
    assert any("embed_tokens" in key and "lora" not in key for key in load_file(adapter / "adapter_model.safetensors"))
    changed = assert_agrees_with_peft(base, adapter)
    assert {"model.embed_tokens.weight", "lm_head.weight"} < changed


@pytest.mark.parametrize("flag", [True, False])
def test_agrees_with_peft_on_transposed_weights(tmp_path: Path, flag: bool) -> None:
    """GPT-2 stores [in, out]; PEFT corrects a wrong flag, and saves the corrected one; c_proj is square."""
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    adapter = tiny_adapter(
        tmp_path / "base",
        tmp_path / "adapter",
        5,
        target_modules=["c_attn", "c_proj", "c_fc"],
        fan_in_fan_out=flag,
    )
    changed = assert_agrees_with_peft(tmp_path / "base", adapter)
    assert "transformer.h.0.attn.c_proj.weight" in changed


def test_a_square_weight_whose_flag_contradicts_the_others_is_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    adapter = tiny_adapter(tmp_path / "base", tmp_path / "adapter", 5, target_modules=["c_attn", "c_proj"])
    edit_config(adapter, fan_in_fan_out=False)
    with pytest.raises(CheckpointError, match=r"attn\.c_proj' is square, and fan_in_fan_out=False contradicts"):
        open_adapter(adapter, open_checkpoint(tmp_path / "base"))


def test_a_base_saved_without_its_first_prefix_is_matched(bunch: Bunch, tmp_path: Path) -> None:
    shutil.copytree(bunch.base, tmp_path / "bare")
    tensors = load_file(bunch.base / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "bare" / "model.safetensors")
    deltas = open_adapter(bunch.aligned, open_checkpoint(tmp_path / "bare")).deltas
    reference = open_adapter(bunch.aligned, open_checkpoint(bunch.base)).deltas
    assert {f"model.{name}" for name in deltas} == set(reference)


def test_the_scale_is_alpha_over_r_worked_by_hand(bunch: Bunch, tmp_path: Path) -> None:
    base = open_checkpoint(bunch.base)
    plain = open_adapter(tiny_adapter(bunch.base, tmp_path / "a", 1, rank=4, lora_alpha=6), base).deltas[Q0]
    assert plain.scale == 1.5
    assert plain.rank == 4
    stabilised = tiny_adapter(bunch.base, tmp_path / "b", 1, rank=4, lora_alpha=6, use_rslora=True)
    assert open_adapter(stabilised, base).deltas[Q0].scale == 6 / sqrt(4)


def test_a_bf16_adapter_is_multiplied_in_float32(bunch: Bunch, copy: Path) -> None:
    file = copy / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    delta = open_adapter(copy, open_checkpoint(bunch.base)).deltas[Q0]
    assert delta.a.dtype == delta.b.dtype == torch.bfloat16
    exact = 2.0 * (delta.b.double() @ delta.a.double())
    assert delta.dense().dtype == torch.float32
    torch.testing.assert_close(delta.dense().double(), exact, rtol=1e-5, atol=1e-7)


def test_the_fingerprint_follows_weights_and_scale(bunch: Bunch, copy: Path) -> None:
    base = open_checkpoint(bunch.base)
    before = open_adapter(copy, base).fingerprint()
    edit_config(copy, base_model_name_or_path="/somewhere/else")
    assert open_adapter(copy, base).fingerprint() == before, "another path to the same base changes nothing"
    edit_config(copy, lora_alpha=9)
    assert open_adapter(copy, base).fingerprint() != before


# --- refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(bunch: Bunch, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bunch.aligned, tmp_path / "copy"))


def edit_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(adapter: Path, **changes: torch.Tensor | None) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("bias", "all"),
        ("lora_bias", True),
        ("trainable_token_indices", [1, 2]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("alora_invocation_tokens", [1]),
        ("use_qalora", True),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("a_later_invention", {"strength": 2}),
    ],
)
def test_options_that_mean_more_than_b_times_a_are_refused_by_name(
    bunch: Bunch, copy: Path, option: str, value: object
) -> None:
    edit_config(copy, **{option: value})
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: .*{option}.*merge_and_unload"):
        open_adapter(copy, open_checkpoint(bunch.base))


def test_every_reason_is_given_at_once(bunch: Bunch, copy: Path) -> None:
    edit_config(copy, use_dora=True, bias="lora_only", modules_to_save=["x"])
    with pytest.raises(CheckpointError, match=r"(?s)use_dora.*modules_to_save.*bias='lora_only'"):
        open_adapter(copy, open_checkpoint(bunch.base))


def test_a_real_dora_adapter_is_refused(bunch: Bunch, tmp_path: Path) -> None:
    adapter = tiny_adapter(bunch.base, tmp_path / "dora", 1, use_dora=True)
    with pytest.raises(CheckpointError, match="use_dora"):
        open_adapter(adapter, open_checkpoint(bunch.base))
    edit_config(adapter, use_dora=False)  # a config that lies doesn't help
    with pytest.raises(CheckpointError, match=r"holds more than LoRA factors: .*lora_magnitude_vector"):
        open_adapter(adapter, open_checkpoint(bunch.base))


def test_an_adapter_for_another_base_is_refused_with_its_modules(bunch: Bunch, tmp_path: Path) -> None:
    deeper = tiny_base(tmp_path / "deeper", layers=3)
    adapter = tiny_adapter(deeper, tmp_path / "adapter", 1, target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match=r"doesn't have: 'model\.layers\.2\.self_attn\.q_proj'.*another base"):
        open_adapter(adapter, open_checkpoint(bunch.base))


def test_factors_that_do_not_fit_the_base_are_refused(bunch: Bunch, copy: Path) -> None:
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    edit_weights(copy, **{key.format("A"): torch.ones(4, 33)})
    with pytest.raises(CheckpointError, match=r"q_proj' has factors B \[32, 4\] and A \[4, 33\].*shape \[32, 32\]"):
        open_adapter(copy, open_checkpoint(bunch.base))
    edit_weights(copy, **{key.format("A"): torch.ones(5, 32)})
    with pytest.raises(CheckpointError, match=r"B \[32, 4\] and A \[5, 32\]"):
        open_adapter(copy, open_checkpoint(bunch.base))
    edit_weights(copy, **{key.format("A"): torch.ones(0)})  # as an ungathered ZeRO-3 save leaves it
    with pytest.raises(CheckpointError, match=r"A \[0\]"):
        open_adapter(copy, open_checkpoint(bunch.base))
    edit_weights(copy, **{key.format("A"): None})
    with pytest.raises(CheckpointError, match="only one of its two LoRA factors"):
        open_adapter(copy, open_checkpoint(bunch.base))


def test_a_rank_that_contradicts_the_config_is_refused(bunch: Bunch, copy: Path) -> None:
    edit_config(copy, r=8)
    with pytest.raises(CheckpointError, match=r"has rank 4, but adapter_config\.json gives it rank 8"):
        open_adapter(copy, open_checkpoint(bunch.base))


def test_a_trained_embedding_saved_whole_is_refused(bunch: Bunch, copy: Path) -> None:
    embedding = load_file(bunch.base / "model.safetensors")["model.embed_tokens.weight"]
    key = "base_model.model.model.embed_tokens.weight"
    edit_weights(copy, **{key: embedding})
    assert len(open_adapter(copy, open_checkpoint(bunch.base)).deltas) == 14, "an unchanged copy is no change"
    edit_weights(copy, **{key: embedding + 0.01})
    with pytest.raises(CheckpointError, match=rf"holds more than LoRA factors: '{key}'"):
        open_adapter(copy, open_checkpoint(bunch.base))


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_on_one_half_of_a_tied_pair_is_refused(bunch: Bunch, tmp_path: Path, target: str) -> None:
    adapter = tiny_adapter(bunch.base, tmp_path / "adapter", 1, target_modules=[target])
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight' and 'model\.embed_tokens\.weight' are one tied"):
        open_adapter(adapter, open_checkpoint(bunch.base))


def test_incomplete_and_pickled_adapters_are_refused(bunch: Bunch, copy: Path) -> None:
    base = open_checkpoint(bunch.base)
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*runs code"):
        open_adapter(copy, base)
    (copy / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        open_adapter(copy, base)
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        open_adapter(bunch.base, base)
    save_file({}, copy / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="no LoRA factor"):
        open_adapter(copy, base)
