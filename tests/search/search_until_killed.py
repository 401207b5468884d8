"""Run a search again and again, and kill it: `python search_until_killed.py STORAGE`.

For each line `TRIALS SECONDS` on stdin, a new process begins or continues the search; after that many trials
(replayed ones included) and seconds it is sent SIGKILL. One line on stdout says so. The processes are forked from this
one, which has never opened the storage: importing everything takes longer than the whole search.
"""

import os
import signal
import sys
import time

import alembic.command  # noqa: F401
import optuna.storages  # noqa: F401
from scripted_evaluator import Bowl, Wander, study

from unspoiled.search import Evaluation, InProcess, Proposal

TRIALS = 150


class Lasting(Bowl):
    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        time.sleep(0.005)  # about as long as recording takes: kills meet both
        return super().evaluate(proposal)


def search(storage: str, report: int) -> None:
    study(storage).run(Wander(TRIALS, seed=3), InProcess(Lasting()), progress=lambda trial: os.write(report, b"."))


def main(storage: str) -> None:
    for line in sys.stdin:
        trials, seconds = line.split()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                search(storage, writing)
            finally:
                os._exit(0)
        os.close(writing)
        for _ in range(int(trials)):
            os.read(reading, 1)
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reading)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
