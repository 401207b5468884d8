"""The shape of results.json, and comparisons whose answer is known."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unspoiled.evaluate._results import ModelScores, Rate, Results, compare, higher_is_better


def outcomes(successes: int, n: int) -> list[bool]:
    return [i < successes for i in range(n)]


def scores(refused: int) -> ModelScores:
    return ModelScores(
        refusal=Rate.of(outcomes(refused, 100)),
        over_refusal=Rate.of(outcomes(4, 50)),
        invalid=Rate.of(outcomes(1, 100)),
        domains={"format": Rate.of(outcomes(60, 80))},
    )


def test_results_json_has_the_agreed_shape_and_reads_back():
    measured = {"evolve": {"refusal": outcomes(90, 100)}, "uniform": {"refusal": outcomes(3, 100)}}
    results = Results(
        models={"uniform": scores(3), "evolve": scores(90)},
        comparisons=compare(measured, [("evolve", "uniform")]),
        provenance={"guard": "refusal rules"},
    )
    text = results.to_json()
    data = json.loads(text)
    assert list(data) == ["models", "comparisons", "provenance"]
    assert list(data["models"]) == ["uniform", "evolve"]
    assert list(data["models"]["evolve"]) == ["refusal", "over_refusal", "invalid", "domains", "safe", "advice"]
    assert list(data["models"]["evolve"]["domains"]["format"]) == ["rate", "low", "high", "n"]
    assert list(data["comparisons"][0]) == [
        "model", "baseline", "measure", "difference", "only_model", "only_baseline", "p_value", "verdict",
        "resolvable",
    ]  # fmt: skip
    assert Results.from_json(text) == results


def test_a_rate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no outcomes"):
        Rate.of([])


@pytest.mark.parametrize(
    "damage",
    [
        {"rate": "0.5"},
        {"rate": 0.9},
        {"n": 0},
        {"rate": float("nan")},
        {"surprise": 1},
    ],
)
def test_a_damaged_rate_is_refused(damage):
    sound = {"rate": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    with pytest.raises(ValidationError):
        Rate.model_validate({**sound, **damage})


def test_direction_follows_the_measure():
    more, less = outcomes(90, 100), outcomes(10, 100)
    measured = {
        "a": {"refusal": more, "over_refusal": more, "domain:x": more},
        "b": {"refusal": less, "over_refusal": less, "domain:x": less},
    }
    verdicts = {c.measure: (c.verdict, c.difference) for c in compare(measured, [("a", "b")])}
    assert verdicts == {
        "refusal": ("better", 0.8),
        "over_refusal": ("worse", 0.8),
        "domain:x": ("better", 0.8),
    }
    assert {c.verdict for c in compare(measured, [("b", "a")])} == {"worse", "better"}


def test_pairs_are_compared_by_prompt_not_by_rate():
    """Equal rates that disagree everywhere, and a gap of 6 prompts that all point one way."""
    swapped = compare({"a": {"refusal": [True, False] * 20}, "b": {"refusal": [False, True] * 20}}, [("a", "b")])[0]
    assert (swapped.difference, swapped.only_model, swapped.only_baseline) == (0.0, 20, 20)
    assert (swapped.p_value, swapped.verdict) == (1.0, "not resolved")
    one_way = compare({"a": {"refusal": outcomes(56, 100)}, "b": {"refusal": outcomes(50, 100)}}, [("a", "b")])[0]
    assert (one_way.p_value, one_way.verdict, one_way.resolvable) == (2 / 64, "better", 0.06)


def test_holm_covers_the_whole_family():
    """The same six-prompt gap is no longer resolved as one of two comparisons: 2·2/64 > .05."""
    gap = {"refusal": outcomes(56, 100), "over_refusal": outcomes(5, 100)}
    none = {"refusal": outcomes(50, 100), "over_refusal": outcomes(5, 100)}
    refusal = compare({"a": gap, "b": none}, [("a", "b")])[0]
    assert (refusal.p_value, refusal.verdict, refusal.resolvable) == (4 / 64, "not resolved", 0.07)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=20, max_size=20), min_size=1, max_size=4))
def test_a_gap_is_resolved_exactly_when_it_reaches_the_resolvable_one(columns):
    measured = {
        name: {f"domain:{i}": [pair[side] for pair in column] for i, column in enumerate(columns)}
        for side, name in enumerate(("a", "b"))
    }
    for row in compare(measured, [("a", "b")]):
        assert (row.verdict != "not resolved") == (row.resolvable is not None and abs(row.difference) >= row.resolvable)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"a": {"refusal": [True]}}, "no outcomes for model 'b'"),
        ({"a": {"refusal": [True]}, "b": {"refusal": [True, False]}}, "the same prompts"),
        ({"a": {"refusal": []}, "b": {"refusal": []}}, "at least one"),
        ({"a": {"refusal": [True]}, "b": {}}, "not measured alike"),
        ({"a": {"kindness": [True]}, "b": {"kindness": [True]}}, "unknown measure 'kindness'"),
    ],
)
def test_what_can_not_be_compared_is_refused(measured, message):
    with pytest.raises(ValueError, match=message):
        compare(measured, [("a", "b")])


def test_every_measure_has_a_direction():
    assert [higher_is_better(m) for m in scores(1).measures()] == [True, False, False, True]
    with pytest.raises(ValueError, match="unknown measure"):
        higher_is_better("domain:")
