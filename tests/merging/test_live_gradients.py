"""The live model turns a loss's gradient into the coefficients', parameter by parameter, on a real tiny Llama."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from recipes import loaded, opened, recipe
from torch import Tensor, nn

from tiny import Bunch
from unspoiled.config import ModelEntry, Recipe
from unspoiled.errors import ConfigError
from unspoiled.merging import LiveModel, MergePlan
from unspoiled.merging._device import DeviceRows
from unspoiled.merging._rows import mapped_rows

EMBEDDING = "model.embed_tokens.weight"
IDS = torch.arange(3, 40).reshape(1, -1)
SOME = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight", EMBEDDING]


def experts_of(bunch: Bunch) -> list[str]:
    return [f"{bunch.base}+{bunch.aligned}", str(bunch.full), f"{bunch.base}+{bunch.skilled}"]


def three(name: str, bunch: Bunch, **parameters: Any) -> Recipe:
    weights = dict(zip(experts_of(bunch), (0.6, 0.5, 0.8), strict=True))
    return recipe(name, weights, bunch.base, parameters=parameters)


def adapters(bunch: Bunch, weight: float = 0.7) -> Recipe:
    return recipe("task_arithmetic", {f"{bunch.base}+{bunch.aligned}": weight}, bunch.base)


def loss_of(model: Any) -> Tensor:
    loss: Tensor = model(IDS, labels=IDS).loss
    return loss


def holding(bunch: Bunch, wanted: Recipe, dtype: torch.dtype = torch.float32) -> LiveModel:
    live = LiveModel(loaded(bunch.base, dtype), opened(wanted))
    live.take_recipe(wanted)
    return live


def moved(coefficients: Mapping[str, Any], argument: str, place: int, by: float) -> dict[str, Any]:
    value = coefficients[argument]
    more = [one + by * (i == place) for i, one in enumerate(value)] if isinstance(value, list) else value + by
    return {**coefficients, argument: more}


@pytest.mark.parametrize(("name", "argument"), [("task_arithmetic", "weight"), ("consensus", "lambda_")])
def test_a_tensors_gradient_is_that_of_finite_differences_of_the_loss(bunch: Bunch, name: str, argument: str) -> None:
    """In a float64 module, so that only the merge rounds."""
    wanted = three(name, bunch)
    live = holding(bunch, wanted, torch.float64)
    plan = MergePlan(wanted, live.models)
    with live.recording_gradients({argument}) as found:
        loss_of(live.model).backward()
    parameters = dict(live.model.named_parameters())
    for tensor in SOME:
        planned = plan.tensors[tensor]
        values = found.by_tensor[tensor][argument]
        for place, exact in enumerate(values if isinstance(values, list) else [values]):
            losses = []
            for by in (1e-2, -1e-2):
                own = replace(planned, coefficients=moved(planned.coefficients, argument, place, by))
                with torch.no_grad():
                    parameters[tensor].copy_(own.merged())
                    losses.append(float(loss_of(live.model)))
            with torch.no_grad():
                parameters[tensor].copy_(planned.merged())
            assert exact == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=1e-2, abs=2e-4), (tensor, place)


def test_the_tensors_gradients_sum_to_the_recipes(bunch: Bunch) -> None:
    """A weight for the whole model moves all its tensors: float32 weights, and bfloat16 ones as far as they tell."""
    live = holding(bunch, adapters(bunch))
    with live.recording_gradients({"weight"}) as found:
        loss_of(live.model).backward()
    total = sum(value for own in found.by_tensor.values() for value in own["weight"])  # type: ignore[union-attr]
    losses = []
    for weight in (0.72, 0.68):
        live.take_recipe(adapters(bunch, weight))
        with torch.no_grad():
            losses.append(float(loss_of(live.model)))
    assert total == pytest.approx((losses[0] - losses[1]) / 0.04, rel=1e-2)

    live = holding(bunch, adapters(bunch), torch.bfloat16)
    with live.recording_gradients({"weight"}) as found:
        loss_of(live.model).backward()
    rough = sum(value for own in found.by_tensor.values() for value in own["weight"])  # type: ignore[union-attr]
    assert rough == pytest.approx(total, rel=0.1)


def test_backward_passes_add_up_and_copied_tensors_have_none(bunch: Bunch) -> None:
    live = holding(bunch, adapters(bunch))
    with live.recording_gradients({"weight"}) as once:
        loss_of(live.model).backward()
    with live.recording_gradients({"weight"}) as twice:
        loss_of(live.model).backward()
        loss_of(live.model).backward()
    assert twice.by_tensor.keys() == dict(live.model.named_parameters()).keys()
    for tensor, own in once.by_tensor.items():
        assert twice.by_tensor[tensor]["weight"] == pytest.approx([2 * value for value in own["weight"]])  # type: ignore[union-attr]
    assert once.by_tensor[EMBEDDING]["weight"] == [0.0]
    assert once.by_tensor["model.norm.weight"]["weight"] == [0.0]
    assert once.by_tensor["model.layers.0.mlp.up_proj.weight"]["weight"] != [0.0]


def test_one_gradient_is_alive_at_a_time(bunch: Bunch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is turned into the coefficients' before the next is made, and only merged tensors have one."""
    from unspoiled.merging._blocks import PlannedTensor
    from unspoiled.merging._kept import KeptWork

    live = holding(bunch, adapters(bunch))
    alive: list[list[str]] = []
    original = KeptWork.coefficient_gradients

    def watched(kept: KeptWork, tensor: PlannedTensor, gradient: Tensor, wanted: Any) -> Any:
        held = [name for name, one in live.model.named_parameters() if one.grad is not None]
        alive.append([tensor.name, *held])
        return original(kept, tensor, gradient, wanted)

    monkeypatch.setattr(KeptWork, "coefficient_gradients", watched)
    with live.recording_gradients({"weight"}):
        required = {name for name, one in live.model.named_parameters() if one.requires_grad}
        loss_of(live.model).backward()
    assert len(alive) == len(required) == 14, "seven linear layers in each of two layers"
    assert {name for name, *_ in alive} == required
    assert all(not others for _, *others in alive)


