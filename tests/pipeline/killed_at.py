"""Run a config in a process that is killed at a moment, then in another killed at the next, then to the end.

`python killed_at.py CONFIG STAGE:WHAT:DONE...`; a moment is when the run says that it has `DONE` of `WHAT` (of
`STAGE`). Prints each process's exit status, as `os.waitstatus_to_exitcode` gives it.
"""

import os
import signal
import sys
from pathlib import Path

import cma  # noqa: F401
import optuna  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

from unspoiled.config import read_run_config
from unspoiled.pipeline import Unwatched, run


class Executioner(Unwatched):
    """Kills this process at a moment."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self._stage = ""

    def begin(self, stage: str) -> None:
        self._stage = stage
        self.advance("begins", 0, 0)

    def advance(self, what: str, done: int, total: int) -> None:
        if f"{self._stage}:{what}:{done}" == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main(config: Path, moments: list[str]) -> None:
    for moment in [*moments, "never"]:
        child = os.fork()
        if child == 0:
            run(read_run_config(config), watcher=Executioner(moment))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
