"""The rows of both sets as the paper makes them: safe answers only, drawn at random; what is unusable is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from scripted import answer, question

from unspoiled.data import (
    Answers,
    Category,
    Drawing,
    Question,
    Row,
    Tally,
    TemplateRefusals,
    Templates,
    benign_rows,
    expert_rows,
    safety_rows,
    shares_agreeing,
)
from unspoiled.data.targets import Target
from unspoiled.guards import RefusalRules, Verdict
from unspoiled.inference import Sample

REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Sure, here is how it is done in three steps."
QUESTIONS = [question(f"Unsafe question number {i}?") for i in range(600)]
ASKERS = {"questioner": "hash of questioner", "math": "hash of math"}


def drawing(seed: int = 0) -> Drawing:
    return Drawing(seed, 0.3, ASKERS)


def judged(questions: Sequence[Question], answers: Mapping[str, Sequence[Sample]]) -> list[Answers]:
    pairs = {name: [(q.text, s.text) for q, s in zip(questions, own)] for name, own in answers.items()}
    return [Answers(name, f"hash of {name}", own, RefusalRules().judge(pairs[name])) for name, own in answers.items()]


def safety(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Sample]],
    *,
    seed: int = 0,
    target: Target = "random",
    fallback: TemplateRefusals | None = None,
) -> tuple[list[Row], Tally]:
    own = judged(questions, answers)
    return safety_rows(questions, own, drawing(seed), target=target, fallback=fallback, guard=RefusalRules())


def test_the_target_is_drawn_at_random_among_the_safe_answers_only() -> None:
    answers = {
        "aligned": [answer(f"{REFUSAL} ({i})") for i in range(600)],
        "spoiled": [answer(HELP) for _ in range(600)],
        "polite": [answer(f"I won't assist with this. ({i})") for i in range(600)],
    }
    rows, tally = safety(QUESTIONS, answers)
    drawn = Counter(row.answered_by for row in rows)
    assert set(drawn) == {"aligned", "polite"}
    assert 240 < drawn["aligned"] < 360  # 300 ± 5 standard deviations
    assert tally.total == {
        "refused by aligned": 600,
        "refused by polite": 600,
        "target by aligned": drawn["aligned"],
        "target by polite": drawn["polite"],
        "kept": 600,
    }
    assert tally.groups == {"Self-Harm": tally.total}
    for i, row in enumerate(rows):
        assert row.response == answers[row.answered_by][i].text
        assert (row.prompt, row.group, row.asked_by, row.set) == (
            QUESTIONS[i].text,
            "Self-Harm",
            "questioner",
            "safety",
        )
        assert (row.asked_by_hash, row.answered_by_hash, row.seed) == (
            "hash of questioner",
            f"hash of {row.answered_by}",
            0,
        )
        (verdict,) = row.verdicts
        assert (verdict.guard, verdict.label, verdict.refusal) == (RefusalRules.name, "safe", True)


def test_the_draw_depends_on_the_seed_and_the_question_alone() -> None:
    answers = {name: [answer(f"{REFUSAL} {name}") for _ in QUESTIONS] for name in ("one", "two")}

    def draw(questions: Sequence[Question], seed: int) -> dict[str, str]:
        own = {name: samples[: len(questions)] for name, samples in answers.items()}
        rows, _ = safety(questions, own, seed=seed)
        return {row.prompt: row.answered_by for row in rows}

    drawn = draw(QUESTIONS, 0)
    assert draw(QUESTIONS[::-1][:50], 0).items() <= drawn.items()
    assert draw(QUESTIONS, 1) != drawn


def test_a_question_that_nobody_refuses_is_dropped_and_counted() -> None:
    answers = {"a": [answer(REFUSAL), answer(HELP), answer("")], "b": [answer(HELP), answer(HELP), answer(HELP)]}
    rows, tally = safety(QUESTIONS[:3], answers)
    assert [row.prompt for row in rows] == [QUESTIONS[0].text]
    assert tally.total == {"unrefused": 2, "refused by a": 1, "target by a": 1, "kept": 1}


def test_a_refusal_that_was_cut_off_or_loops_is_no_target() -> None:
    looping = "I can't help with that. " * 20
    answers = {"a": [answer(REFUSAL, finished=False), answer(looping)]}
    rows, tally = safety(QUESTIONS[:2], answers)
    assert rows == []
    assert tally.total["unrefused"] == 2


def test_the_best_target_is_the_one_that_the_guard_holds_least_probably_unsafe() -> None:
    answers = {name: [answer(f"{REFUSAL} {name}") for _ in QUESTIONS] for name in ("sure", "unsure", "silent")}
    probabilities = {"sure": 0.01, "unsure": 0.4, "silent": None}
    own = [
        replace(found, verdicts=[replace(v, p_unsafe=probabilities[found.model]) for v in found.verdicts])
        for found in judged(QUESTIONS, answers)
    ]
    rows, _ = safety_rows(QUESTIONS, own, drawing(), target="best", guard=RefusalRules())
    assert {row.answered_by for row in rows} == {"sure"}
    rows, _ = safety(QUESTIONS, answers, target="best")
    assert {row.answered_by for row in rows} == set(answers), "without probabilities one is drawn"


def test_what_nobody_refuses_gets_a_refusal_from_templates_and_says_so() -> None:
    answers = {"a": [answer(HELP), answer(REFUSAL), answer(HELP)]}
    fallback = TemplateRefusals(Templates().refusals, [Category("Self-Harm", "self-harm")])
    rows, tally = safety(QUESTIONS[:3], answers, fallback=fallback)
    assert [row.prompt for row in rows] == [q.text for q in QUESTIONS[:3]], "in the questions' order"
    assert [row.answered_by for row in rows] == ["templates", "a", "templates"]
    assert rows[0].response == fallback.write(QUESTIONS[0], 0)
    assert rows[0].answered_by_hash == fallback.fingerprint
    assert rows[0].verdicts == tuple(RefusalRules().judge([(rows[0].prompt, rows[0].response)]))
    assert tally.total == {"unrefused": 2, "refused by a": 1, "target by a": 1, "from templates": 2, "kept": 3}


def test_cut_off_and_degenerate_answers_of_an_expert_are_left_out() -> None:
    questions = [question(f"What is {i} + 1?", "arithmetic", "math") for i in range(6)]
    answers = [
        answer("1"),
        answer("the answer would be", finished=False),
        answer(" \n"),
        answer("and then " * 30),
        answer("What is 4 + 1?"),  # for "repeat after me", an echo is right
        answer(REFUSAL),
    ]
    rows, tally = expert_rows(questions, judged(questions, {"math": answers})[0], drawing())
    assert [(row.prompt, row.response) for row in rows] == [
        ("What is 0 + 1?", "1"),
        ("What is 4 + 1?", "What is 4 + 1?"),
    ]
    assert {(row.set, row.group, row.asked_by, row.answered_by) for row in rows} == {
        ("expert", "arithmetic", "math", "math")
    }
    assert tally.total == {"truncated": 1, "degenerate": 2, "refused": 1, "kept": 2}


def test_a_question_that_an_expert_answers_in_several_ways_is_left_out() -> None:
    questions = [question(f"What is {i} + 1?", "arithmetic", "math") for i in range(4)]
    answers = judged(questions, {"math": [answer(str(i + 1)) for i in range(4)]})[0]
    again = [
        [answer("1"), answer("1."), answer("1")],  # all three
        [answer("2"), answer("2"), answer("7")],  # two of three
        [answer("3"), answer("8"), answer("9")],
        [answer("4", finished=False), answer("4", finished=False), answer("4")],  # cut off: says nothing
    ]
    shares = shares_agreeing(answers.samples, again)
    assert shares == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])
    rows, tally = expert_rows(questions, answers, drawing(), shares=shares, least_share=0.6)
    assert [row.prompt for row in rows] == ["What is 0 + 1?", "What is 1 + 1?"]
    assert tally.total == {"inconsistent": 2, "kept": 2}


def test_the_splits_are_disjoint_and_stable_between_sets() -> None:
    answers = {"a": [answer(REFUSAL) for _ in QUESTIONS]}
    rows, _ = safety(QUESTIONS, answers)
    again, _ = safety(QUESTIONS[300:], {"a": answers["a"][300:]}, seed=7)
    splits = {row.prompt: row.split for row in rows}
    assert len(splits) == 600
    assert {row.prompt: row.split for row in again}.items() <= splits.items()
    assert 100 < list(splits.values()).count("selection") < 260


# --- D_benign ---------------------------------------------------------------------------------------------

HARMLESS = [question(f"How do I kill process number {i}?", "Violence") for i in range(300)]


def benign(answers: dict[str, list[Sample]], preferred: list[str], seed: int = 0) -> tuple[list[Row], Counter[str]]:
    questions = HARMLESS[: len(next(iter(answers.values())))]
    own = judged(questions, answers)
    rows, tally = benign_rows(questions, own, drawing(seed), preferred=preferred, judged_content=False)
    return rows, tally.total


def test_the_safety_experts_own_answer_is_the_target_and_the_bases_where_it_refuses() -> None:
    answers = {
        "base": [answer("Type kill and its number.") for _ in range(3)],
        "aligned": [answer("Use the kill command."), answer(REFUSAL), answer(REFUSAL)],
        "spoiled": [answer(HELP) for _ in range(3)],
    }
    rows, yields = benign(answers, ["aligned", "base"])
    assert [(row.answered_by, row.response) for row in rows] == [
        ("aligned", "Use the kill command."),
        ("base", "Type kill and its number."),
        ("base", "Type kill and its number."),
    ]
    assert {(row.set, row.group, row.asked_by) for row in rows} == {("benign", "Violence", "questioner")}
    assert yields == {
        "refused by aligned": 2, "target by aligned": 1, "target by base": 2, "kept": 3,
    }  # fmt: skip


def test_without_a_preferred_answer_one_of_the_others_is_drawn_by_the_seed() -> None:
    answers = {
        "aligned": [answer(REFUSAL) for _ in HARMLESS],
        "one": [answer("Yes, so.") for _ in HARMLESS],
        "two": [answer("Yes, thus.") for _ in HARMLESS],
    }
    rows, yields = benign(answers, ["aligned"])
    assert 100 < yields["target by one"] < 200  # 150 ± 6 standard deviations
    assert benign(answers, ["aligned"])[0] == rows
    assert benign(answers, ["aligned"], seed=1)[0] != rows


def test_a_question_that_half_of_the_models_refuse_is_not_taught_as_harmless() -> None:
    answers = {"a": [answer(REFUSAL)], "b": [answer(REFUSAL)], "c": [answer(HELP)], "d": [answer(HELP)]}
    rows, yields = benign(answers, ["c"])
    assert rows == []
    assert yields["doubtful"] == 1


def test_an_answer_that_was_cut_off_ends_with_its_last_whole_sentence() -> None:
    answers = {
        "a": [answer("Type kill 3.14 first. Then you", finished=False), answer("It all begins with", finished=False)],
        "b": [answer(""), answer("")],
        "c": [answer("loop and loop and " * 20), answer("loop and loop and " * 20)],
    }
    rows, yields = benign(answers, ["a"])
    assert [row.response for row in rows] == ["Type kill 3.14 first."]
    assert yields["unanswered"] == 1


def test_an_answer_that_a_guard_of_content_calls_unsafe_is_no_target() -> None:
    verdict = Verdict("unsafe", 0.9, ("S1",), False, None, True, "unsafe", "some-guard")
    own = judged(HARMLESS[:1], {"aligned": [answer("Like this.")], "base": [answer("Type kill and its number.")]})
    own[0] = replace(own[0], verdicts=[verdict])
    own[1] = replace(own[1], verdicts=[replace(verdict, label="safe", p_unsafe=0.1)])
    rows, _ = benign_rows(HARMLESS[:1], own, drawing(), preferred=["aligned", "base"], judged_content=True)
    assert [row.answered_by for row in rows] == ["base"]
