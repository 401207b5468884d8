"""Run a search and kill this process with SIGKILL in the middle: `python search_until_killed.py STORAGE TRIAL WHEN`."""

import os
import signal
import sys

from landscapes import Bowl, space

from unspoiled.config import Recipe
from unspoiled.objective import Losses
from unspoiled.search import Evolve, Study


def main(storage: str, trial: int, when: str) -> None:
    bowl = Bowl([0.9, 0.2])

    def die_at(moment: str) -> None:
        if when == moment and bowl.evaluations == trial:
            os.kill(os.getpid(), signal.SIGKILL)

    def merge(recipe: Recipe) -> None:
        die_at("before")
        bowl.merge(recipe)

    def loss() -> Losses:
        found = bowl.loss()
        die_at("during")
        return found

    Study(storage).run(Evolve(space(), trials=24, seed=3), merge, loss)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
