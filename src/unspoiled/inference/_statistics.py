"""Collect what data-aware merge methods need to know of an expert's data, one exchange at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unspoiled.checkpoints import ModelRef, ModelSource, open_model
from unspoiled.errors import ConfigError, DataError
from unspoiled.files import read_jsonl, replaced_when_whole
from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._load import load_chat_template, load_model
from unspoiled.inference._protocols import Exchange, Progress, Prompt, silent
from unspoiled.merging import LiveModel, Models, statistic_name

StatisticsKind: TypeAlias = Literal["fisher", "input_gram", "importance"]


def collect_fisher(
    model: Any, template: ChatTemplate, exchanges: Sequence[Exchange], *, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher information, float32, by the parameters' names.

    The mean over the exchanges of (∂ log p(response | prompt) / ∂θ)². With responses that the model sampled itself it
    estimates the Fisher information proper, as the paper has it; with given ones, the empirical one.

    Args:
        model: A transformers causal language model, in evaluation mode, in float32.
        template: Its tokenizer and chat template.
        exchanges: The data.
        progress: Called with (exchanges done, exchanges in all).

    Source: Matena & Raffel, arXiv 2111.09832, Section 3.
    """
    return _mean_over_gradients(model, template, exchanges, lambda _, gradient: gradient.square(), progress)


def collect_importance(
    model: Any, template: ChatTemplate, exchanges: Sequence[Exchange], *, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return SNIP's score of every weight, the mean over the exchanges of |θ ∂ log p(response | prompt) / ∂θ|.

    Args:
        model: As in `collect_fisher`.
        template: Its tokenizer and chat template.
        exchanges: The data.
        progress: Called with (exchanges done, exchanges in all).

    Source: Lee et al., SNIP, arXiv 1810.02340; as in Ma et al., LED-Merging, arXiv 2502.16770.
    """
    return _mean_over_gradients(model, template, exchanges, lambda weight, g: (weight * g).abs(), progress)


def _mean_over_gradients(
    model: Any,
    template: ChatTemplate,
    exchanges: Sequence[Exchange],
    score: Callable[[Tensor, Tensor], Tensor],
    progress: Progress,
) -> dict[str, Tensor]:
    """Return the mean of `score(weight, gradient)`; each gradient is used and freed as soon as it is whole."""
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in parameters.items()}

    def use(name: str) -> Callable[[Tensor], None]:
        def add(weight: Tensor) -> None:
            assert weight.grad is not None
            totals[name].add_(score(weight.detach().float(), weight.grad.float()))
            weight.grad = None

        return add

    hooks = [weight.register_post_accumulate_grad_hook(use(name)) for name, weight in parameters.items()]
    try:
        for done, exchange in enumerate(exchanges, start=1):
            with torch.enable_grad():
                torch.autograd.backward(_negative_log_likelihood(model, template, exchange))
            progress(done, len(exchanges))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.div_(len(exchanges)) for name, total in totals.items()}


def _negative_log_likelihood(model: Any, template: ChatTemplate, exchange: Exchange) -> Tensor:
    prompt, response = template.encode(exchange)
    ids = torch.tensor([[*prompt, *response[:-1]]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
    targets = torch.tensor(response, device=model.device)
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


@torch.no_grad()
def collect_input_grams(
    model: Any, template: ChatTemplate, exchanges: Sequence[Exchange], *, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the mean of x xᵀ over the inputs x of every linear layer, float32 [in, in], by its weight's name.

    All positions of an exchange count alike, those of the prompt too. A head that is tied to the input embedding is
    left out, for its weight is an embedding.

    Args:
        model: As in `collect_fisher`.
        template: Its tokenizer and chat template.
        exchanges: The data.
        progress: Called with (exchanges done, exchanges in all).

    Source: Jin et al., RegMean, arXiv 2212.09849, Section 3.
    """
    totals: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def use(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0].reshape(-1, args[0].shape[-1]).float()
            total = totals.setdefault(name, inputs.new_zeros(inputs.shape[1], inputs.shape[1]))
            total.addmm_(inputs.T, inputs)
            rows[name] = rows.get(name, 0) + len(inputs)

        return add

    embedding = model.get_input_embeddings().weight
    layers = {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.weight is not embedding
    }
    hooks = [layer.register_forward_pre_hook(use(name)) for name, layer in layers.items()]
    try:
        for done, exchange in enumerate(exchanges, start=1):
            prompt, response = template.encode(exchange)
            model(input_ids=torch.tensor([[*prompt, *response[:-1]]], device=model.device), use_cache=False)
            progress(done, len(exchanges))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.div_(rows[name]) for name, total in totals.items()}


def write_model_statistics(
    model: str,
    data: Path,
    out: Path,
    *,
    kind: StatisticsKind,
    base: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> None:
    """Collect the statistics of a model on the rows of a JSONL file, and write them to a safetensors file.

    Args:
        model: The model, as a recipe names it; relative paths are relative to the working directory.
        data: Rows `{"prompt": TEXT, "response": TEXT}`; other keys are left alone.
        out: The file to write.
        kind: What to collect.
        base: The base that the expert was tuned from, whose importance on the same rows LED needs too; for `importance`
            alone, and required for it.
        device: A torch device.
        progress: Called with (exchanges done, exchanges in all) of each pass.

    Raises:
        ConfigError: `base` is missing, or given for another kind.
        DataError: A row has no prompt or response.
        CheckpointError: The model can't be loaded, or has no chat template.
    """
    if (base is not None) != (kind == "importance"):
        raise ConfigError(
            f"statistics of kind {kind!r}: "
            + ("name the base too (--base), whose weights are scored as well." if base is None else "leave out --base.")
        )
    exchanges = read_exchanges(data)
    source = open_model(ModelRef.parse(model, relative_to=Path.cwd()))
    template = load_chat_template(source.tokenizer_directory)
    collect = {"fisher": collect_fisher, "input_gram": collect_input_grams, "importance": collect_importance}[kind]
    found: dict[str, dict[str, Tensor]] = {}
    found[kind] = collect(_loaded(source, device), template, exchanges, progress=progress)
    if base is not None:
        original = open_model(ModelRef.parse(base, relative_to=Path.cwd()))
        found["base_importance"] = collect(_loaded(original, device), template, exchanges, progress=progress)
    tensors = {
        statistic_name(name, tensor): values.cpu().contiguous()
        for name, by_tensor in found.items()
        for tensor, values in by_tensor.items()
    }
    with replaced_when_whole(out) as temporary:  # the tensors are not copied in memory
        save_file(tensors, temporary, {"exchanges": str(len(exchanges))})


def read_exchanges(data: Path) -> list[Exchange]:
    """Read rows `{"prompt": TEXT, "response": TEXT}`.

    Raises:
        DataError: The file can't be read, is empty, or a row lacks one of the two.
    """
    try:
        rows = read_jsonl(data)
    except OSError as error:
        raise DataError(f"{data}: can't be read ({error.strerror}). Correct the path.") from error
    for number, row in enumerate(rows, start=1):
        for key in ("prompt", "response"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise DataError(f"{data}: row {number} has no {key!r}: each needs a prompt and a response, as text.")
    if not rows:
        raise DataError(f"{data}: has no rows. Statistics need some prompts with their responses.")
    return [Exchange(Prompt(row["prompt"]), row["response"]) for row in rows]


def _loaded(source: ModelSource, device: str) -> Any:
    """Return the model with its adapter's weights added, in float32."""
    module = load_model(source.directory, dtype=torch.float32, device=device)
    LiveModel(module, Models({str(source.ref): source})).take_model(source)
    return module
