"""Short greedy answers of a model, and the base's own answers to harmless prompts as training targets."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from base_model import BASE
from prepare import DATA, Row, write
from transformers import AutoModelForCausalLM, AutoTokenizer

CACHE = DATA / "train" / "base_answers.jsonl"


def quick_dtype() -> torch.dtype:
    """Return bf16, or float32 on a CPU that emulates bf16 and is ten times slower at it."""
    return torch.bfloat16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else torch.float32


def load_base(attention: str = "sdpa") -> tuple[Any, Any]:
    """Return the base model (in ``quick_dtype``) and its tokenizer, which pads on the left.

    Raises:
        SystemExit: when prepare.py has not made it yet.
    """
    if not BASE.exists():
        raise SystemExit(f"{BASE} is not there. Run `python {Path(__file__).with_name('prepare.py')}` first.")
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=quick_dtype(), attn_implementation=attention)
    return model.eval(), AutoTokenizer.from_pretrained(BASE, padding_side="left")


def messages(row: Row) -> list[dict[str, str]]:
    """Return the row's prompt as chat messages, its system message first if it has one."""
    system = [{"role": "system", "content": row["system"]}] if "system" in row else []
    return [*system, {"role": "user", "content": row["prompt"]}]


def prompt_ids(tokenizer: Any, row: Row) -> list[int]:
    """Return the tokens of the prompt under the chat template, up to where the assistant begins."""
    ids: list[int] = tokenizer.apply_chat_template(messages(row), add_generation_prompt=True, return_dict=False)
    return ids


@torch.no_grad()
def respond(
    model: Any, tokenizer: Any, rows: list[Row], *, tokens: int = 32, batch: int = 48, prefix: str = "",
    temperature: float = 0.0,
) -> list[str]:  # fmt: skip
    """Answer the rows' prompts in batches of like length; each reply begins with ``prefix``."""
    forced = tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
    prompts = [prompt_ids(tokenizer, row) + forced for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
    replies = [""] * len(rows)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        padded = tokenizer.pad({"input_ids": [prompts[index] for index in chosen]}, return_tensors="pt")
        sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        output = model.generate(**padded, max_new_tokens=tokens, do_sample=temperature > 0, **sampling)
        texts = tokenizer.batch_decode(output[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            replies[index] = prefix + text.strip()
    return replies


def degenerate(prompt: str, response: str) -> bool:
    """Say whether a response is empty, repeats the prompt, or goes round in a loop."""
    words = re.findall(r"\w+", response.lower())
    if len(words) < 2:
        return True
    triples = list(zip(words, words[1:], words[2:], strict=False))
    echo = prompt.lower().strip(" ?.") in response.lower()
    return echo or (len(triples) > 8 and len(set(triples)) < 0.6 * len(triples))


def sentence(text: str) -> str:
    """Return the response's beginning up to the last sentence that is complete, or nothing."""
    found = re.match(r".*[a-z)\"'][.!?](?=\s|$)", " ".join(text.split()))
    return found.group() if found else ""


def answered(rows: list[Row], wanted: list[Row]) -> list[Row]:
    """Give each row without a response the base's own answer; drop rows whose answer is of no use.

    ``wanted`` are all prompts that any expert needs: they are answered once and kept in ``CACHE``.
    """
    known: dict[str, str] = {}
    if CACHE.exists():
        lines = CACHE.read_text(encoding="utf-8").splitlines()
        known = {row["prompt"]: row["response"] for row in map(json.loads, lines)}
    missing = [row for row in wanted if row["prompt"] not in known]
    if missing:
        model, tokenizer = load_base()
        replies = respond(model, tokenizer, missing, tokens=36, batch=64)
        for row, reply in zip(missing, replies, strict=True):
            text = sentence(reply)
            known[row["prompt"]] = "" if degenerate(row["prompt"], text) else text
        write(CACHE, [{"prompt": prompt, "response": text} for prompt, text in known.items()])
    full = [row if "response" in row else {**row, "response": known.get(row["prompt"], "")} for row in rows]
    return [row for row in full if row["response"]]
