"""How likely the demo's base holds real answers and spoiled ones: `python benchmarks/gibberish.py RUN`.

RUN is a run of `examples/bunch/run.yaml`. Its experts' answers are scored as the base's own, in nats per token: as they
are, with their words in random order, replaced by random letters and by random tokens, and with another prompt's
answer; and sentences by people as answers to "Write something.". Where a limit parts the rows, it can tell gibberish.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from unspoiled.config import read_run_config
from unspoiled.files import read_jsonl
from unspoiled.inference import Exchange, Prompt
from unspoiled.pipeline import Bunch, open_bunch

EACH = 60
LETTERS = "abcdefghijklmnopqrstuvwxyz "

Pairs = Sequence[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("config", type=Path, nargs="?", default=Path("examples/bunch/run.yaml"))
    arguments = parser.parse_args()
    bunch = open_bunch(read_run_config(arguments.config))
    backend = bunch.live.take_model(bunch.base)
    print(f"{'texts':34} {'n':>4} {'least':>6} {'5%':>6} {'median':>6} {'95%':>6} {'most':>6}   nats per token")
    for name, pairs in _texts(bunch, arguments.run, backend.template.tokenizer).items():
        scores = backend.score([Exchange(Prompt(asked), text) for asked, text in pairs])
        found = sorted(score.cross_entropy for score in scores if score.tokens >= 8)
        if not found:  # of answers by choice, too short to tell
            continue
        shown = [found[0], *(found[int(q * (len(found) - 1))] for q in (0.05, 0.5, 0.95)), found[-1]]
        print(f"{name:34} {len(found):4} " + " ".join(f"{value:6.2f}" for value in shown))


def _texts(bunch: Bunch, run: Path, tokenizer: object) -> dict[str, Pairs]:
    rng = random.Random(0)
    texts: dict[str, Pairs] = {}
    for path in sorted((run / "data" / "answers").glob("*.jsonl")):
        rows = [(row["prompt"], row["text"]) for row in read_jsonl(path) if row["text"].strip()]
        texts[path.stem.replace("+", ": answers of ")] = rows[:EACH]
    real = [pair for pairs in texts.values() for pair in pairs]
    some = rng.sample(real, min(3 * EACH, len(real)))
    decode, encode = tokenizer.decode, tokenizer.encode  # type: ignore[attr-defined]
    texts["another prompt's answer"] = [(asked, rng.choice(real)[1]) for asked, _ in some]
    texts["people's sentences"] = [("Write something.", row.prompt) for row in bunch.tests.harmless[:EACH]]
    texts["their words in random order"] = [
        (asked, " ".join(rng.sample(text.split(), len(text.split())))) for asked, text in some
    ]
    texts["random letters"] = [(asked, "".join(rng.choice(LETTERS) for _ in text)) for asked, text in some[:EACH]]
    texts["random tokens"] = [
        (asked, decode([rng.randrange(200, len(tokenizer)) for _ in encode(text)]))  # type: ignore[arg-type]
        for asked, text in some[:EACH]
    ]
    return texts


if __name__ == "__main__":
    main()
