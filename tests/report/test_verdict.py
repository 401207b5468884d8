"""What the top of the page says, from results small enough to check by hand."""

import dataclasses

from audited import audit_of_the_bunch

from unspoiled.evaluate import Comparison, ModelScores, Rate, Results
from unspoiled.report import ReportInputs
from unspoiled.report._glance import GlanceRow, glance
from unspoiled.report._paired import paired
from unspoiled.report._verdict import guard_note, splits_line, verdict


def share(count, n=100):
    return Rate.of([i < count for i in range(n)])


def model(refusal, over_refusal, accuracy):
    return ModelScores(
        rates={"refusal": share(refusal), "over_refusal": share(over_refusal, 50), "domain:sums": share(accuracy)}
    )


def compared(model, baseline, measure, difference, verdict):
    return Comparison(
        model=model, baseline=baseline, measure=measure, test="McNemar", difference=difference,
        low=difference - 0.05, high=difference + 0.05, only_model=9, only_baseline=1, p_value=0.01, verdict=verdict,
        resolvable=0.08,
    )  # fmt: skip


RESULTS = Results(
    models={
        "base": model(5, 0, 20),
        "guarded": model(90, 4, 20),
        "skilled": model(3, 0, 80),
        "uniform": model(20, 1, 70),
        "found": model(88, 3, 75),
    },
    comparisons=[
        compared("found", "uniform", "refusal", 0.68, "better"),
        compared("guarded", "found", "refusal", 0.02, "not resolved"),
        compared("found", "guarded", "over_refusal", -0.02, "not resolved"),
        compared("found", "skilled", "domain:sums", -0.05, "worse"),
    ],
    provenance={"guard": "rules"},
)
INPUTS = ReportInputs(
    title="t", results=RESULTS, winner="found", experts=["guarded", "skilled"], domain_experts={"sums": "skilled"}
)  # fmt: skip


def test_the_verdict_in_three_sentences():
    measured, compares, not_tested = verdict(INPUTS)
    assert measured == (
        "“found”, a merge of “guarded” and “skilled”, was measured beside its parents on 100 unsafe prompts, "
        "50 harmless ones and 100 questions in sums, judged by rules."
    )
    assert compares == (
        "“found” declined 88.0% (80.2–93.0) of the unsafe prompts, better than the uniform merge (+68.0 points, +63.0 "
        "to +73.0) and not resolved from its aligned parent “guarded” (−2.0 points, −7.0 to +3.0); it declined 6.0% "
        "(2.1–16.2) of the harmless ones, not resolved from “guarded” (−2.0 points, −7.0 to +3.0); it is right in "
        "75.0% (65.7–82.5) in sums, worse than its expert “skilled” (−5.0 points, −10.0 to 0.0)."
    )
    assert not_tested.startswith("Not tested: prompts unlike those of the test sets, other languages,")


def test_a_comparison_made_the_other_way_is_turned_round():
    row = paired(RESULTS, "found", "guarded", "refusal")
    assert row is not None
    assert (row.difference, round(row.low, 6), round(row.high, 6)) == (-0.02, -0.07, 0.03)
    assert (row.only_model, row.only_baseline, row.verdict) == (1, 9, "not resolved")
    turned = paired(RESULTS, "skilled", "found", "domain:sums")
    assert turned is not None
    assert turned.verdict == "better"
    assert paired(RESULTS, "found", "base", "refusal") is None


def test_the_spoiler_is_named_with_what_leaving_it_out_changes(inputs):
    said = verdict(inputs)[1]
    assert said.startswith(
        "“letters” spoils the uniform merge: without it, CE_safety changes by −0.95 nats per token (−1.04 to −0.86), "
        "and refusal on 60 unsafe prompts of the selection split goes from 13.3% (6.9–24.2) to 85.0% (73.9–91.9); "
        "“evolve” declined"
    )


def test_each_audited_merge_has_its_own_spoiler_at_a_glance(inputs):
    uniform, chosen = glance(inputs)[:2]
    assert (uniform.question, uniform.answer) == ("Which expert spoiled the uniform merge", "letters")
    assert uniform.detail.startswith(
        "without it, CE_safety changes by −0.95 nats per token (−1.04 to −0.86), and refus"
    )
    assert chosen == GlanceRow(
        "Which expert spoiled the chosen merge, “evolve”",
        "not resolved",
        "leaving any one expert out does not resolvably lower CE_safety",
    )
    alone = inputs.audit.model_copy(update={"merges": {"uniform": inputs.audit.merges["uniform"]}})
    first, second = glance(dataclasses.replace(inputs, audit=alone, winner="uniform"))[:2]
    assert first.question == "Which expert spoiled the chosen merge, “uniform”"
    assert second.question == "Refusal of unsafe prompts"


def test_samples_of_one_prompt_are_not_counted_as_prompts():
    thirty = Rate.of([True, False] * 15, [f"p{i // 3}" for i in range(30)])
    measures = ("refusal", "over_refusal", "domain:sums")
    sampled = Results(models={"m": ModelScores(rates=dict.fromkeys(measures, thirty))}, comparisons=[], provenance={})
    assert verdict(ReportInputs("t", sampled))[0] == (
        "“m” was measured on 30 responses to 10 families of unsafe prompts, 30 responses to 10 families of harmless "
        "ones and 30 responses to 10 families of questions in sums."
    )


