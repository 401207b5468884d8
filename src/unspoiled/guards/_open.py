"""Guards by name: the family's format around a model that is loaded when it is first asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unspoiled.checkpoints import ModelRef, ModelSource, hash_tokenizer, open_model
from unspoiled.config import ServedModel
from unspoiled.errors import CheckpointError, ConfigError
from unspoiled.files import hash_value
from unspoiled.guards._families import REFUSAL_RULES, get_family
from unspoiled.guards._family import Controversial, FormatOptions, GuardFamily
from unspoiled.guards._model_guard import ModelGuard
from unspoiled.guards._policy import POLICY, PolicyGuard, read_policy
from unspoiled.guards._protocol import Guard
from unspoiled.guards.refusal import RefusalRules
from unspoiled.inference import (
    BatchSize,
    Completion,
    OnSample,
    OpenAIGenerator,
    Prompt,
    Sample,
    ignored,
    load_tokenizer,
)

if TYPE_CHECKING:
    from unspoiled.inference import TransformersBackend

_PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class LazyBackend:
    """A transformers model that is loaded when it is first asked; a `Generator` and a `Completer`."""

    def __init__(self, load: Callable[[], TransformersBackend]) -> None:
        self._load = load

    @cached_property
    def _backend(self) -> TransformersBackend:
        return self._load()

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, watch: Sequence[int] = ()
    ) -> list[Completion]:
        """Return the greedy continuation of each prompt, in order; see `Completer.complete`."""
        return self._backend.complete(prompts, max_new_tokens=max_new_tokens, watch=watch)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_sample: OnSample = ignored,
    ) -> list[Sample]:
        """Return one sample per prompt, in order; see `Generator.generate`."""
        return self._backend.generate(
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            streams=streams,
            on_sample=on_sample,
        )


def open_guard(
    name: str,
    model: str | ServedModel | None = None,
    *,
    relative_to: Path | None = None,
    categories: Sequence[str] = (),
    threshold: float | None = None,
    controversial: Controversial = "unsafe",
    policy: Path | None = None,
    device: str = "cpu",
    dtype: str = "bfloat16",
    batch_size: BatchSize = 16,
) -> Guard:
    """Return the guard of a family's name; its weights are loaded at the first `judge`, everything else is checked now.

    Args:
        name: The family: see `all_families`.
        model: `PATH`, `HUB/ID[@REVISION]` or `BASE+ADAPTER`; for `policy` also a model on a server. Default: the
            family's hub id, if it has one. (A generator of your own: `PolicyGuard`.)
        relative_to: The directory that relative paths start from; None for the working directory.
        categories: Judge by these alone, in the family's codes or names. Default: the family's own.
        threshold: The p_unsafe from which a response is unsafe, from 0 to 1; None for the verdict that it writes.
        controversial: What qwen3guard-gen's middle level counts as.
        policy: The policy judge's text, as a file; default: the package's.
        device: A torch device.
        dtype: The weights' dtype in memory: `float32`, `bfloat16` or `float16`.
        batch_size: Most prompts at once; halved when memory runs out.

    Raises:
        ConfigError: An unknown family, or an option that the family doesn't have.
        CheckpointError: The model can't be opened, or isn't one of the family.
        ServerError: The `openai` package isn't installed, or the environment variable with the key isn't set.
    """
    family = get_family(name)
    _require_options(family, model, categories, threshold, controversial, policy)
    if family is REFUSAL_RULES:
        return RefusalRules()
    text = None if policy is None else read_policy(policy)
    if isinstance(model, ServedModel):
        called, where = f"{family.name}:{model.model}", hash_value([model.url, model.model])
        return PolicyGuard(OpenAIGenerator(model), name=called, weights=lambda: where, policy=text)
    named = model or family.default_model
    if named is None:
        raise ConfigError(f"guard {family.name!r} needs a model that follows instructions: name one.")
    source = open_model(ModelRef.parse(named, relative_to=relative_to))
    backend = LazyBackend(lambda: _load(source, family is POLICY, dtype=dtype, device=device, batch_size=batch_size))
    called = f"{family.name}:{ModelRef.parse(named).public_name}"
    if family is POLICY:
        return PolicyGuard(backend, name=called, weights=lambda: _weights(source), policy=text)
    form = family.format(FormatOptions(tuple(categories), controversial))
    return ModelGuard(
        form,
        load_tokenizer(source.tokenizer_directory),
        backend,
        name=called,
        weights=lambda: _weights(source),
        context=_context(source, family),
        threshold=threshold,
        advice=family.advice,
    )


def require_guard(
    name: str,
    model: str | ServedModel | None,
    *,
    categories: Sequence[str] = (),
    threshold: float | None = None,
    controversial: Controversial = "unsafe",
    policy: Path | None = None,
) -> None:
    """Check all of a guard that can be told without opening its model; arguments and errors as for `open_guard`."""
    family = get_family(name)
    _require_options(family, model, categories, threshold, controversial, policy)
    if isinstance(model, str):
        ModelRef.parse(model)
    elif model is None and family.default_model is None and family is not REFUSAL_RULES:
        raise ConfigError(f"guard {family.name!r} needs a model: name one.")
    if family.build is not None:
        form = family.format(FormatOptions(tuple(categories), controversial))
        if threshold is not None and form.words is None:
            raise ConfigError(
                f"guard {family.name!r} gives no probability for the threshold {threshold!r}: leave it out."
            )


def _require_options(
    family: GuardFamily,
    model: str | ServedModel | None,
    categories: Sequence[str],
    threshold: float | None,
    controversial: Controversial,
    policy: Path | None,
) -> None:
    """Refuse options that would be passed over in silence."""
    if family is REFUSAL_RULES and model is not None:
        raise ConfigError(f"guard {family.name!r} has no model: leave it out.")
    if family is not POLICY and policy is not None:
        raise ConfigError(f"guard {family.name!r} has no policy: leave {str(policy)!r} out, or choose 'policy'.")
    if family is not POLICY and isinstance(model, ServedModel):
        raise ConfigError(
            f"guard {family.name!r} needs a model of its own: one behind a server can only be a guard of the family "
            f"{POLICY.name}."
        )
    if controversial not in ("unsafe", "safe"):
        raise ConfigError(f"'controversial' is {controversial!r}: it is 'unsafe' or 'safe'.")
    if controversial != "unsafe" and family.name != "qwen3guard-gen":
        raise ConfigError(f"guard {family.name!r} has no controversial level: leave {controversial!r} out.")
    if family.build is None and categories:
        raise ConfigError(f"guard {family.name!r} has no category {categories[0]!r}: leave categories out.")
    if family.build is None and threshold is not None:
        raise ConfigError(f"guard {family.name!r} gives no probability for the threshold {threshold!r}: leave it out.")


def _weights(source: ModelSource) -> str:
    """Return a hash of a guard's weights and tokenizer, and so of what its verdicts depend on beside its template."""
    return hash_value([source.fingerprint(), hash_tokenizer(source.tokenizer_directory)])


