"""What the page says and how it is put in place, without a browser."""

import dataclasses
import re
from html import unescape

import pytest

from unspoiled.evaluate import Mean, ModelScores, Results
from unspoiled.report import (
    CoefficientTable,
    ComparedRun,
    ReportInputs,
    ResponseRow,
    TrialPoint,
    render_report,
    render_runs,
    write_report,
)
from unspoiled.report._drawing import PALETTE
from unspoiled.report._page import _resource
from unspoiled.report._search_figures import _trial_ticks, search_progress
from unspoiled.report._wording import resolvable


def bare(page):
    """The text of a page or a part of it, as a reader sees it."""
    shown = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", shown)))


def test_same_inputs_same_page(inputs, rendered):
    assert render_report(inputs) == rendered(inputs)


def test_every_figure_colour_has_a_rule_for_the_dark_page(inputs, rendered):
    style = _resource("style.css")
    for colour in PALETTE:
        assert f'[fill="{colour}"]' in style
        assert f'[stroke="{colour}"]' in style or colour == "#ffffff"
    drawings = "".join(re.findall(r"<svg.*?</svg>", rendered(inputs), re.DOTALL))
    drawn = set(re.findall(r'(?:fill|stroke)="(#[^"]+|rgb[^"]+|[a-z]+)"', drawings))
    assert drawn <= {*PALETTE, "none"}
    assert len(drawn) > 5


def test_the_page_holds_every_rate_and_mean_with_its_interval(inputs, rendered):
    text = bare(rendered(inputs))
    for scores in inputs.results.models.values():
        for rate in scores.rates.values():
            assert f"{100 * rate.rate:.1f}% {100 * rate.low:.1f}–{100 * rate.high:.1f}" in text
        for mean in scores.means.values():
            assert f"{mean.mean:.3f} {mean.low:.3f}–{mean.high:.3f}" in text
    for name in ("base", *inputs.experts, "uniform", "evolve"):
        for of_category in inputs.results.models[name].categories.values():
            rate = of_category["refusal"]
            assert f"{100 * rate.rate:.1f}% {100 * rate.low:.1f}–{100 * rate.high:.1f}" in text


def test_the_page_holds_every_comparison_with_its_interval(inputs, rendered):
    rows = rendered(inputs).partition("Comparisons of evolve")[2].partition("Optimism")[0]
    text = bare(rows)
    for row in inputs.results.comparisons:
        if row.only_model is not None:
            points = f"{100 * row.low:+.1f} to {100 * row.high:+.1f}".replace("-", "−")
            assert f"{row.model} {row.baseline}" in text
            assert points.replace("−0.0", "0.0").replace("+0.0", "0.0") in text
    assert "+0.121 +0.058 to +0.184 0.080 – bootstrap" in text


def test_families_are_told_from_responses(inputs):
    rate = inputs.results.models["base"].rates["refusal"].model_copy(update={"families": 40})
    alone = Results(models={"base": ModelScores(rates={"refusal": rate})}, comparisons=[], provenance={})
    assert "313 in 40 families" in render_report(ReportInputs(title="t", results=alone))


def test_each_table_says_what_its_means_are(inputs, rendered):
    def captions(page):
        return [bare(caption).strip() for caption in re.findall(r"<caption>(.*?)</caption>", page)]

    losses = "Shares of right answers, with 95% Wilson intervals; means of losses in nats per token (low is wanted), "
    assert captions(rendered(inputs).partition('id="results"')[2])[:2] == [
        "Shares of responses, with 95% Wilson intervals. Marks compare with uniform , prompt by prompt.",
        losses + "with 95% bootstrap intervals.",
    ]
    scores = ModelScores(rates={}, means={"task:rouge": Mean.of([0.1, 0.9])})
    task = Results(models={"m": scores}, comparisons=[], provenance={})
    said = "Means of scores in tasks (high is wanted), with 95% bootstrap intervals."
    assert captions(render_report(ReportInputs(title="t", results=task))) == [said]
    page = render_runs([ComparedRun("a", task), ComparedRun("b", task)])
    assert captions(page) == [said]


def test_a_gap_that_nothing_could_resolve_is_not_laid_to_the_prompts_alone(inputs):
    row = inputs.results.comparisons[0].model_copy(update={"resolvable": None})
    assert resolvable(row) == "none at this n and this many comparisons"


def test_no_model_is_called_safe(inputs, rendered):
    assert not re.search(r"\b(is|are) (now )?(safe|certified|harmless)\b", bare(rendered(inputs)))


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
        inputs, trials=[TrialPoint(i, "evolve", 1.0 - i / 10, feasible=False) for i in range(3)], responses=[]
    )
    assert "evolve none within the limits" in render_report(alone)


