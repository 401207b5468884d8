"""Run a search that can be killed at any moment: `python search_until_killed.py STORAGE`."""

import sys
import time

from scripted_evaluator import Bowl, Wander, study

from unspoiled.search import Evaluation, InProcess, Proposal, Trial

TRIALS = 40


def main(storage: str) -> None:
    class Lasting(Bowl):
        def evaluate(self, proposal: Proposal) -> Evaluation | None:
            time.sleep(0.003)  # about as long as recording takes: kills meet both
            return super().evaluate(proposal)

    def progress(trial: Trial) -> None:
        print(trial.number, flush=True)

    study(storage).run(Wander(TRIALS, seed=3), InProcess(Lasting()), progress=progress)


if __name__ == "__main__":
    main(sys.argv[1])