def _context(source: ModelSource, family: GuardFamily) -> int:
    """Return the model's longest sequence, by its config."""
    config = source.checkpoint.config
    text = config.get("text_config")
    length = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    if not isinstance(length, int):
        raise CheckpointError(
            f"guard {family.name!r}: config.json of {str(source.directory)!r} has no max_position_embeddings "
            f"({length!r}). Check that the model is one of this family."
        )
    return length


def _load(source: ModelSource, chats: bool, *, dtype: str, device: str, batch_size: BatchSize) -> TransformersBackend:
    """Return the backend of a model, with its adapter if it has one.

    A guard's prompts come from its family's template and not from the tokenizer's chat template, which may be missing
    or take nothing but a conversation of its own kind: a plain one stands in.
    """
    import torch

    from unspoiled.inference import ChatTemplate, TransformersBackend, load_model
    from unspoiled.merging import LiveModel, Models

    tokenizer = load_tokenizer(source.tokenizer_directory)
    if not chats:
        tokenizer.chat_template = _PLAIN_TEMPLATE
    template = ChatTemplate(tokenizer)
    module = load_model(source.directory, dtype=getattr(torch, dtype), device=device)
    if source.adapter is not None:
        LiveModel(module, Models({str(source.ref): source})).take_model(source)
    return TransformersBackend(module, template, batch_size=batch_size)
