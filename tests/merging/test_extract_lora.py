"""A model as an adapter on its base: PEFT's reading of it, the best error of its rank, and what can't be in it."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from command import unspoiled
from tiny import Bunch, tiny_adapter, tiny_base, tiny_expert
from unspoiled.checkpoints import ModelRef, open_model
from unspoiled.errors import CheckpointError, ConfigError, PreflightError
from unspoiled.merging import extract_lora, materialize
from unspoiled.merging.extract import low_rank_factors


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    return dict(model.named_parameters(remove_duplicate=False))


def assert_same_model(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal but for what decomposing in float32 rounds, which differs from one machine's LAPACK to another's."""
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name].detach(), tensor, atol=2e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_task_vector_of_the_adapters_rank_comes_back(bunch: Bunch, tmp_path: Path) -> None:
    """A LoRA of rank 4, written into the weights, is found again at rank 4: by PEFT and by us."""
    materialize(f"{bunch.base}+{bunch.aligned}", tmp_path / "tuned")
    found = extract_lora(str(tmp_path / "tuned"), str(bunch.base), tmp_path / "lora", rank=4)
    assert min(tensor.energy for tensor in found.tensors) > 1 - 1e-6
    assert (found.left_out, found.excluded) == ((), ())
    assert_same_model(merged_by_peft(bunch.base, tmp_path / "lora"), weights(tmp_path / "tuned"))
    materialize(f"{bunch.base}+{tmp_path / 'lora'}", tmp_path / "again")
    assert_same_model(weights(tmp_path / "again"), weights(tmp_path / "tuned"))


def test_embeddings_and_head_of_an_untied_model(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", tie=False)
    adapter = tiny_adapter(base, tmp_path / "given", seed=1, rank=3, target_modules=["embed_tokens", "lm_head"])
    materialize(f"{base}+{adapter}", tmp_path / "tuned")
    found = extract_lora(str(tmp_path / "tuned"), str(base), tmp_path / "lora", rank=3)
    assert [tensor.name for tensor in found.tensors] == ["lm_head.weight", "model.embed_tokens.weight"]
    assert_same_model(merged_by_peft(base, tmp_path / "lora"), weights(tmp_path / "tuned"))
    materialize(f"{base}+{tmp_path / 'lora'}", tmp_path / "again")
    assert_same_model(weights(tmp_path / "again"), weights(tmp_path / "tuned"))


def test_weights_that_are_stored_transposed(tmp_path: Path) -> None:
    """GPT-2's Conv1D stores [in, out], square matrices included, of which no shape tells."""
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "base")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("c_proj.weight", "c_fc.weight")):
                parameter += torch.outer(
                    torch.randn(parameter.shape[0], generator=generator),
                    torch.randn(parameter.shape[1], generator=generator),
                )
    model.save_pretrained(tmp_path / "tuned")
    extract_lora(str(tmp_path / "tuned"), str(tmp_path / "base"), tmp_path / "lora", rank=1)
    assert_same_model(merged_by_peft(tmp_path / "base", tmp_path / "lora"), weights(tmp_path / "tuned"))


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_the_error_is_that_of_the_singular_values_left_out(bunch: Bunch, tmp_path: Path, rank: int) -> None:
    """Eckart and Young: no matrix of the rank is nearer. 40 is more than the sides have: nothing is left out."""
    extraction = extract_lora(str(bunch.full), str(bunch.base), tmp_path / "lora", rank=rank, ignore_other_tensors=True)
    source = open_model(ModelRef(str(bunch.base), None, ModelRef(str(tmp_path / "lora"))))
    base, full = weights(bunch.base), weights(bunch.full)
    assert len(extraction.tensors) == 14
    for tensor in extraction.tensors:
        delta = full[tensor.name] - base[tensor.name]
        adapted = source.delta(tensor.name)
        assert adapted is not None
        assert adapted.scale == 1.0
        values = torch.linalg.svdvals(delta.double())
        left = values[rank:].square().sum()
        error = (delta - adapted.dense()).double().norm()
        assert error == pytest.approx(left.sqrt().item(), rel=1e-4, abs=1e-5)
        assert tensor.norm == pytest.approx(values.norm().item(), rel=1e-5)
        assert tensor.energy == pytest.approx(1 - (left / values.square().sum()).item(), abs=1e-5)


