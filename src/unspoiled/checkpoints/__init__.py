"""Checkpoints on disk: names, lazy reading, LoRA adapters, streamed writing, tokenizers, preflight."""

from unspoiled.checkpoints._adapter import Adapter, LowRankDelta, open_adapter
from unspoiled.checkpoints._finish import (
    RECIPE_NAME,
    FileRecord,
    Manifest,
    checkpoint_hash,
    config_of_layers,
    finish_checkpoint,
    merged_config,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from unspoiled.checkpoints._finite import require_finite
from unspoiled.checkpoints._header import TensorInfo, read_header
from unspoiled.checkpoints._license import UNLISTED, declared_license
from unspoiled.checkpoints._preflight import (
    SMALL_FILES_BYTES,
    PreflightReport,
    available_memory,
    preflight,
    tensor_problems,
    tokenizer_findings,
)
from unspoiled.checkpoints._reader import Checkpoint, open_checkpoint
from unspoiled.checkpoints._reference import ModelRef, locate
from unspoiled.checkpoints._source import ModelSource, OutputLayout, open_model, output_layout
from unspoiled.checkpoints._templates import BUILT_IN_TEMPLATES, choose_chat_template
from unspoiled.checkpoints._tokenizer import (
    TOKENIZER_FILES,
    chat_template,
    compare_tokenizers,
    hash_tokenizer,
    tokenizer_signature,
)
from unspoiled.checkpoints._tying import embedding_names, is_input_side, tied_names
from unspoiled.checkpoints._vocabulary import FromModel, FromToken, TokenRule, Vocabulary, Zero, write_tokenizer
from unspoiled.checkpoints._vocabulary_merge import merge_vocabularies
from unspoiled.checkpoints._writer import CheckpointWriter

__all__ = [
    "BUILT_IN_TEMPLATES",
    "RECIPE_NAME",
    "SMALL_FILES_BYTES",
    "TOKENIZER_FILES",
    "UNLISTED",
    "Adapter",
    "Checkpoint",
    "CheckpointWriter",
    "FileRecord",
    "FromModel",
    "FromToken",
    "LowRankDelta",
    "Manifest",
    "ModelRef",
    "ModelSource",
    "OutputLayout",
    "PreflightReport",
    "TensorInfo",
    "TokenRule",
    "Vocabulary",
    "Zero",
    "available_memory",
    "chat_template",
    "checkpoint_hash",
    "choose_chat_template",
    "compare_tokenizers",
    "config_of_layers",
    "declared_license",
    "embedding_names",
    "finish_checkpoint",
    "hash_tokenizer",
    "is_input_side",
    "locate",
    "merge_vocabularies",
    "merged_config",
    "open_adapter",
    "open_checkpoint",
    "open_model",
    "output_layout",
    "preflight",
    "read_header",
    "read_manifest",
    "require_finite",
    "tensor_problems",
    "tied_names",
    "tokenizer_findings",
    "tokenizer_signature",
    "verify_manifest",
    "write_manifest",
    "write_tokenizer",
]
