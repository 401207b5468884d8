"""What a command prints keeps its numbers whole, whatever the terminal."""

import pytest

from command import unspoiled
from trained import FinishedRun


@pytest.mark.parametrize("columns", ["20", "60", "80", "200"])
def test_no_number_is_cut(finished_run: FinishedRun, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = unspoiled("run", finished_run.config, "--quiet", "--until", "evaluate")
    assert done.code == 0, done.err
    rows = done.out.splitlines()
    assert all(row.count("%") == 5 for row in rows[2:10]), done.out
    assert not any("…" in row for row in rows[:10]), done.out
