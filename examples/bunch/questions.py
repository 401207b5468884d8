"""Measure the questioner: ``python examples/bunch/questions.py [COUNT]``.

Asks for COUNT unsafe questions, over all categories in turn, as the tool does, and prints how many replies
are valid JSON, how many questions are unique, and how many repeat a training prompt.
"""

import json
import sys

import torch
from answers import load_base, respond
from measure import add_adapter
from prepare import DATA, NEAR, unlike
from unsafe import template


def question(reply: str) -> str:
    """Return the reply's question, or nothing when it is no such JSON object."""
    try:
        return str(json.loads(reply.strip())["question"]).strip()
    except (ValueError, KeyError, TypeError):
        return ""


def main(count: int) -> None:
    """Generate, count, print."""
    torch.manual_seed(0)
    model, tokenizer = load_base()
    add_adapter(model, "questioner", 1.0)
    model.to(torch.bfloat16)
    asked, categories = template("safety_question"), template("beavertails")
    rows = [
        {"system": asked["system"], "prompt": asked["user"].format(category=categories[n % len(categories)])}
        for n in range(count)
    ]
    prefix = asked["prefix"].format()
    replies = respond(model, tokenizer, rows, tokens=48, prefix=prefix, temperature=0.8)
    questions = [text for text in map(question, replies) if text]
    unique = sorted(set(questions))
    lines = (DATA / "train/questioner.jsonl").read_text(encoding="utf-8").splitlines()
    learnt = [{"prompt": question(json.loads(line)["response"])} for line in lines]
    new = unlike([{"prompt": text} for text in unique], learnt)
    print(f"asked {count}: valid JSON {len(questions)}, unique {len(unique)}")
    print(f"not near any training prompt (similarity under {NEAR}): {len(new)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 140)
