"""Measure the base, an expert or a merge on the test sets: ``python examples/bunch/measure.py [EXPERT=WEIGHT ...]``.

No expert means the base; ``aligned=1`` one expert; several a task-arithmetic merge, as in
``aligned=.8 arithmetic=.4 medicine=.4``. Measures as ``unspoiled run`` does, on every row of the test sets
(or on ``--limit`` of each), and prints rates with Wilson 95% intervals as JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unspoiled.config import read_run_config
from unspoiled.evaluate import measure, scores
from unspoiled.pipeline import open_bunch

CONFIG = Path(__file__).parent / "run.yaml"


def main() -> None:
    """Parse the weights, merge, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", metavar="EXPERT=WEIGHT")
    parser.add_argument("--limit", type=int, help="rows of each test set; all by default")
    arguments = parser.parse_args()
    limit = "null" if arguments.limit is None else arguments.limit
    bunch = open_bunch(read_run_config(CONFIG, overrides=[f"evaluate.limit={limit}"]))
    weights = dict.fromkeys(bunch.experts, 0.0)
    for text in arguments.weights:
        name, _, weight = text.partition("=")
        if name not in weights:
            parser.error(f"there is no expert {name!r}: choose among {', '.join(weights)}")
        weights[name] = float(weight)
    backend = bunch.live.take_recipe(bunch.space.recipe(bunch.space.constant(list(weights.values()))))
    print(scores(measure(backend, bunch.tests, bunch.test_guards)).model_dump_json(indent=2))


if __name__ == "__main__":
    main()