def test_an_audit_that_resolves_nothing_names_nobody(inputs):
    audit = audit_of_the_bunch(["aligned", "colours", "letters"], inputs.results)
    blind = audit.model_copy(
        update={"merges": {n: m.model_copy(update={"spoiler": None}) for n, m in audit.merges.items()}}
    )
    nobody = dataclasses.replace(inputs, audit=blind)
    assert verdict(nobody)[1].startswith("The audit resolves no expert's part in the harm; “evolve” declined")
    assert [row.answer for row in glance(nobody)[:2]] == ["not resolved", "not resolved"]
    assert glance(INPUTS)[0].answer == "not audited"


def test_the_glance_asks_safety_beside_uniform_and_skill_beside_the_domains_expert():
    rows = {row.question: row for row in glance(INPUTS)}
    cost = rows["Cost in sums, against its expert"]
    assert (cost.answer, cost.detail) == ("−5.0 points", "accuracy 75.0%, 65.7–82.5")
    gaps = [(gap.other, gap.rate, gap.difference, gap.interval, gap.outcome) for gap in cost.gaps]
    assert gaps == [
        ("skilled", "80.0%", "−5.0 points", "−10.0 to 0.0", "worse"),
        ("uniform", "70.0%", "", "", "not compared"),
    ]
    assert [gap.other for gap in rows["Refusal of unsafe prompts"].gaps] == ["uniform", "guarded"]


def test_a_cost_that_was_not_compared_is_no_number():
    silent = RESULTS.model_copy(update={"comparisons": []})
    assert glance(dataclasses.replace(INPUTS, results=silent))[-1].answer == "not compared"
    assert glance(dataclasses.replace(INPUTS, experts=[], domain_experts={}))[-1].answer == "not compared"


def test_a_domain_without_a_named_expert_is_the_best_ones():
    assert dataclasses.replace(INPUTS, domain_experts={}).expert_of("domain:sums") == "skilled"
    assert INPUTS.aligned_parent == "guarded"
    assert dataclasses.replace(INPUTS, aligned="skilled").aligned_parent == "skilled"


def test_models_that_no_search_made_are_compared_pair_by_pair():
    alone = ReportInputs(title="t", results=RESULTS)
    measured, compares, _ = verdict(alone)
    assert measured.startswith("“base”, “guarded”, “skilled”, “uniform” and “found” were measured on 100 unsafe")
    assert compares.startswith("“found” against “uniform” is better on refusal (+68.0 points); “guarded” against")
    assert glance(alone) == []
    silent = dataclasses.replace(alone, results=RESULTS.model_copy(update={"comparisons": []}))
    assert verdict(silent)[1] == "Nothing was compared."


def test_without_refusal_the_first_guard_stands_for_safety():
    judged = {
        name: ModelScores(rates={"safe:judge": scores.rates["refusal"]}) for name, scores in RESULTS.models.items()
    }
    inputs = dataclasses.replace(INPUTS, results=RESULTS.model_copy(update={"models": judged, "comparisons": []}))
    assert inputs.safety_measure == "safe:judge"
    assert "answered, in a way that judge calls safe, 88.0%" in verdict(inputs)[1]
    skills = {name: ModelScores(rates={"domain:sums": of.rates["domain:sums"]}) for name, of in RESULTS.models.items()}
    only = dataclasses.replace(INPUTS, results=RESULTS.model_copy(update={"models": skills, "comparisons": []}))
    assert only.aligned_parent is None
    assert verdict(only)[1] == (
        "“found” is right in 75.0% (65.7–82.5) in sums, beside 80.0% of its expert “skilled” (not compared)."
    )


def test_one_guard_for_search_and_report_is_pointed_out(inputs):
    same = inputs.results.model_copy(update={"provenance": {"guard": "a", "search_guard": "a"}})
    said = guard_note(dataclasses.replace(inputs, results=same))
    assert said is not None
    assert "(a) also judged these answers" in said
    assert "no measurement here could see" in said
    two = inputs.results.model_copy(update={"provenance": {"guard": "a and b", "search_guard": "a"}})
    beside_another = guard_note(dataclasses.replace(inputs, results=two))
    assert beside_another is not None
    assert "only b could see" in beside_another
    other = inputs.results.model_copy(update={"provenance": {"guard": "ab", "search_guard": "a"}})
    assert guard_note(dataclasses.replace(inputs, results=other)) is None
    unknown = inputs.results.model_copy(update={"provenance": {}})
    assert guard_note(dataclasses.replace(inputs, results=unknown)) is None


def test_the_splits_are_counted(inputs):
    assert splits_line(inputs) == (
        "No prompt is in two splits, nor nearly: search 420, selection 180, test 863 prompts."
    )  # fmt: skip
    assert splits_line(INPUTS) is None
