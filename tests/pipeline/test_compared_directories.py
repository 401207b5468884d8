"""Runs are read from their directories; what can't be is said with the path."""

import json

import pytest

from unspoiled.errors import DataError, RunDirectoryError
from unspoiled.evaluate import ModelScores, Rate, Results
from unspoiled.pipeline import read_runs

RESULTS = Results(
    models={"m": ModelScores(rates={"refusal": Rate.of([True, False])})}, comparisons=[], provenance={"winner": "m"}
)  # fmt: skip


def written(path, config=None):
    path.mkdir(parents=True)
    (path / "results.json").write_text(RESULTS.to_json())
    if config is not None:
        (path / "run.json").write_text(json.dumps({"unspoiled": "0", "config": config, "inputs": {}}))
    return path


def test_a_run_is_called_by_its_directory_and_has_its_config(tmp_path):
    first, second = read_runs([written(tmp_path / "a", {"search": {"seed": 3}}), written(tmp_path / "b")])
    assert (first.name, first.winner, first.config) == ("a", "m", {"search": {"seed": 3}})
    assert (second.name, second.results, second.config) == ("b", RESULTS, {})


def test_directories_of_one_name_are_called_by_their_paths(tmp_path):
    paths = [written(tmp_path / "x" / "run"), written(tmp_path / "y" / "run")]
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]


def test_a_directory_without_results_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"nowhere has no results\.json"):
        read_runs([tmp_path / "nowhere"])
    (tmp_path / "results.json").write_text('{"models": 3}')
    with pytest.raises(DataError, match=r"results\.json: .* of another version"):
        read_runs([tmp_path])
