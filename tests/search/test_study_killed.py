"""A search killed by the system at any of twenty moments ends as one that never was."""

import os
import random
import subprocess
import sys
from pathlib import Path

from scripted_evaluator import Bowl, Wander, study
from search_until_killed import TRIALS

from unspoiled.objective import WeightedSum
from unspoiled.search import InProcess, best_trials, sqlite_url

KILLS = 20


def test_killed_at_twenty_random_moments_a_search_ends_the_same(tmp_path: Path) -> None:
    uninterrupted = study(sqlite_url(tmp_path / "whole.db")).run(Wander(TRIALS, seed=3), InProcess(Bowl()))
    url = sqlite_url(tmp_path / "study.db")
    script = Path(__file__).with_name("search_until_killed.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    chance = random.Random(0)
    with subprocess.Popen(
        [sys.executable, script, url],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        recorded, watching = 0, None
        for _ in range(KILLS):
            # a little further each time; which statement of a trial it meets is left to chance
            killer.stdin.write(f"{recorded + chance.randrange(3)} {chance.random() * 0.05}\n")
            killer.stdin.flush()
            assert killer.stdout.readline() == "killed\n", "it ended before it was killed: give it more trials"
            watching = watching or study(url)
            trials = watching.trials
            assert trials == uninterrupted[: len(trials)], "bit for bit, in the same order"
            assert len(trials) >= recorded, "what was recorded stays"
            recorded = len(trials)
        killer.stdin.close()
    assert 10 < recorded < TRIALS
    bowl = Bowl()
    assert study(url).run(Wander(TRIALS, seed=3), InProcess(bowl)) == uninterrupted
    assert len(bowl.tried) == TRIALS - recorded, "a recorded trial was tried again"
    goal = WeightedSum(alpha=0.3)
    assert best_trials(study(url).trials, goal, 5) == best_trials(uninterrupted, goal, 5)
