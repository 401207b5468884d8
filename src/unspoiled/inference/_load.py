"""Load a tokenizer or an empty-handed model from a local checkpoint directory, never running its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unspoiled.checkpoints import chat_template
from unspoiled.errors import CheckpointError
from unspoiled.inference._chat import ChatTemplate


def load_model(directory: Path, *, dtype: torch.dtype, device: str = "cpu") -> Any:
    """Return the causal language model of a checkpoint directory, in evaluation mode.

    Args:
        directory: A local checkpoint with safetensors weights.
        dtype: The dtype to hold the weights in.
        device: A torch device.

    Raises:
        CheckpointError: transformers can't build or fill the model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"transformers can't load the model in {str(directory)!r}: {error}") from error
    return model.to(device).eval()


def load_generation_config(template: Path, model: Path) -> Any:
    """Return the generation config of a model under a chat template, as a merge to disk writes it.

    The tokens that end a turn belong to the template: it is the generation config beside it, else the model's own, else
    what the model's config says.

    Args:
        template: The directory of the tokenizer and the chat template.
        model: The model's directory.

    Raises:
        CheckpointError: transformers can't read it.
    """
    from transformers import AutoConfig, GenerationConfig

    own = next((folder for folder in (template, model) if (folder / "generation_config.json").exists()), None)
    try:
        if own is not None:
            return GenerationConfig.from_pretrained(own, local_files_only=True)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False, local_files_only=True)
        return GenerationConfig.from_model_config(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"transformers can't read the generation config in {str(own or model)!r}: {error}"
        ) from error


def load_chat_template(directory: Path, *, template: str | None = None) -> ChatTemplate:
    """Return the tokenizer of a checkpoint directory with its chat template.

    Args:
        directory: A local directory with tokenizer files.
        template: Jinja text that replaces the tokenizer's own chat template.

    Raises:
        CheckpointError: There is no tokenizer, or no chat template.
    """
    tokenizer = load_tokenizer(directory)
    if template is None and not tokenizer.chat_template:
        template = chat_template(directory)  # in chat_template.json, where transformers' processors alone look
    if template is not None:
        tokenizer.chat_template = template
    return ChatTemplate(tokenizer)


def load_tokenizer(directory: Path) -> Any:
    """Return the tokenizer of a checkpoint directory.

    Args:
        directory: A local directory with tokenizer files.

    Raises:
        CheckpointError: There is no tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"transformers can't load the tokenizer in {str(directory)!r}: {error}") from error
