"""Tiny models of many architectures, with random weights large enough that mistakes show, and rows to score.

from loss_models import MODELS, PACKED, ROWS, scored_alone
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers as hf
from torch import Tensor

VOCABULARY = 96
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MHA = {key: value for key, value in TEXT.items() if key not in ("num_key_value_heads", "head_dim")}
WINDOW = 24  # shorter than some of ROWS, longer than others


def _llava() -> Any:
    vision = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(vision_config=vision, text_config=hf.LlamaConfig(**TEXT), image_token_index=5)
    )


def _phi3_long() -> Any:
    """Turns positions by other angles once anything in the batch is longer than 40 tokens."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 40
    config = hf.Phi3Config(**TEXT, original_max_position_embeddings=40, rope_parameters=rope)
    return hf.Phi3ForCausalLM(config)


PACKED: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT)),
    "llama with biases": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, attention_bias=True, mlp_bias=True)),
    "llama with a tied head": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, tie_word_embeddings=True)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**TEXT, sliding_window=200)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_local_experts=4)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**TEXT)),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**TEXT, sliding_window=200)),
    "gemma3 with capped logits": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**TEXT, sliding_window=200, final_logit_softcapping=2.0)
    ),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**TEXT)),
    "phi3 with long positions": _phi3_long,
    "gpt-neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**MHA)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4)
    ),
    "granite": lambda: hf.GraniteForCausalLM(
        hf.GraniteConfig(
            **MHA, num_key_value_heads=2, logits_scaling=3.0, attention_multiplier=0.3, residual_multiplier=0.5
        )
    ),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**MHA, num_key_value_heads=2, logit_scale=0.3)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**MHA, num_key_value_heads=2)),
    "deepseek with values of a size of their own": lambda: hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(
            **MHA, num_key_value_heads=4, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
            v_head_dim=6, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2,
            moe_intermediate_size=16, first_k_dense_replace=1,
        )
    ),
    "llava": _llava,
}  # fmt: skip
"""Architectures whose rows are packed."""

WINDOWED: dict[str, Callable[[], Any]] = {
    "mistral with a window": lambda: hf.MistralForCausalLM(hf.MistralConfig(**TEXT, sliding_window=WINDOW)),
    "gemma3 with a window": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**TEXT, sliding_window=WINDOW)),
    "qwen2 with a window": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**TEXT, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2)
    ),
}
"""Architectures that see no further than `WINDOW` tokens back in some layers: longer rows are padded."""

PADDED: dict[str, Callable[[], Any]] = {
    "gemma2 with capped attention": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**TEXT, attn_logit_softcapping=2.0, final_logit_softcapping=2.0, sliding_window=200)
    ),
    "gpt-oss with sinks": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2, sliding_window=200)
    ),
    "bloom with biased attention": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4)
    ),
    "gpt-neo with attention of its own": lambda: hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=256,
            attention_types=[[["global", "local"], 1]], window_size=WINDOW,
        )
    ),
    "falcon with attention of its own": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    ),
    "opt with a decoder inside its body": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=256, word_embed_proj_dim=16,
        )
    ),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)
    ),
    "llama with eager attention": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, attn_implementation="eager")),
}  # fmt: skip
"""Architectures whose rows are padded."""

MODELS = PACKED | WINDOWED | PADDED


def made(name: str) -> Any:
    """Return a model of the architecture, in evaluation mode, float32."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(7)
        model = MODELS[name]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def _tokens(length: int, seed: int) -> tuple[int, ...]:
    stream = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(6, VOCABULARY, (length,), generator=stream).tolist())


_SYSTEM, _LONG, _ANSWER = _tokens(7, 0), _tokens(60, 1), _tokens(9, 2)
ROWS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    (_SYSTEM + _tokens(5, 3), _tokens(6, 4)),
    (_SYSTEM + _tokens(11, 5), (9,)),  # one token
    (_SYSTEM + _LONG, _tokens(12, 6)),
    (_SYSTEM + _LONG, _tokens(3, 7)),  # the same prompt again
    (_SYSTEM + _LONG[:4], _ANSWER),  # a prompt that another begins with
    (_SYSTEM + _tokens(8, 8), _ANSWER),
    (_SYSTEM + _tokens(8, 8), _ANSWER[:5] + _tokens(4, 9)),  # responses that begin alike
    (_SYSTEM + _tokens(8, 8), _ANSWER[:5]),  # a response that another begins with
    (_SYSTEM + _tokens(8, 8), _ANSWER),  # a duplicate
    (_tokens(3, 10), _tokens(2, 11)),  # nothing shared
    ((7,), (8,)),
    (_SYSTEM + _tokens(3, 12), _tokens(90, 13)),
]
"""Prompts and responses, as token ids."""


def losses_alone(model: Any, row: tuple[Sequence[int], Sequence[int]]) -> Tensor:
    """Return the cross-entropy of each response token from the definition: one sequence, all logits [tokens]."""
    prompt, response = row
    logits = model(torch.tensor([[*prompt, *response[:-1]]]), use_cache=False).logits[0, len(prompt) - 1 :]
    return torch.nn.functional.cross_entropy(logits.double(), torch.tensor(response), reduction="none")


@torch.no_grad()
def scored_alone(model: Any) -> list[float]:
    """Return the log-likelihood of each of `ROWS`."""
    return [-float(losses_alone(model, row).sum()) for row in ROWS]