def test_afterwards_the_model_is_as_before(bunch: Bunch) -> None:
    live = holding(bunch, adapters(bunch))
    norm, embedding = live.model.get_parameter("model.norm.weight"), live.model.get_parameter(EMBEDDING)
    norm.requires_grad_(False)
    embedding.grad = mine = torch.ones_like(embedding)
    before = {name: (one.requires_grad, one.grad) for name, one in live.model.named_parameters()}
    with pytest.raises(IndexError), live.recording_gradients({"weight"}):
        live.model(IDS + 1000)  # tokens that it doesn't have
    assert {name: (one.requires_grad, one.grad) for name, one in live.model.named_parameters()} == before
    assert torch.equal(mine, torch.ones_like(embedding))
    loss_of(live.model).backward()
    weight = live.model.get_parameter("model.layers.0.mlp.up_proj.weight")
    assert weight.grad is not None, "no hook is left to take it away"


def test_a_tied_embedding_counts_once_with_both_its_uses(bunch: Bunch) -> None:
    wanted = recipe("task_arithmetic", {str(bunch.full): 0.5}, bunch.base)
    live = holding(bunch, wanted)
    assert live.model.lm_head.weight is live.model.model.embed_tokens.weight
    with live.recording_gradients({"weight"}) as found:
        loss_of(live.model).backward()
    loss_of(live.model).backward()
    gradient = live.model.model.embed_tokens.weight.grad
    expert, base = (loaded(path).model.embed_tokens.weight.detach() for path in (bunch.full, bunch.base))
    expected = float((gradient.double() * (expert - base)).sum())
    assert found.by_tensor[EMBEDDING]["weight"] == pytest.approx([expected], rel=1e-4)
    assert "lm_head.weight" not in found.by_tensor


