"""A search killed by the system at any of twenty moments ends as one that never was."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_evaluator import Bowl, Wander, essence, study
from search_until_killed import TRIALS

from unspoiled.objective import WeightedSum
from unspoiled.search import InProcess, Trial, best_trials, sqlite_url

KILLS = 20


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    url = sqlite_url(tmp_path_factory.mktemp("whole") / "study.db")
    return study(url).run(Wander(TRIALS, seed=3), InProcess(Bowl()))


@pytest.fixture
def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def start(url: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("search_until_killed.py")
    return subprocess.Popen([sys.executable, script, url], env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_at_twenty_random_moments_a_search_ends_the_same(
    tmp_path: Path, uninterrupted: list[Trial], environment: dict[str, str]
) -> None:
    """Every kill hits the same search, a little further on; the moment within a trial is left to chance."""
    url = sqlite_url(tmp_path / "study.db")
    chance = random.Random(0)
    for _ in range(KILLS):
        process = start(url, environment)
        assert process.stdout is not None
        before = len(study(url).trials) if (tmp_path / "study.db").exists() else 0
        for _ in range(before + chance.randrange(3)):  # replayed trials count, too
            process.stdout.readline()
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed: give it more trials"
        process.stdout.close()
        recorded = study(url).trials
        assert recorded == uninterrupted[: len(recorded)], "bit for bit, in the same order"
    assert 10 < len(recorded) < TRIALS
    bowl = Bowl()
    assert study(url).run(Wander(TRIALS, seed=3), InProcess(bowl)) == uninterrupted
    assert len(bowl.tried) == TRIALS - len(recorded), "a recorded trial was tried again"
    goal = WeightedSum(alpha=0.3)
    assert best_trials(study(url).trials, goal, 5) == best_trials(uninterrupted, goal, 5)
    assert essence(study(url).trials) == essence(uninterrupted)
