"""The report in its forms, and several runs on one page, as they are typed."""

import shutil
from pathlib import Path

import pytest

from command import unspoiled
from trained import FinishedRun
from unspoiled.evaluate import Results


@pytest.fixture
def run(finished_run: FinishedRun, tmp_path: Path) -> Path:
    shutil.copytree(finished_run.directory, tmp_path / "run")
    shutil.copy(finished_run.config, tmp_path / "run.yaml")
    return tmp_path / "run"


def test_a_report_for_a_readme_and_figures_for_a_paper(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    done = unspoiled("report", "run.yaml", "--quiet", "--format", "md", "--figures", "figures")
    assert done.code == 0, done.err
    results = Results.read(run / "results.json")
    for name, scores in results.models.items():
        rate = scores.rates["refusal"]
        row = f"{100 * rate.rate:.1f}% ({100 * rate.low:.1f}–{100 * rate.high:.1f})"
        assert any(row in line for line in done.out.splitlines() if name in line)
    written = {path.name for path in (run.parent / "figures").iterdir()}
    assert {"trade-off-0.svg", "trade-off-0.png", "progress.svg"} <= written
    assert set(done.err.splitlines()) == {f"figures/{name}" for name in written}


def test_two_runs_side_by_side(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "again")
    done = unspoiled("compare", "run", "again", "--out", "both.html")
    assert (done.code, done.out) == (0, "both.html\n"), done.err
    page = (tmp_path / "both.html").read_text()
    assert "Not comparable." not in page
    assert "<bdi>again</bdi>" in page


def test_what_can_not_be_compared_is_said(run: Path, tmp_path: Path) -> None:
    alone = unspoiled("compare", run)
    assert (alone.code, "two runs or more" in alone.err) == (2, True)
    (tmp_path / "empty").mkdir()
    missing = unspoiled("compare", run, tmp_path / "empty")
    assert missing.code == 6
    assert "empty has no results.json" in missing.err
    assert not (tmp_path / "comparison.html").exists()
