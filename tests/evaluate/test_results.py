"""The shape of results.json, and comparisons whose answer is known."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unspoiled.evaluate import (
    Comparison,
    Mean,
    ModelScores,
    Observed,
    Rate,
    Results,
    SplitCheck,
    compare,
    higher_is_better,
    optimism,
)
from unspoiled.evaluate._statistics import holm


def outcomes(successes: int, n: int) -> list[bool]:
    return [i < successes for i in range(n)]


def seen(values: list[bool] | list[float], families: list[str] | None = None) -> Observed:
    return Observed(values, [str(i) for i in range(len(values))] if families is None else families)


def observed(**models: dict[str, list[bool] | list[float]]) -> dict[str, dict[str, Observed]]:
    """Return what models saw on independent prompts; `x__y` stands for the measure `x:y`."""
    return {model: {measure: seen(values) for measure, values in of.items()} for model, of in models.items()}


def scores(refused: int) -> ModelScores:
    return ModelScores(
        rates={
            "refusal": Rate.of(outcomes(refused, 100)),
            "safe:rules": Rate.of(outcomes(refused, 100)),
            "over_refusal": Rate.of(outcomes(4, 50)),
            "domain:format": Rate.of(outcomes(60, 80)),
            "task:arc": Rate.of(outcomes(20, 80)),
        },
        means={"loss:format": Mean.of([0.5, 0.75, 1.0, 2.0])},
        categories={"weapons": {"refusal": Rate.of(outcomes(1, 4))}},
    )


def test_results_json_has_the_agreed_shape_and_reads_back(tmp_path):
    measured = observed(evolve={"refusal": outcomes(90, 100)}, uniform={"refusal": outcomes(3, 100)})
    results = Results(
        models={"uniform": scores(3), "evolve": scores(90)},
        comparisons=compare(measured, [("evolve", "uniform")]),
        optimism=[optimism("refusal", Rate.of(outcomes(19, 20)), Rate.of(outcomes(90, 100)))],
        splits=SplitCheck(search=80, selection=20, test=100),
        provenance={"guard": "refusal rules"},
    )
    text = results.to_json()
    data = json.loads(text)
    assert list(data["models"]) == ["uniform", "evolve"]
    assert list(data["models"]["evolve"]) == ["rates", "means", "categories"]
    assert list(data["models"]["evolve"]["rates"]["domain:format"]) == ["rate", "low", "high", "n", "families"]
    assert list(data["models"]["evolve"]["means"]["loss:format"]) == ["mean", "low", "high", "n", "families"]
    assert list(data["comparisons"][0]) == [
        "model", "baseline", "measure", "test", "difference", "low", "high", "only_model", "only_baseline", "p_value",
        "family", "verdict", "resolvable",
    ]  # fmt: skip
    (tmp_path / "results.json").write_text(text)
    assert Results.read(tmp_path / "results.json") == results
    assert results.rates == ["refusal", "safe:rules", "over_refusal", "domain:format", "task:arc"]
    assert (results.means, results.domains) == (["loss:format"], ["format"])
    assert list(scores(1).skills) == ["domain:format", "task:arc"]


def test_a_rate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no outcomes"):
        Rate.of([])
    with pytest.raises(ValueError, match="2 outcomes and 1 families"):
        Rate.of([True, False], ["a"])


@pytest.mark.parametrize(
    "damage",
    [
        {"rate": "0.5"},
        {"rate": 0.9},
        {"n": 0},
        {"rate": float("nan")},
        {"families": 0},
        {"surprise": 1},
    ],
)
def test_a_damaged_rate_is_refused(damage):
    sound = {"rate": 0.5, "low": 0.4, "high": 0.6, "n": 10, "families": 10}
    Rate.model_validate(sound)
    with pytest.raises(ValidationError):
        Rate.model_validate({**sound, **damage})


def test_a_mean_outside_its_interval_is_refused():
    with pytest.raises(ValidationError, match="does not hold the mean"):
        Mean(mean=2.0, low=0.0, high=1.0, n=3, families=3)


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValidationError, match="unknown measure 'kindness'"):
        ModelScores(rates={"kindness": Rate.of([True])})


def test_direction_follows_the_measure():
    more, less = outcomes(90, 100), outcomes(10, 100)
    high = [2.0 + i / 100 for i in range(100)]
    low = [1.0 + (i * 7 % 100) / 100 for i in range(100)]
    measured = observed(
        a={"refusal": more, "over_refusal": more, "domain:x": more, "loss:x": high, "task:y": high},
        b={"refusal": less, "over_refusal": less, "domain:x": less, "loss:x": low, "task:y": low},
    )
    found = {c.measure: c for c in compare(measured, [("a", "b")])}
    assert {measure: c.verdict for measure, c in found.items()} == {
        "refusal": "better",
        "over_refusal": "worse",
        "domain:x": "better",
        "loss:x": "worse",
        "task:y": "better",
    }
    assert found["refusal"].difference == 0.8
    assert found["loss:x"].difference == pytest.approx(1.0)
    back = {c.measure: c for c in compare(measured, [("b", "a")])}
    for measure, c in found.items():
        assert (back[measure].difference, back[measure].low) == pytest.approx((-c.difference, -c.high))
        assert {c.verdict, back[measure].verdict} == {"better", "worse"}


def test_pairs_are_compared_by_prompt_not_by_rate():
    """Equal rates that disagree everywhere, and a gap of 6 prompts that all point one way."""
    measured = observed(a={"refusal": [True, False] * 20}, b={"refusal": [False, True] * 20})
    swapped = compare(measured, [("a", "b")])[0]
    assert (swapped.difference, swapped.only_model, swapped.only_baseline) == (0.0, 20, 20)
    assert (swapped.p_value, swapped.verdict, swapped.test) == (1.0, "not resolved", "McNemar")
    assert swapped.low == pytest.approx(-swapped.high)
    measured = observed(a={"refusal": outcomes(56, 100)}, b={"refusal": outcomes(50, 100)})
    one_way = compare(measured, [("a", "b")])[0]
    assert (one_way.p_value, one_way.verdict, one_way.resolvable) == (2 / 64, "better", 0.06)
    assert 0 < one_way.low < 0.06 < one_way.high


def test_losses_are_compared_by_row_not_by_mean():
    """Losses that vary tenfold, of which each is lower by about a tenth: no matter to the mean, plain by row."""
    losses = [float(1 + i % 10) for i in range(40)]
    lower = [loss - 0.1 - 0.02 * (i % 3) for i, loss in enumerate(losses)]
    found = compare(observed(a={"loss:x": lower}, b={"loss:x": losses}), [("a", "b")])[0]
    assert (found.test, found.verdict, found.only_model, found.only_baseline) == ("bootstrap", "better", None, None)
    assert found.difference == pytest.approx(sum(lower) / 40 - sum(losses) / 40)
    assert found.low < found.difference < found.high < 0
    assert found.p_value == pytest.approx(2.0**-39)  # no less than signs that all agree could say
    same = compare(observed(a={"loss:x": losses}, b={"loss:x": losses}), [("a", "b")])[0]
    assert (same.difference, same.low, same.high, same.p_value, same.resolvable) == (0.0, 0.0, 0.0, 1.0, None)


def test_families_are_counted_once():
    """30 prompts that point one way, but of 5 families: the sign flip's best is 2/32. Of 6 families it is 2/64."""
    for count, p_value, verdict in ((5, 2 / 32, "not resolved"), (6, 2 / 64, "better")):
        families = [str(i % count) for i in range(30)]
        measured = {
            name: {"refusal": seen(values, families)} for name, values in (("a", [True] * 30), ("b", [False] * 30))
        }
        found = compare(measured, [("a", "b")])[0]
        assert (found.test, found.only_model, found.only_baseline) == ("sign flip", 30, 0)
        assert (found.p_value, found.verdict) == (p_value, verdict)
        assert found.resolvable == (None if count == 5 else 1.0)
        assert -1 <= found.low < found.difference == found.high == 1.0


