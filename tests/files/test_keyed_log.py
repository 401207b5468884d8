"""A log of what was worked out: nothing in it is worked out again, whoever was killed when."""

from pathlib import Path

import pytest

from unspoiled.errors import DataError
from unspoiled.files import KeyedLog, read_jsonl


def squares(path: Path, told: list[str] | None = None) -> KeyedLog[int]:
    note = pytest.fail if told is None else told.append
    return KeyedLog(path, kind="square", write=lambda n: {"n": n}, read=lambda row: int(row["n"]), note=note)


class Work:
    def __init__(self, fails_at: int | None = None) -> None:
        self.done: list[list[int]] = []
        self.fails_at = fails_at

    def __call__(self, items: list[int]) -> list[int]:
        if self.fails_at in items:
            raise RuntimeError("killed")
        self.done.append(items)
        return [item * item for item in items]


ITEMS = {str(n): n for n in range(5)}
SQUARES = {str(n): n * n for n in range(5)}


def test_each_item_is_worked_on_once_and_some_at_a_time(tmp_path: Path) -> None:
    work, left = Work(), list[int]()
    log = squares(tmp_path / "log.jsonl")
    log.keep({"3": 9})
    log.complete(ITEMS, work, at_once=2, progress=left.append)
    assert (work.done, left) == ([[0, 1], [2, 4]], [2, 0])
    assert log.records == SQUARES
    log.complete(ITEMS, work, at_once=2, progress=pytest.fail)
    assert len(work.done) == 2


def test_what_was_written_before_a_failure_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(RuntimeError, match="killed"):
        squares(path).complete(ITEMS, Work(fails_at=4), at_once=2, progress=lambda _: None)
    work = Work()
    squares(path).complete(ITEMS, work, at_once=2, progress=lambda _: None)
    assert work.done == [[4]]
    assert squares(path).records == SQUARES


def test_two_logs_may_share_a_file_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first, second = squares(path), squares(path)
    first.keep({"a": 1})
    assert second.records == {"a": 1}
    first.keep({"b": 2})
    second.keep({"c": 3})
    assert [row["key"] for row in read_jsonl(path)] == ["a", "b", "c"]


def test_a_torn_record_is_said_and_worked_out_again(tmp_path: Path) -> None:
    path, told, work = tmp_path / "log.jsonl", list[str](), Work()
    squares(path).keep(SQUARES)
    path.write_bytes(path.read_bytes()[:-3])
    squares(path, told).complete(ITEMS, work, at_once=9, progress=lambda _: None)
    assert work.done == [[4]]
    assert len(told) == 1
    assert squares(path).records == SQUARES


@pytest.mark.parametrize(
    ("line", "why"), [('{"n": 1}', "'key'"), ('{"key": "2"}', "'n'"), ('{"key": "2", "n": []}', "")]
)
def test_a_line_of_another_kind_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"key": "1", "n": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"log\.jsonl:2: no square of ours \(.*{why}.*\)"):
        _ = squares(path).records
