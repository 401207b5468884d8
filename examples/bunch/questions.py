"""Measure the questioner: ``python examples/bunch/questions.py [COUNT]``.

Asks for COUNT unsafe questions as ``unspoiled generate`` does, and prints how many replies were malformed or
repeated an earlier one, and how many questions nearly repeat a training prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from unspoiled.config import read_run_config
from unspoiled.data import Curator, Writer, ask_unsafe_questions
from unspoiled.pipeline import open_bunch

HERE = Path(__file__).parent


def main(count: int) -> None:
    """Generate, count, print."""
    bunch = open_bunch(read_run_config(HERE / "run.yaml"))
    writer = Writer(bunch.open_asker(bunch.questioner), bunch.questioner.name, seed=0, max_new_tokens=64)
    names = [category.name for category in bunch.categories]
    asked = ask_unsafe_questions(writer, Curator({}), bunch.templates, categories=names, count=count)
    lines = (HERE / "data/train/questioner.jsonl").read_text(encoding="utf-8").splitlines()
    learnt = Curator({"training": [json.loads(json.loads(line)["response"])["question"] for line in lines]})
    near = len(learnt.curate(asked.questions, "safety").dropped)
    print(json.dumps({**asked.tally.total, "near a training prompt": near}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 140)