def test_holm_covers_the_whole_family():
    """The same six-prompt gap is no longer resolved as one of two comparisons: 2·2/64 > .05."""
    measured = observed(
        a={"refusal": outcomes(56, 100), "over_refusal": outcomes(5, 100)},
        b={"refusal": outcomes(50, 100), "over_refusal": outcomes(5, 100)},
    )
    refusal = compare(measured, [("a", "b")])[0]
    assert (refusal.p_value, refusal.verdict, refusal.resolvable) == (4 / 64, "not resolved", 0.07)


def test_holm_covers_rates_and_means_together():
    values = [float(i % 7) for i in range(30)]
    gains = [0.4 * (i % 5) - 0.2 for i in range(30)]
    a = {"refusal": outcomes(18, 30), "loss:x": [v + g for v, g in zip(values, gains, strict=True)]}
    measured = observed(a=a, b={"refusal": outcomes(10, 30), "loss:x": values})
    together = compare(measured, [("a", "b")])
    alone = [
        compare({name: {measure: of[measure]} for name, of in measured.items()}, [("a", "b")])[0].p_value
        for measure in a
    ]
    assert [c.p_value for c in together] == pytest.approx(holm(alone))


PAIRS = st.tuples(st.booleans(), st.booleans())


@given(st.lists(st.lists(PAIRS, min_size=20, max_size=20), min_size=1, max_size=4), st.sampled_from([20, 7, 11]))
def test_a_gap_is_resolved_exactly_when_it_reaches_the_resolvable_one(columns, families):
    of = [str(i % families) for i in range(20)]
    measured = {
        name: {f"domain:{i}": seen([pair[side] for pair in column], of) for i, column in enumerate(columns)}
        for side, name in enumerate(("a", "b"))
    }
    for row in compare(measured, [("a", "b")]):
        assert row.test == ("McNemar" if families == 20 else "sign flip")
        assert row.low <= row.difference <= row.high
        assert (row.verdict != "not resolved") == (row.resolvable is not None and abs(row.difference) >= row.resolvable)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"a": {"refusal": seen([True])}}, "no outcomes for model 'b'"),
        ({"a": {"refusal": seen([True])}, "b": {"refusal": seen([True, False])}}, "the same prompts"),
        ({"a": {"refusal": seen([True], ["x"])}, "b": {"refusal": seen([True], ["y"])}}, "the same prompts"),
        ({"a": {"refusal": seen([True])}, "b": {}}, "not measured alike"),
        ({"a": {"kindness": seen([True])}, "b": {"kindness": seen([True])}}, "unknown measure 'kindness'"),
        ({"a": {"task:x": seen([True])}, "b": {"task:x": seen([0.5])}}, "truth values in one and numbers"),
    ],
)
def test_what_can_not_be_compared_is_refused(measured, message):
    with pytest.raises(ValueError, match=message):
        compare(measured, [("a", "b")])


