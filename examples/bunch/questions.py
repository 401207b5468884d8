"""Measure the questioner: ``python examples/bunch/questions.py [COUNT]``.

Asks for COUNT unsafe questions as ``unspoiled generate`` does, and prints how many replies were malformed or
repeated an earlier one, and how many questions nearly repeat a training prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from unspoiled.config import read_run_config
from unspoiled.data import PromptIndex, ask_unsafe_questions, read_taxonomy
from unspoiled.pipeline import open_bunch

HERE = Path(__file__).parent


def main(count: int) -> None:
    """Generate, count, print."""
    bunch = open_bunch(read_run_config(HERE / "run.yaml"))
    questioner = bunch.bunch_of(bunch.questioner).take_model(bunch.questioner)
    asked = ask_unsafe_questions(
        questioner, name="questioner", categories=read_taxonomy("beavertails"), count=count, seed=0
    )
    lines = (HERE / "data/train/questioner.jsonl").read_text(encoding="utf-8").splitlines()
    learnt = PromptIndex(json.loads(json.loads(line)["response"])["question"] for line in lines)
    near = sum(learnt.find(question.text) is not None for question in asked.questions)
    print(json.dumps({**asked.yields, "near a training prompt": near}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 140)