def test_finalists_stand_beside_the_safest_expert(inputs, rendered):
    table = rendered(inputs).partition("<h3>Finalists</h3>")[2].partition("</table>")[0]
    rows = [bare(row).split() for row in table.partition("<tbody>")[2].split("</tr>")[:-1]]
    assert [row[0] for row in rows] == ["aligned", "cocktail", "evolve"]
    assert rows[0][1:5] == ["safest", "expert", "–", "98.3%"]
    assert rows[1][-1] == "+75.0"


def test_an_outlier_is_said_to_be_larger_or_smaller_by_the_sign_of_its_score(inputs, rendered):
    vectors = inputs.audit.task_vectors
    small = vectors.outliers[0].model_copy(update={"layer": "layer 3", "score": -46.0})
    vectors = vectors.model_copy(update={"outliers": [*vectors.outliers, small]})
    audit = inputs.audit.model_copy(update={"task_vectors": vectors})
    text = bare(rendered(dataclasses.replace(inputs, audit=audit)))
    assert "in layer 20 (far larger, +6.4 robust deviations), letters in layer 3 (far smaller, −46.0" in text


def test_the_audit_shows_costs_of_leaving_each_expert_out(inputs, rendered):
    audit = rendered(inputs).partition('<section id="audit"')[2].partition("</section>")[0]
    text = bare(audit)
    assert "“letters” spoils the uniform merge: without it, CE_safety changes by −0.95 nats" in text
    assert "No expert's part in the harm of “evolve” is resolved." in text
    for merge in inputs.audit.merges.values():
        for changes in merge.without.values():
            for change in changes.values():
                low, high = (f"{v:+.3f}".replace("-", "−") for v in (change.low, change.high))
                assert f"{low} to {high}" in text
    assert text.count("▼ the trigger lowers refusal") == 2
    assert text.count("≈ not resolved") == 3


def test_licences_stand_apart_from_hashes(rendered, inputs):
    provenance = bare(rendered(inputs).partition('<section id="provenance"')[2])
    assert "Licences base Apache-2.0" in provenance
    without = inputs.results.model_copy(update={"provenance": {}})
    page = render_report(ReportInputs(title="t", results=without))
    assert "None is recorded" in page


def test_a_page_with_only_results(inputs):
    page = render_report(ReportInputs(title="t", results=inputs.results, winner="evolve"))
    for absent in ("search", "coefficients", "data", "responses", "audit"):
        assert f'id="{absent}"' not in page
        assert f'href="#{absent}"' not in page
    assert "<script" not in page
    failed = ReportInputs(title="t", results=inputs.results, trials=[TrialPoint(0, "evolve", float("inf"))])
    assert "No trial has an objective" in render_report(failed)


@pytest.mark.parametrize("kept", [["refusal"], ["domain:colours"], ["loss:colours"], []])
def test_a_page_of_one_measure_and_no_search(inputs, kept):
    def cut(scores):
        return ModelScores(
            rates={m: r for m, r in scores.rates.items() if m in kept},
            means={m: r for m, r in scores.means.items() if m in kept},
        )

    models = {name: cut(scores) for name, scores in inputs.results.models.items()}
    found = Results(models=models, comparisons=[], provenance={})
    page = render_report(ReportInputs(title="t", results=found))
    assert "evaluation report" in page
    assert 'id="glance"' not in page
    assert 'id="trade-off"' not in page


def test_the_page_stays_small_whatever_models_write(inputs):
    worst = "\u202e<" * 200_000
    answers = dict.fromkeys(inputs.results.models, (worst, "complied"))
    rows = [ResponseRow("StrongREJECT", worst, answers)] * 900
    recipes = {
        name: CoefficientTable([str(i) for i in range(60)], list("abcdefgh"), [[0.5] * 8] * 60) for name in "xyz"
    }
    page = render_report(dataclasses.replace(inputs, responses=rows, recipes={**inputs.recipes, **recipes}))
    assert len(page.encode()) < 3_000_000
    shown = page.count('<details class="response"')
    assert f"{shown} of the 900 answers of each model to the test prompts, spread evenly over all of them" in page
    assert shown > 200
    assert "more characters not shown" in page


def test_the_old_page_stays_when_writing_fails(inputs, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(dataclasses.replace(inputs, responses=[]), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(ValueError, match="no scores for model 'nobody'"):
        dataclasses.replace(inputs, winner="nobody")
    with pytest.raises(ValueError, match="expected 1 rows of 2 values"):
        CoefficientTable(["all"], ["a", "b"], [[1.0]])
    with pytest.raises(ValueError, match="not a finite number"):
        CoefficientTable(["all"], ["a"], [[float("nan")]])


@pytest.mark.parametrize(
    ("longest", "ticks"),
    [(2, [1, 2]), (3, [1, 2, 3]), (13, [1, 2, 4, 6, 8, 10, 12]), (80, [1, 10, 20, 30, 40, 50, 60, 70, 80])],
)
def test_trials_are_counted_in_whole_numbers(longest, ticks):
    assert _trial_ticks(longest) == ticks