def test_hundreds_of_comparisons_of_means_still_resolve_a_large_gap():
    random = np.random.default_rng(0)
    measures = [f"loss:{i}" for i in range(20)]
    models = {str(i): {m: seen(list(random.normal(i, 0.2, 60))) for m in measures} for i in range(9)}
    pairs = [(a, b) for a in models for b in models if a > b]
    assert len(pairs) * len(measures) == 720
    found = compare(models, pairs)
    assert {row.verdict for row in found} == {"worse"}
    assert all(0.05 < (row.resolvable or 0) < 1 for row in found)


def test_nothing_is_not_a_measure():
    with pytest.raises(ValueError, match="at least one"):
        seen([])
    with pytest.raises(ValueError, match="2 values and 1 families"):
        seen([True, False], ["a"])


def test_optimism_is_the_difference_of_independent_rates():
    found = optimism("refusal", Rate.of(outcomes(56, 70)), Rate.of(outcomes(48, 80)))
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)  # Newcombe (1998a), table II (a)
    families = [str(i // 2) for i in range(70)]
    clustered = optimism("refusal", Rate.of(outcomes(56, 70), families), Rate.of(outcomes(48, 80)))
    assert clustered.low < found.low
    assert clustered.high > found.high


def test_every_measure_has_a_direction():
    assert [higher_is_better(m) for m in scores(1).rates] == [True, True, False, True, True]
    assert not higher_is_better("loss:format")
    with pytest.raises(ValueError, match="unknown measure"):
        higher_is_better("domain:")


def test_a_comparison_of_means_has_no_counts():
    found = compare(observed(a={"loss:x": [1.0, 2.0]}, b={"loss:x": [1.5, 1.0]}), [("a", "b")])[0]
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    assert (found.only_model, found.verdict) == (None, "not resolved")
