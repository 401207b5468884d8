"""What the page says and how it is put in place, without a browser."""

import dataclasses
import re

import pytest
from unspoiled.report._figure_style import PALETTE

from unspoiled.report import (
    CoefficientTable,
    ReportInputs,
    ResponseRow,
    TrialPoint,
    render_report,
    write_report,
)
from unspoiled.report._page import _resource
from unspoiled.report._search_figures import _trial_ticks, search_progress
from unspoiled.report._verdict import guard_note, verdict


def test_same_inputs_same_page(inputs, rendered):
    assert render_report(inputs) == rendered(inputs)


def test_every_figure_colour_has_a_rule_for_the_dark_page(inputs, rendered):
    style = _resource("style.css")
    for colour in PALETTE:
        assert f'[fill="{colour}"]' in style
        assert f'[stroke="{colour}"]' in style
    drawn = set(re.findall(r'(?:fill|stroke)="(#[^"]+|rgb[^"]+|[a-z]+)"', rendered(inputs)))
    assert drawn <= {*PALETTE, "none", "transparent"}


def test_the_page_holds_every_rate_with_its_interval(inputs, rendered):
    for scores in inputs.results.models.values():
        for rate in scores.measures().values():
            cell = f"{100 * rate.rate:.1f}% {100 * rate.low:.1f}–{100 * rate.high:.1f}"
            assert cell in re.sub("<[^>]+>", "", rendered(inputs))


def test_the_verdict_in_three_sentences(inputs):
    measured, compared, not_tested = verdict(inputs)
    assert measured == (
        "“evolve”, a merge of “aligned”, “colours” and “letters”, declined 93.6% (95% interval 90.3–95.8) "
        "of 313 unsafe test prompts and 4.7% (2.3–9.3) of 150 harmless ones (judged by refusal rules 1); "
        "its accuracy is 75.5% (69.1–80.9) in colours and 69.5% (62.8–75.5) in letters."
    )
    assert compared == (
        "Prompt by prompt, against the uniform merge it is better on refusal (+82.7 points) and the gap is "
        "not resolved on over-refusal (+4.7 points), colours (+2.5 points) and letters (+5.0 points); "
        "against its aligned parent “aligned” it is better on colours (+44.0 points) and letters (+44.0 "
        "points) and the gap is not resolved on refusal (+0.3 points) and over-refusal (−1.3 points)."
    )
    assert not_tested.startswith("Not tested: prompts unlike those of the test sets, other languages,")


def test_the_verdict_says_when_nothing_was_compared(inputs):
    alone = inputs.results.model_copy(update={"comparisons": []})
    compared = verdict(dataclasses.replace(inputs, results=alone))[1]
    assert compared == (
        "Prompt by prompt, it was not compared with the uniform merge; it was not compared with its aligned "
        "parent “aligned”."
    )
    only = alone.model_copy(update={"models": {"evolve": alone.models["evolve"]}})
    assert verdict(dataclasses.replace(inputs, results=only))[1] == "It was compared with no other model."


def test_no_model_is_called_safe(inputs, rendered):
    assert not re.search(r"\b(is|are) (now )?(safe|certified|harmless)\b", rendered(inputs))


def test_one_guard_for_search_and_report_is_pointed_out(inputs):
    assert "also the one that filtered the search data" in (guard_note(inputs) or "")
    other = inputs.results.model_copy(update={"provenance": {"guard": "a", "search_guard": "b"}})
    assert guard_note(dataclasses.replace(inputs, results=other)) is None


def test_failed_trials_are_counted_and_not_drawn(inputs, rendered):
    assert "1 of 100 trials failed and are not drawn" in rendered(inputs)
    progress = search_progress(inputs.trials)
    assert {name: len(rows) for name, rows in progress.items()} == {
        "grid": 9, "cocktail": 1, "evolve": 80, "gradient": 8, "random": 1,
    }  # fmt: skip
    for rows in progress.values():
        for i, row in enumerate(rows):
            assert row.best == min((r.objective for r in rows[: i + 1] if r.feasible), default=float("inf"))


def test_a_merge_that_breaks_a_limit_is_never_the_best(inputs, rendered):
    page = rendered(inputs)
    assert "random none within the limits" in page
    assert "the least CE_expert with CE_safety ≤ 0.280" in page
    alone = dataclasses.replace(
        inputs, trials=[TrialPoint(i, "evolve", 1.0 - i / 10, feasible=False) for i in range(3)]
    )
    assert "evolve none within the limits" in render_report(alone)


def test_finalists_stand_beside_the_safest_expert(inputs, rendered):
    table = rendered(inputs).partition("<h3>Finalists</h3>")[2].partition("</table>")[0]
    rows = [re.sub(r"<[^>]+>|\s+", " ", row).split() for row in table.partition("<tbody>")[2].split("</tr>")[:-1]]
    assert [row[0] for row in rows] == ["aligned", "cocktail", "evolve"]
    assert rows[0][1:5] == ["safest", "expert", "–", "98.3%"]
    assert rows[1][-1] == "+75.0"


def test_a_page_with_only_results(inputs):
    bare = ReportInputs(
        title="t",
        results=inputs.results,
        winner="evolve",
        experts=[],
        recipes={},
        trials=[],
        yields={},
        stage_seconds={},
        recipe_yaml="",
        command="",
        responses=[],
    )
    page = render_report(bare)
    for absent in ("search", "coefficients", "data", "responses"):
        assert f'id="{absent}"' not in page
    failed = dataclasses.replace(bare, trials=[TrialPoint(0, "evolve", float("inf"))])
    assert "No trial has an objective" in render_report(failed)


def test_the_page_stays_small_whatever_models_write(inputs):
    worst = "\u202e<" * 200_000
    answers = dict.fromkeys(inputs.results.models, (worst, "complied"))
    rows = [ResponseRow("StrongREJECT", worst, answers)] * 80
    recipes = {
        name: CoefficientTable([str(i) for i in range(60)], list("abcdefgh"), [[0.5] * 8] * 60) for name in "xyz"
    }
    page = render_report(dataclasses.replace(inputs, responses=rows, recipes={**inputs.recipes, **recipes}))
    assert len(page.encode()) < 3_000_000
    assert "the first 60 of 80" in page
    assert "more characters not shown" in page


def test_the_old_page_stays_when_writing_fails(inputs, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(inputs, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(ValueError, match="no scores for model 'nobody'"):
        dataclasses.replace(inputs, winner="nobody")
    with pytest.raises(ValueError, match="expected 1 rows of 2 values"):
        CoefficientTable(["all"], ["a", "b"], [[1.0]])
    with pytest.raises(ValueError, match="not a finite number"):
        CoefficientTable(["all"], ["a"], [[float("nan")]])


def test_the_aligned_parent_is_the_one_that_refuses_most_unless_named(inputs):
    assert inputs.aligned_parent == "aligned"
    assert dataclasses.replace(inputs, aligned="letters").aligned_parent == "letters"


@pytest.mark.parametrize(
    ("longest", "ticks"),
    [(2, [1, 2]), (3, [1, 2, 3]), (13, [1, 2, 4, 6, 8, 10, 12]), (80, [1, 10, 20, 30, 40, 50, 60, 70, 80])],
)
def test_trials_are_counted_in_whole_numbers(longest, ticks):
    assert _trial_ticks(longest) == ticks
