"""A guard's verdicts outlive the process: what was judged is not judged again, by the same guard."""

from collections.abc import Sequence
from pathlib import Path

from unspoiled.guards import KeptGuard, Verdict
from unspoiled.inference import Progress, silent

PAIRS = [(f"prompt {i}", f"response {i % 90}") for i in range(150)]


class Recording:
    judges_content = True
    advice = None

    def __init__(self, fingerprint: str = "one", dies_at: int | None = None) -> None:
        self.name = self.fingerprint = fingerprint
        self.pairs: list[tuple[str, str]] = []
        self._dies_at = dies_at

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        if self._dies_at is not None and len(self.pairs) >= self._dies_at:
            raise KeyboardInterrupt
        self.pairs += pairs
        return [Verdict("safe", 0.25, ("S1", "S2"), False, None, True, f"{pair}", self.name, "t") for pair in pairs]


def kept(guard: Recording, path: Path, told: list[str] | None = None) -> KeptGuard:
    return KeptGuard(guard, path, note=(told if told is not None else []).append)


def test_verdicts_are_the_guards_own_in_order_and_asked_for_once(tmp_path: Path) -> None:
    guard = Recording()
    wanted = Recording().judge(PAIRS)
    assert kept(guard, tmp_path / "log").judge(PAIRS) == wanted
    assert kept(guard, tmp_path / "log").judge(PAIRS[::-1]) == wanted[::-1]
    assert guard.pairs == PAIRS


def test_after_an_interruption_the_rest_is_judged_and_nothing_twice(tmp_path: Path) -> None:
    dying, rest = Recording(dies_at=100), Recording()
    try:
        kept(dying, tmp_path / "log").judge(PAIRS)
    except KeyboardInterrupt:
        log = (tmp_path / "log").read_bytes()
        (tmp_path / "log").write_bytes(log[:-5])  # torn as well
    told: list[str] = []
    assert kept(rest, tmp_path / "log", told).judge(PAIRS) == Recording().judge(PAIRS)
    assert len(dying.pairs) == 128
    assert rest.pairs == PAIRS[127:], "the torn one again, and those that were missing"
    assert "removed a torn last record" in told[0]


def test_another_guards_verdicts_are_not_taken(tmp_path: Path) -> None:
    kept(Recording("one"), tmp_path / "log").judge(PAIRS)
    other = Recording("another")
    assert {verdict.guard for verdict in kept(other, tmp_path / "log").judge(PAIRS)} == {"another"}
    assert other.pairs == PAIRS


def test_equal_pairs_are_judged_once_and_progress_ends_at_all(tmp_path: Path) -> None:
    guard, told = Recording(), list[tuple[int, int]]()
    kept(guard, tmp_path / "log").judge([*PAIRS, *PAIRS], progress=lambda *counts: told.append(counts))
    assert guard.pairs == PAIRS
    assert told[-1] == (300, 300)
