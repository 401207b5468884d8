"""Merge in memory: one model, re-merged in place for every trial, nothing written or loaded between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unspoiled.checkpoints import ModelSource, require_finite
from unspoiled.config import Recipe
from unspoiled.errors import PreflightError
from unspoiled.merging._blocks import PlannedTensor
from unspoiled.merging._gradients import CoefficientGradients, require_differentiable, zero_gradients
from unspoiled.merging._operands import AdaptedTensor
from unspoiled.merging._plan import MergePlan, Models


class LiveModel:
    """One model in memory that takes on the weights of any recipe, or of any of its inputs.

    Tensors that no input changes are left alone from one recipe to the next. The weights are those that
    `merge_to_directory` would write, cast to the dtype of the model in memory.

    Args:
        model: A module of the models' architecture; its parameters are overwritten.
        models: The opened models that the recipes name.

    Raises:
        PreflightError: A checkpoint tensor has no parameter of its name in the module.
    """

    def __init__(self, model: nn.Module, models: Models) -> None:
        self.model = model
        self.models = models
        _tie(model, models.output.tied)
        self._tensors = {
            **dict(model.named_buffers(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
        }
        self._holds: dict[str, object] = {}
        self._plan: MergePlan | None = None  # of the recipe that the model holds
        self._recording = False
        strangers = sorted(models.output.shapes.keys() - self._tensors.keys())
        if strangers:
            raise PreflightError(
                f"{len(strangers)} checkpoint tensors have no parameter of their name in "
                f"{type(model).__name__}: {strangers[:3]}. The live engine can't search this architecture; "
                "merge it from a recipe with `unspoiled merge`."
            )

    @torch.no_grad()
    def take_recipe(self, recipe: Recipe) -> None:
        """Merge `recipe` into the model in place."""
        self._require_not_recording()
        self._plan = None
        plan = MergePlan(recipe, self.models)
        for name, tensor in plan.tensors.items():
            common = ("common", str(plan.reference.directory), name) if tensor.copied else None
            if common is None or self._holds.get(name) != common:
                self._tensors[name].copy_(tensor.merged())
            self._holds[name] = common
        self._plan = plan

    @contextmanager
    def recording_gradients(self, wanted: Collection[str]) -> Iterator[CoefficientGradients]:
        """Let backward passes give gradients of the coefficients of the recipe that the model holds.

        Within it, the parameters that the recipe merges require a gradient, and no others do. As soon as a backward
        pass has one of them, it is taken back through the method to the coefficients and let go of, so that at most
        one is alive. Several backward passes add up. Afterwards the parameters are as before.

            live.take_recipe(recipe)
            with live.recording_gradients({"weight"}) as found:
                loss(live.model).backward()

        Args:
            wanted: The coefficients, as the method names its arguments (`weight`, `lambda_`).

        Yields:
            The gradients so far; `by_tensor` has every merged tensor that is a parameter.

        Raises:
            ConfigError: The method has no such coefficient, or is not differentiable in it.
            ValueError: The model holds no recipe, or gradients are being recorded already.
        """
        self._require_not_recording()
        if self._plan is None:
            raise ValueError("the model holds no recipe to differentiate: call take_recipe first")
        require_differentiable(self._plan.method, wanted)
        held = {self._tensors[name]: tensor for name, tensor in self._plan.tensors.items()}  # once, if it is shared
        merged = {parameter: tensor for parameter, tensor in held.items() if isinstance(parameter, nn.Parameter)}
        found = CoefficientGradients(
            {tensor.name: zero_gradients(tensor.coefficients, wanted) for tensor in merged.values()}
        )
        before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in self.model.parameters()]
        hooks = []
        try:
            for parameter, _, _ in before:
                parameter.grad = None
                parameter.requires_grad_(False)
            for parameter, tensor in merged.items():
                if not tensor.copied:
                    hook = _recorder(tensor, wanted, found)
                    hooks.append(parameter.requires_grad_().register_post_accumulate_grad_hook(hook))
            self._recording = True
            yield found
        finally:
            self._recording = False
            for handle in hooks:
                handle.remove()
            for parameter, required, gradient in before:
                parameter.requires_grad_(required)
                parameter.grad = gradient

    @torch.no_grad()
    def take_model(self, source: ModelSource) -> None:
        """Put the weights of one model, with its adapter, into the model in place.

        Raises:
            CheckpointError: A tensor has NaN or Inf, which would pass for a model that answers nonsense.
        """
        self._require_not_recording()
        self._plan = None
        for name in self.models.output.shapes:
            common = ("common", str(source.directory), name) if source.delta(name) is None else None
            if common is None or self._holds.get(name) != common:
                weights = _dense_weights(source, name)
                require_finite(weights, model=str(source.ref), name=name)
                self._tensors[name].copy_(weights)
            self._holds[name] = common

    def _require_not_recording(self) -> None:
        """Refuse what would leave gradients of one recipe's weights to another's coefficients."""
        if self._recording:
            raise ValueError(
                "gradients are being recorded of the recipe that the model holds: leave that context first"
            )


def _recorder(tensor: PlannedTensor, wanted: Collection[str], found: CoefficientGradients) -> Callable[[Tensor], None]:
    """Return a hook that turns a parameter's gradient into the coefficients'."""

    def record(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        found.add(tensor.name, tensor.coefficient_gradients(gradient, wanted))

    return record


def _dense_weights(source: ModelSource, name: str) -> Tensor:
    """Return one model's own tensor, its adapter added in float32 (in storage dtype where there is none)."""
    weights, delta = source.read(name), source.delta(name)
    return weights if delta is None else AdaptedTensor(weights, delta).dense()


def _tie(model: nn.Module, tied: bool) -> None:
    """Make the output head and the input embedding one parameter, or two, as the merge has it.

    One untied model of a bunch unties the merge. A tied one may come with a stored copy of its head, which
    would otherwise keep its first values for ever.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is None:
        return
    if tied:
        head.weight = embedding.weight
    elif head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
