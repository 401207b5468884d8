"""Merge in memory: one model, re-merged in place for every trial, nothing written or loaded between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from unspoiled.checkpoints import ModelSource, require_finite
from unspoiled.config import Recipe
from unspoiled.errors import PreflightError
from unspoiled.merging._blocks import PlannedTensor
from unspoiled.merging._device import DeviceRows, full_float32
from unspoiled.merging._gradients import CoefficientGradients, require_differentiable, zero_gradients
from unspoiled.merging._kept import KeptWork, Mark, default_memory, mark_of
from unspoiled.merging._operands import AdaptedTensor
from unspoiled.merging._plan import MergePlan, Models
from unspoiled.merging._rows import mapped_rows

T = TypeVar("T")


class LiveModel:
    """One model in memory that takes on the weights of any recipe, or of any of its inputs.

    Tensors whose inputs and coefficients are those of the last recipe are left alone, and what doesn't depend on the
    coefficients that moved (thresholds, masks, inner products, kept entries) is kept from recipe to recipe. The weights
    are those that `merge_to_directory` would write, cast to the dtype of the model in memory.

    The merge is done where the module's parameters are: on the CPU by as many threads as torch uses, one tensor each.

    Args:
        model: A module of the models' architecture; its parameters are overwritten.
        models: The opened models that the recipes name, which stay as they are.
        prepared_memory: How many bytes to keep for the next recipes, beside the module and the checkpoints; by default
            a quarter of what is free, of the CUDA device or the system. With less, trials take longer.

    Raises:
        PreflightError: A checkpoint tensor has no parameter of its name in the module.
    """

    def __init__(self, model: nn.Module, models: Models, *, prepared_memory: int | None = None) -> None:
        self.model = model
        self.models = models
        _tie(model, models.output.tied)
        self._tensors = {
            **dict(model.named_buffers(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
        }
        strangers = sorted(models.output.shapes.keys() - self._tensors.keys())
        if strangers:
            raise PreflightError(
                f"{len(strangers)} checkpoint tensors have no parameter of their name in "
                f"{type(model).__name__}: {strangers[:3]}. The live engine can't search this architecture; "
                "merge it from a recipe with `unspoiled merge`."
            )
        device = next((tensor.device for tensor in self._tensors.values()), torch.device("cpu"))
        self._rows = DeviceRows(device) if device.type == "cuda" else None
        self._kept = KeptWork(default_memory(device) if prepared_memory is None else prepared_memory)
        self._holds: dict[str, tuple[Mark, int]] = {}
        self._plan: MergePlan | None = None  # of the recipe that the model holds
        self._recording = False

    @torch.no_grad()
    def take_recipe(self, recipe: Recipe) -> None:
        """Merge `recipe` into the model in place."""
        self._require_not_recording()
        self._plan = None
        plan = MergePlan(recipe, self.models, read=self._rows or mapped_rows)
        with full_float32():
            self._each(plan.tensors.values(), self._take_tensor)
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
                    hook = self._recorder(tensor, wanted, found)
                    parameter.requires_grad_()
                    hooks.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
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

        def take(name: str) -> None:
            mark = _stored(source, name) if source.delta(name) is None else None
            if not self._has(name, mark):
                weights = _dense_weights(source, name)
                require_finite(weights, model=str(source.ref), name=name)
                self._put(name, [weights], mark)

        self._each(self.models.output.shapes, take)

    @property
    def kept_bytes(self) -> int:
        """How much memory is kept for the next recipes."""
        return self._kept.nbytes

    def _require_not_recording(self) -> None:
        """Refuse what would leave gradients of one recipe's weights to another's coefficients."""
        if self._recording:
            raise ValueError(
                "gradients are being recorded of the recipe that the model holds: leave that context first"
            )

    def _recorder(
        self, tensor: PlannedTensor, wanted: Collection[str], found: CoefficientGradients
    ) -> Callable[[Tensor], None]:
        """Return a hook that turns a parameter's gradient into the coefficients'."""

        def record(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            with full_float32():
                found.add(tensor.name, self._kept.coefficient_gradients(tensor, gradient, wanted))

        return record

    def _take_tensor(self, tensor: PlannedTensor) -> None:
        source = tensor.base or tensor.inputs[0]
        mark = _stored(source.source, source.name) if tensor.copied else mark_of(tensor)
        if self._has(tensor.name, mark):
            return
        if tensor.copied:
            self._kept.forget(tensor.name)
            self._put(tensor.name, [tensor.merged()], mark)
        else:
            self._put(tensor.name, self._kept.merged(tensor), mark)

    def _has(self, name: str, mark: Mark | None) -> bool:
        """Tell whether the module's tensor still holds what the mark stands for."""
        return mark is not None and self._holds.get(name) == (mark, self._tensors[name]._version)

    def _put(self, name: str, parts: Iterable[Tensor], mark: Mark | None) -> None:
        """Overwrite a tensor of the module with parts of it, in order, in any float dtype."""
        self._holds.pop(name, None)
        target = self._tensors[name]
        if target.is_contiguous():
            flat, done = target.detach().view(-1), 0
            for part in parts:
                flat[done : done + part.numel()].copy_(part.reshape(-1))
                done += part.numel()
        else:
            flat = torch.cat([part.reshape(-1) for part in parts])
            target.copy_(flat.view(target.shape))
            done = flat.numel()
        if done != target.numel():
            raise ValueError(f"{name!r}: the merge has {done} elements, the module's tensor {list(target.shape)}")
        if mark is not None:
            self._holds[name] = (mark, target._version)

    def _each(self, items: Iterable[T], work: Callable[[T], None]) -> None:
        """Do the work for each item: on the CPU in several threads, in each of which torch uses one.

        One operation at a time on several cores would round some products otherwise than `stream` does, and most
        tensors are too small for it.
        """
        threads = torch.get_num_threads() if self._rows is None else 1
        if threads == 1:
            for item in items:
                work(item)
            return
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for future in [pool.submit(torch.no_grad()(work), item) for item in items]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _stored(source: ModelSource, name: str) -> Mark:
    """Return the mark of a tensor that is read as it is stored."""
    return ("stored", str(source.directory), name)


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
