"""Models that write and score: the `Generator` and `Scorer` protocols and their backends."""

from unspoiled.inference._capacity import BatchSize
from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._contents import ContentTokenizer, mark
from unspoiled.inference._load import load_chat_template, load_model, load_tokenizer
from unspoiled.inference._protocols import (
    Completer,
    Completion,
    Exchange,
    Generator,
    OnSample,
    Progress,
    Prompt,
    ResponseScore,
    Sample,
    Scorer,
    counted,
    ignored,
    silent,
)
from unspoiled.inference._statistics import (
    StatisticsKind,
    collect_fisher,
    collect_importance,
    collect_input_grams,
    read_exchanges,
    write_model_statistics,
)
from unspoiled.inference.kept import KeptGenerator
from unspoiled.inference.kept_scores import KeptScorer
from unspoiled.inference.live import LiveBunch
from unspoiled.inference.openai import OpenAIGenerator
from unspoiled.inference.transformers import TransformersBackend, mean_cross_entropy
from unspoiled.inference.vllm import VLLMGenerator, open_vllm

__all__ = [
    "BatchSize",
    "ChatTemplate",
    "Completer",
    "Completion",
    "ContentTokenizer",
    "Exchange",
    "Generator",
    "KeptGenerator",
    "KeptScorer",
    "LiveBunch",
    "OnSample",
    "OpenAIGenerator",
    "Progress",
    "Prompt",
    "ResponseScore",
    "Sample",
    "Scorer",
    "StatisticsKind",
    "TransformersBackend",
    "VLLMGenerator",
    "collect_fisher",
    "collect_importance",
    "collect_input_grams",
    "counted",
    "ignored",
    "load_chat_template",
    "load_model",
    "load_tokenizer",
    "mark",
    "mean_cross_entropy",
    "open_vllm",
    "read_exchanges",
    "silent",
    "write_model_statistics",
]
