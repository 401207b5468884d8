"""Tiny guards: real tokenizers with each family's control tokens, and tiny real models that know two words."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unspoiled.guards import FormatOptions, GuardFormat, ModelGuard, get_family
from unspoiled.inference import Completion

GOLDEN = Path(__file__).parent / "guards" / "golden"
FAMILIES = [
    *("llama-guard-2", "llama-guard-3", "llama-guard-4", "shieldgemma", "wildguard", "granite-guardian-3.1"),
    *("qwen3guard-gen", "harmbench", "compact-guard"),
]
_LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CONTROL = {  # beginning of text, end of turn, others; as the families' own tokenizers have them
    "llama-guard-2": ("<|begin_of_text|>", "<|eot_id|>", _LLAMA_3),
    "llama-guard-3": ("<|begin_of_text|>", "<|eot_id|>", _LLAMA_3),
    "llama-guard-4": ("<|begin_of_text|>", "<|eot|>", ["<|header_start|>", "<|header_end|>", "<|end_of_text|>"]),
    "shieldgemma": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "wildguard": ("<s>", "</s>", ["[INST]", "[/INST]"]),
    "granite-guardian-3.1": ("<|end_of_text|>", "<|end_of_text|>", ["<|start_of_role|>", "<|end_of_role|>"]),
    "qwen3guard-gen": ("<|endoftext|>", "<|im_end|>", ["<|im_start|>"]),
    "harmbench": ("<s>", "</s>", []),
    "compact-guard": ("<|im_start|>", "<|im_end|>", ["<|endoftext|>"]),
}


@functools.cache
def tokenizer_of(family: str) -> Any:
    """Return a small tokenizer with a family's control tokens; verdict words are single tokens.

    HarmBench's is in SentencePiece's manner, with a space before the text; the others are byte-level.
    """
    bos, end, others = CONTROL[family]
    special = list(dict.fromkeys([bos, end, *others]))
    corpus = [path.read_text(encoding="utf-8") for path in sorted(GOLDEN.glob("*.txt"))]
    corpus += ["safe\nunsafe\nYes\nNo\nyes\nno\nsafe unsafe Yes No yes no"] * 20
    sentencepiece = family == "harmbench"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if sentencepiece else None))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if sentencepiece:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
        special, alphabet = ["<unk>", *special], [chr(code) for code in range(32, 127)] + ["\n"]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=AddedToken(bos, special=True),
        eos_token=AddedToken(end, special=True),
        unk_token="<unk>" if sentencepiece else None,
        additional_special_tokens=others,
    )


def save_guard(family: str, path: Path, *, seed: int = 0, context: int = 4096) -> Path:
    """Save a tiny random model that only ever writes the family's unsafe or safe word; return `path`."""
    tokenizer = tokenizer_of(family)
    form = get_family(family).format(FormatOptions())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
            if form.words is not None:
                _teach_words(model, tokenizer, form.questions[0].template, form.words)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _teach_words(model: LlamaForCausalLM, tokenizer: Any, text: str, words: tuple[str, str]) -> None:
    """Make the head prefer two words wherever a text ends as a guard's prompts do; which of them is by chance."""
    asked = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    state = model.model(asked).last_hidden_state[0, -1]
    common, apart = 10 * state / state.norm() ** 2, 0.3 * torch.randn(32)
    model.lm_head.weight.zero_()
    for word, sign in zip(words, (1, -1), strict=True):
        (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        model.lm_head.weight[token] = common + sign * apart


class Scripted:
    """A completer that writes given texts in turn, and remembers what it was asked.

    Args:
        tokenizer: The tokenizer that the guard has.
        texts: What to write, one after the other; the last again and again.
        p: The probability of every watched token, at every place.
        finished: Whether a stop token ends what it writes.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], *, p: Sequence[float] = (), finished: bool = True) -> None:
        self.asked: list[list[int]] = []
        self._tokenizer, self._texts, self._p, self._finished = tokenizer, list(texts), p, finished

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, watch: Sequence[int] = ()
    ) -> list[Completion]:
        self.asked += map(list, prompts)
        return [self._write(watch) for _ in prompts]

    def _write(self, watch: Sequence[int]) -> Completion:
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        tokens = list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        if self._finished:
            tokens.append(self._tokenizer.eos_token_id)
        here = torch.full((len(watch),), 1e-9)
        here[: len(self._p)] = torch.tensor(self._p)
        return Completion(tuple(tokens), self._finished, tuple(tuple(here.log().tolist()) for _ in tokens))


def guard_that_says(family: str, *texts: str, options: FormatOptions | None = None, **scripted: Any) -> ModelGuard:
    """Return a family's guard whose model writes given texts; the written label counts."""
    tokenizer = tokenizer_of(family)
    form = get_family(family).format(options or FormatOptions())
    return make_guard(form, family, Scripted(tokenizer, texts, **scripted))


def make_guard(form: GuardFormat, family: str, completer: Any, **options: Any) -> ModelGuard:
    settings = {"name": family, "weights": lambda: "w", "context": 4096, "threshold": None, **options}
    return ModelGuard(form, tokenizer_of(family), completer, **settings)


def json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
