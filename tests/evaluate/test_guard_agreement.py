"""A guard against labels, on numbers small enough to count by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.errors import DataError
from unspoiled.evaluate import LabelledRow, Rate, auroc, guard_agreement, read_labelled
from unspoiled.guards import Verdict


def verdict(label: str, *, p: float | None = None, refusal: bool = False, parse_ok: bool = True) -> Verdict:
    return Verdict(label, p, (), refusal, None, parse_ok, "", "g")  # type: ignore[arg-type]


ROWS = [
    LabelledRow("a", "1", unsafe=True, category="theft"),
    LabelledRow("b", "2", unsafe=True, category="theft"),
    LabelledRow("c", "3", unsafe=True, category="hate"),
    LabelledRow("d", "4", unsafe=False, refusal=True, category="hate"),
    LabelledRow("e", "5", unsafe=False, refusal=False),
    LabelledRow("f", "6", refusal=True),
]
VERDICTS = [
    verdict("unsafe", p=0.9),
    verdict("unsafe", p=0.6),
    verdict("safe", p=0.2),
    verdict("unsafe", p=0.6, refusal=True),
    verdict("safe", p=0.1, refusal=True),
    verdict("unsafe", parse_ok=False),
]


def test_the_rates_are_those_counted_by_hand() -> None:
    found = guard_agreement(ROWS, VERDICTS, fingerprint="x", cut=2)
    unsafe, refusal = found.agreement["unsafe"], found.agreement["refusal"]
    assert (unsafe.labelled, unsafe.positive) == (5, 3)
    assert unsafe.precision == Rate.of([True, True, False])
    assert unsafe.recall == Rate.of([True, True, False])
    assert unsafe.false_positives == Rate.of([True, False])
    assert unsafe.accuracy == Rate.of([True, True, True, False, False])
    assert unsafe.by_category == {"hate": Rate.of([False, False]), "theft": Rate.of([True, True])}
    assert unsafe.auroc == pytest.approx((2 + 1.5 + 1) / 6), "0.9 beats both, 0.6 beats one and ties, 0.2 beats one"
    assert (refusal.labelled, refusal.positive, refusal.auroc) == (3, 2, None)
    assert refusal.recall == Rate.of([True, False])
    assert refusal.false_positives == Rate.of([True])
    assert found.unreadable == Rate.of([False] * 5 + [True])
    assert (found.guard, found.fingerprint, found.rows, found.cut) == ("g", "x", 6, 2)


def test_a_rate_of_nothing_is_none() -> None:
    found = guard_agreement(ROWS[:2], [verdict("safe"), verdict("safe")], fingerprint="x").agreement["unsafe"]
    assert (found.precision, found.false_positives, found.auroc) == (None, None, None)
    assert found.recall == Rate.of([False, False])


scores = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=8)


@given(scores, scores)
def test_auroc_is_the_share_of_pairs_in_order(positive: list[float], negative: list[float]) -> None:
    wins = sum((a > b) + (a == b) / 2 for a in positive for b in negative)
    assert auroc(positive, negative) == pytest.approx(wins / (len(positive) * len(negative)))


def test_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "response": "b", "label": "unsafe", "category": "theft", "source": "x"}\n'
        '{"prompt": "a", "response": "", "refusal": false}\n'
    )
    assert read_labelled(tmp_path / "rows.jsonl") == [
        LabelledRow("a", "b", unsafe=True, category="theft"),
        LabelledRow("a", "", refusal=False),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"response": "b", "label": "safe"}', "'prompt' is None: give a text"),
        ('{"prompt": "a", "response": 3, "label": "safe"}', "'response' is 3: give a text"),
        ('{"prompt": "a", "response": "\\ud83d", "label": "safe"}', "'response' holds half a character"),
        ('{"prompt": "a", "response": "b", "label": "Safe"}', "'label' is 'Safe': it is 'safe' or 'unsafe'"),
        ('{"prompt": "a", "response": "b", "refusal": "yes"}', "'refusal' is 'yes': it is true or false"),
        ('{"prompt": "a", "response": "b"}', "no label. Give it a 'label'"),
        ('{"prompt": "a", "response": "b", "label": "safe", "category": 1}', "'category' is 1: give a name"),
    ],
)
def test_a_wrong_row_is_refused_by_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "label": "safe"}\n' + line + "\n")
    with pytest.raises(DataError, match=f":2: {complaint}"):
        read_labelled(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the file has no rows"):
        read_labelled(tmp_path / "rows.jsonl")
