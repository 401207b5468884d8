"""A run directory that was damaged, or never was one, costs a message or a repeated step; never data, never a lie."""

import shutil
from pathlib import Path

import pytest
from test_run_directory import run_in, tree, work

from command import unspoiled
from trained import FinishedRun, TrainedBunch
from unspoiled.errors import RunDirectoryError


@pytest.fixture
def copied(finished_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    shutil.copytree(finished_run.directory, tmp_path / "run")
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    return FinishedRun(tmp_path / "run", tmp_path / "run.yaml", finished_run.command)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("content", ['{"distance": "10 km"}', "[]", "not JSON", "\xff", ""])
def test_the_run_json_of_another_tool_does_not_make_a_directory_ours(tmp_path: Path, content: str, fresh: bool) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    (tmp_path / "thesis.txt").write_text("ten years of work")
    before = tree(tmp_path)
    with pytest.raises(RunDirectoryError, match="no run of ours"), run_in(tmp_path, fresh=fresh):
        pass
    assert tree(tmp_path) == before


def test_a_forgotten_step_is_done_again(tmp_path: Path) -> None:
    work(tmp_path)
    with run_in(tmp_path) as run:
        run.forget("step")
        run.forget("never done")
    assert work(tmp_path)


def test_a_checkpoint_written_again_has_the_measured_rates_on_its_card(copied: FinishedRun) -> None:
    card = (copied.directory / "merged" / "README.md").read_text()
    assert "Wilson" in card
    shutil.rmtree(copied.directory / "merged")
    done = unspoiled("run", copied.config)
    assert done.code == 0, done.err
    assert (copied.directory / "merged" / "README.md").read_text() == card


def test_a_lost_study_is_searched_again(copied: FinishedRun) -> None:
    recipe = (copied.directory / "recipe.yaml").read_text()
    (copied.directory / "search" / "study.db").unlink()
    (copied.directory / "search" / "finalists.json").unlink()
    done = unspoiled("search", copied.config)
    assert done.code == 0, done.err
    assert (copied.directory / "recipe.yaml").read_text() == recipe


def test_a_damaged_study_is_a_message(copied: FinishedRun) -> None:
    (copied.directory / "search" / "study.db").write_text("no database at all, but long enough to be one" * 50)
    done = unspoiled("search", copied.config)
    assert done.code == 8, done.err
    assert "study.db" in done.err
    assert "Remove the file" in done.err


def test_a_finished_run_can_be_reported_where_it_was_moved_to(trained: TrainedBunch, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(trained.root, first)
    (first / "run.yaml").write_text(trained.config.replace(f"{trained.root}/", ""))
    done = unspoiled("run", first / "run.yaml")
    assert done.code == 0, done.err
    page = (first / "run" / "report.html").read_text()
    first.rename(tmp_path / "second")
    (tmp_path / "second" / "run" / "report.html").unlink()
    done = unspoiled("report", tmp_path / "second" / "run.yaml")
    assert done.code == 0, done.err
    again = (tmp_path / "second" / "run" / "report.html").read_text()
    assert again.count("<svg") == page.count("<svg") > 0
    shutil.rmtree(tmp_path / "second" / "run" / "merged")
    done = unspoiled("run", tmp_path / "second" / "run.yaml")
    assert done.code == 2, done.err
    assert "If the models moved since the recipe was made, put them back" in done.err