def test_large_matrices_are_nearly_as_well_approximated_and_reproducible() -> None:
    """Singular values that fall as 1/k, which is slow: the randomised error is within 1% of the best."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 600, generator=generator)).Q for size in (700, 600))
    values = 1 / torch.arange(1, 601)
    matrix = (left * values) @ right.T
    (b, a), (again, _) = (low_rank_factors(matrix, 20, torch.Generator().manual_seed(7)) for _ in range(2))
    assert (b.shape, a.shape) == ((700, 20), (20, 600))
    assert torch.equal(b, again)
    assert (matrix - b @ a).norm() <= 1.01 * values[20:].norm()
    torch.testing.assert_close(b.norm(dim=0), a.norm(dim=1))


def test_tensors_that_no_lora_can_hold_are_listed_and_refused(bunch: Bunch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"6 tensors .*'model\.embed_tokens\.weight'.*--ignore-other-tensors"):
        extract_lora(str(bunch.full), str(bunch.base), tmp_path / "lora", rank=2)
    assert list(tmp_path.iterdir()) == []
    found = extract_lora(str(bunch.full), str(bunch.base), tmp_path / "lora", rank=2, ignore_other_tensors=True)
    assert "model.embed_tokens.weight" in found.left_out, "tied: a LoRA would change one of its two uses"
    assert len([name for name in found.left_out if "norm" in name]) == 5


def test_new_tokens_are_listed(tmp_path: Path) -> None:
    base, larger = tiny_base(tmp_path / "base", tie=False), tmp_path / "larger"
    tensors = weights(tiny_expert(base, larger, seed=1))
    tensors["lm_head.weight"] = torch.cat([tensors["lm_head.weight"], torch.ones(4, 32)])
    save_file(tensors, larger / "model.safetensors", {"format": "pt"})
    found = extract_lora(str(larger), str(base), tmp_path / "lora", rank=2, ignore_other_tensors=True)
    assert "lm_head.weight" in found.left_out


def test_patterns_choose_tensors(bunch: Bunch, tmp_path: Path) -> None:
    found = extract_lora(
        str(bunch.full), str(bunch.base), tmp_path / "lora", rank=2, include=["*.mlp.*"], exclude=["*layers.0.*"]
    )
    assert [tensor.name for tensor in found.tensors] == [
        f"model.layers.1.mlp.{part}_proj.weight" for part in ("down", "gate", "up")
    ]
    assert len(found.excluded) == 17
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.layers.1.mlp.{part}_proj" for part in ("down", "gate", "up")]


def test_models_that_do_not_belong_together_are_refused(bunch: Bunch, tmp_path: Path) -> None:
    deeper = tiny_base(tmp_path / "deeper", layers=3)
    with pytest.raises(PreflightError, match=r"9 tensors are in only one of them: 'model\.layers\.2\."):
        extract_lora(str(deeper), str(bunch.base), tmp_path / "lora", rank=2)
    with pytest.raises(PreflightError, match="nothing to extract"):
        extract_lora(str(bunch.base), str(bunch.base), tmp_path / "lora", rank=2)
    with pytest.raises(ConfigError, match="rank is 0"):
        extract_lora(str(bunch.full), str(bunch.base), tmp_path / "lora", rank=0)
    broken = weights(tiny_expert(bunch.base, tmp_path / "broken", seed=1))
    broken["model.layers.0.mlp.up_proj.weight"][1, 1] = float("nan")
    save_file(broken, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"broken: tensor 'model\.layers\.0\.mlp\.up_proj\.weight' has 1 NaN"):
        extract_lora(str(tmp_path / "broken"), str(bunch.base), tmp_path / "lora", rank=2, ignore_other_tensors=True)
    assert not (tmp_path / "lora").exists()


def test_the_command_says_how_much_it_holds_in_80_columns(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = unspoiled("extract-lora", bunch.full, bunch.base, "lora", "--rank", "4")
    assert refused.code != 0
    assert "--ignore-other-tensors" in refused.err
    done = unspoiled("extract-lora", bunch.full, bunch.base, "lora", "--rank", "4", "--ignore-other-tensors")
    assert done.code == 0, done.err
    assert done.out == "lora\n"
    assert max(map(len, done.err.splitlines())) <= 80
    rows = [line.split() for line in done.err.splitlines()]
    assert ["module", "tensors", "held", "lowest"] in rows
    assert any(row[:2] == ["down_proj", "2"] for row in rows if row)
    assert "Not in it: 6 tensors that differ and can't be in a LoRA" in " ".join(done.err.split())
    assert (tmp_path / "lora" / "unspoiled.json").exists()