def test_a_frozen_tensor_does_not_matter_and_buffers_are_left_out(bunch: Bunch) -> None:
    """A buffer takes no gradient; that the user froze a parameter is put aside within the context alone."""
    wanted = recipe("task_arithmetic", {str(bunch.full): 0.5}, bunch.base)
    live = LiveModel(loaded(bunch.base), opened(wanted))
    norm = live.model.model.norm
    value = norm.weight.detach().clone()
    del norm.weight
    norm.register_buffer("weight", value)
    live = LiveModel(live.model.requires_grad_(False), live.models)
    live.take_recipe(wanted)
    assert isinstance(live.model, nn.Module)
    with live.recording_gradients({"weight"}) as found:
        loss_of(live.model).backward()
    assert "model.norm.weight" not in found.by_tensor
    assert found.by_tensor["model.layers.0.mlp.up_proj.weight"]["weight"] != [0.0]
    assert not any(one.requires_grad for one in live.model.parameters())


def test_what_cannot_be_recorded_is_refused(bunch: Bunch) -> None:
    wanted = adapters(bunch)
    live = LiveModel(loaded(bunch.base), opened(wanted))
    with pytest.raises(ValueError, match="call take_recipe first"), live.recording_gradients({"weight"}):
        pass
    live.take_recipe(wanted)
    with (
        pytest.raises(ConfigError, match=r"'normalize'.* 'task_arithmetic' is not .*: weight, lambda_\."),
        live.recording_gradients({"normalize"}),
    ):
        pass
    with live.recording_gradients({"weight"}), pytest.raises(ValueError, match="leave that context first"):
        live.take_recipe(wanted)
    live.take_model(live.models.sources[str(bunch.base)])
    with pytest.raises(ValueError, match="call take_recipe first"), live.recording_gradients({"weight"}):
        pass


def test_gradients_of_methods_that_take_their_models_roles(bunch: Bunch) -> None:
    """The roles, whole numbers, stay what they are beside the coefficients that gradients are taken of."""
    own = ({"weight": 0.6}, {"safety": 1}, {"safety": -1})
    entries = tuple(ModelEntry(model=name, parameters=more) for name, more in zip(experts_of(bunch), own, strict=True))
    wanted = Recipe(merge_method="resta", base_model=str(bunch.base), models=entries, parameters={"gamma": 0.5})
    live = holding(bunch, wanted)
    with live.recording_gradients({"weight", "gamma"}) as found:
        loss_of(live.model).backward()
    first, *others = found.by_tensor[SOME[0]]["weight"]  # type: ignore[misc]
    assert first != 0
    assert others == [0.0, 0.0], "of the models with a role the weight is not used"
    assert found.by_tensor[SOME[0]]["gamma"] != 0


def test_gradients_of_a_merge_on_a_device_are_the_same(bunch: Bunch) -> None:
    """Blocks are read ahead in a thread of their own, and the gradient may be elsewhere."""
    wanted = three("ties", bunch, density=0.5)
    tensor, ahead = (
        MergePlan(wanted, opened(wanted), read=read).tensors[SOME[0]]
        for read in (mapped_rows, DeviceRows(torch.device("cpu")))
    )
    gradient = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
    found = tensor.coefficient_gradients(gradient, {"weight", "lambda_"})
    assert ahead.coefficient_gradients(gradient, {"weight", "lambda_"}) == found


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "consensus", "pcb"])
def test_recording_leaves_no_trace_in_the_next_recipe(bunch: Bunch, name: str) -> None:
    """The hooks work on what the live model keeps for the next merge."""
    wanted, other = three(name, bunch, **{"lambda": 0.9}), three(name, bunch, **{"lambda": 0.3})
    live = LiveModel(loaded(bunch.base), opened(wanted))
    live.take_recipe(wanted)
    fresh = [parameter.detach().clone() for parameter in live.model.parameters()]
    with live.recording_gradients({"weight", "lambda_"}):
        loss_of(live.model).backward()
    live.take_recipe(other)
    live.take_recipe(wanted)
    assert all(torch.equal(*pair) for pair in zip(live.model.parameters(), fresh, strict=True))
