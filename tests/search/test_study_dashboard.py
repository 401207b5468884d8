"""The documented `optuna-dashboard` command, run for real, shows a search: its trials, losses and attributes."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_evaluator import Bowl, Killed, OutOfOrder, Wander, study

from unspoiled.search import sqlite_url

pytest.importorskip("optuna_dashboard")


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """Start the server on a study of four trials that ended and two that are under way."""
    with pytest.raises(Killed):
        study(sqlite_url(tmp_path / "study.db")).run(Wander(8, ahead=2), OutOfOrder(Bowl(), 2, dies_after=4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("optuna-dashboard")
    with subprocess.Popen(
        [command, "--host", "127.0.0.1", "--port", str(port), "sqlite:///study.db"],
        cwd=tmp_path,
        env={**os.environ, "OPTUNA_STORAGE": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        yield f"http://127.0.0.1:{port}/api"
        server.terminate()


def get(url: str) -> Any:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the server did not answer in 30 seconds")


def test_the_dashboard_shows_a_search_while_it_runs(dashboard: str, tmp_path: Path) -> None:
    (listed,) = get(f"{dashboard}/studies")["study_summaries"]
    assert listed["study_name"] == "unspoiled"
    assert listed["directions"] == ["minimize"] * 3
    shown = get(f"{dashboard}/studies/{listed['study_id']}?after=0")
    assert shown["objective_names"] == ["CE_safety", "CE_expert", "CE_benign"]
    assert sorted(trial["state"] for trial in shown["trials"]) == ["Complete"] * 4 + ["Running"] * 2
    by_number = {trial["number"]: trial for trial in shown["trials"]}
    for ours in study(sqlite_url(tmp_path / "study.db")).trials:
        assert ours.losses is not None
        trial = by_number[ours.number]
        assert trial["values"] == [ours.losses.safety, ours.losses.expert, ours.losses.benign]
        assert {p["name"]: p["param_internal_value"] for p in trial["params"]} == ours.coefficients
        attributes = {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}
        assert attributes["strategy"] == "wander"
        assert attributes["tokens"] == "300"
        assert json.loads(attributes["seconds"]) == {"merge": 0.25, "loss": 1.5}
        assert json.loads(attributes["losses"])["domains"] == {"math": ours.losses.expert}
