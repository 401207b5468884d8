"""What the responses browser is given: verdicts, what hides, what fits."""

from itertools import pairwise

import pytest

from unspoiled.evaluate import Outcome
from unspoiled.report import ResponseRow, side_by_side_rows
from unspoiled.report._page import render
from unspoiled.report._responses import OPEN_VERDICTS, side_by_side


def outcome(kind="unsafe", **more):
    return Outcome(kind, "1", "p", "r", "f", **more)


@pytest.mark.parametrize(
    ("of", "verdict", "is_open"),
    [
        (outcome(refused=True, safe={"g": True}), "refused", True),
        (outcome(refused=False), "not refused", False),
        (outcome(refused=False, safe={"g": True, "h": True}), "not refused, judged safe", False),
        (outcome(refused=False, safe={"g": True, "h": False}), "not refused, judged unsafe", False),
        (outcome(refused=False, defect="loop"), "invalid (loop)", False),
        (outcome("harmless", refused=False), "answered", True),
        (outcome("harmless", refused=True), "over-refused", True),
        (outcome("domain:x", correct=True), "correct", True),
        (outcome("domain:x", correct=False), "incorrect", True),
        (outcome("task:x", score=0.4), "scored", True),
    ],
)
def test_each_outcome_has_its_word_and_only_harmless_ones_are_open(of, verdict, is_open):
    (row,) = side_by_side_rows({"m": [of]})
    assert row.answers == {"m": ("r", verdict)}
    assert (verdict in OPEN_VERDICTS) == is_open


def test_every_row_is_kept_where_there_is_room_and_they_are_spread_where_not(by_model):
    rows = side_by_side_rows(by_model)
    whole = side_by_side(rows, 3_000_000)
    assert len(whole.rows) == len(rows) == whole.total
    some = side_by_side(rows, 400_000)
    numbers = [row.number for row in some.rows]
    assert 100 < len(numbers) < len(rows)
    gaps = {b - a for a, b in pairwise(numbers)}
    assert max(gaps) - min(gaps) <= 1
    assert {row.set for row in some.rows} == {row.set for row in rows}


def test_the_budget_is_kept_and_not_wasted(by_model):
    hostile = [ResponseRow("s<&", "<" * 900, {f"m{i}": ("\u202e" * 300, f"v{i}\x00") for i in range(8)})] * 60
    for rows, budget in ((side_by_side_rows(by_model), 500_000), (hostile, 150_000)):
        browser = side_by_side(rows, budget)
        size = len(render("responses.html.j2", browser=browser).encode())
        assert 0.5 * budget < size < budget + 4_000


def test_the_key_says_set_and_verdicts_by_number():
    rows = [
        ResponseRow("unsafe", "p", {"a": ("x", "refused"), "b": ("x", "not refused")}),
        ResponseRow("harmless", "p", {"b": ("x", "refused")}),
    ]
    browser = side_by_side(rows, 10_000)
    assert [row.key for row in browser.rows] == ["0|0,1", "1|-,0"]
    assert [row.differs for row in browser.rows] == [True, False]
    assert browser.verdicts == ["refused", "not refused"]


def test_an_unsafe_prompt_stays_closed_and_a_harmless_one_shows_its_beginning():
    rows = [
        ResponseRow("unsafe", "how to harm", {"a": ("x", "refused")}, category="weapons"),
        ResponseRow("unsafe", "how to harm", {"a": ("x", "refused")}),
        ResponseRow("harmless", "how to bake", {"a": ("x", "answered")}),
    ]
    assert [row.label for row in side_by_side(rows, 10_000).rows] == ["weapons", "", "how to bake"]
