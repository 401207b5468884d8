"""The rows of both sets as the paper makes them: safe answers only, drawn at random; what is unusable is counted."""

from collections import Counter
from collections.abc import Sequence

from scripted import answer, question

from unspoiled.data import Question, Row, benign_rows, expert_rows, safety_rows
from unspoiled.guards import RefusalRules, Verdict
from unspoiled.inference import Progress, Sample, silent

REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Sure, here is how it is done in three steps."
QUESTIONS = [question(f"Unsafe question number {i}?") for i in range(600)]


def test_the_target_is_drawn_at_random_among_the_safe_answers_only() -> None:
    answers = {
        "aligned": [answer(f"{REFUSAL} ({i})") for i in range(600)],
        "spoiled": [answer(HELP) for _ in range(600)],
        "polite": [answer(f"I won't assist with this. ({i})") for i in range(600)],
    }
    rows, yields = safety_rows(QUESTIONS, answers, RefusalRules(), seed=0, selection_share=0.3)
    drawn = Counter(row.answered_by for row in rows)
    assert set(drawn) == {"aligned", "polite"}
    assert 240 < drawn["aligned"] < 360  # 300 ± 5 standard deviations
    assert yields == {"unrefused": 0, "refused by aligned": 600, "refused by polite": 600, "kept": 600}
    for i, row in enumerate(rows):
        assert row.response == answers[row.answered_by][i].text
        assert (row.prompt, row.group, row.asked_by, row.set) == (
            QUESTIONS[i].text,
            "Self-Harm",
            "questioner",
            "safety",
        )


def test_the_draw_depends_on_the_seed_and_the_question_alone() -> None:
    answers = {name: [answer(f"{REFUSAL} {name}") for _ in QUESTIONS] for name in ("one", "two")}

    def draw(questions: Sequence[Question], seed: int) -> dict[str, str]:
        own = {name: samples[: len(questions)] for name, samples in answers.items()}
        rows, _ = safety_rows(questions, own, RefusalRules(), seed=seed, selection_share=0.3)
        return {row.prompt: row.answered_by for row in rows}

    drawn = draw(QUESTIONS, 0)
    assert draw(QUESTIONS[::-1][:50], 0).items() <= drawn.items()
    assert draw(QUESTIONS, 1) != drawn


def test_a_question_that_nobody_refuses_is_dropped_and_counted() -> None:
    answers = {"a": [answer(REFUSAL), answer(HELP), answer("")], "b": [answer(HELP), answer(HELP), answer(HELP)]}
    rows, yields = safety_rows(QUESTIONS[:3], answers, RefusalRules(), seed=0, selection_share=0.3)
    assert [row.prompt for row in rows] == [QUESTIONS[0].text]
    assert yields == {"unrefused": 2, "refused by a": 1, "kept": 1}


def test_a_refusal_that_was_cut_off_or_loops_is_no_target() -> None:
    looping = "I can't help with that. " * 20
    answers = {"a": [answer(REFUSAL, finished=False), answer(looping)]}
    rows, yields = safety_rows(QUESTIONS[:2], answers, RefusalRules(), seed=0, selection_share=0.3)
    assert rows == []
    assert yields["unrefused"] == 2


def test_the_guard_judges_the_answer_to_its_own_question() -> None:
    class Recorder:
        name = fingerprint = "recorder"

        def __init__(self) -> None:
            self.pairs: list[tuple[str, str]] = []

        def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
            self.pairs += pairs
            return [Verdict("safe", None, (), True, None, True, "", self.name) for _ in pairs]

    guard = Recorder()
    answers = {"a": [answer("a0"), answer("a1")], "b": [answer("b0"), answer("b1")]}
    safety_rows(QUESTIONS[:2], answers, guard, seed=0, selection_share=0.3)
    first, second = (q.text for q in QUESTIONS[:2])
    assert guard.pairs == [(first, "a0"), (second, "a1"), (first, "b0"), (second, "b1")]


def test_cut_off_and_degenerate_answers_of_an_expert_are_left_out() -> None:
    questions = [question(f"What is {i} + 1?", "arithmetic", "math") for i in range(5)]
    answers = [
        answer("1"),
        answer("the answer would be", finished=False),
        answer(" \n"),
        answer("and then " * 30),
        answer("What is 4 + 1?"),  # for "repeat after me", an echo is right
    ]
    rows, yields = expert_rows(questions, answers, selection_share=0.3)
    assert [(row.prompt, row.response) for row in rows] == [
        ("What is 0 + 1?", "1"),
        ("What is 4 + 1?", "What is 4 + 1?"),
    ]
    assert {(row.set, row.group, row.asked_by, row.answered_by) for row in rows} == {
        ("expert", "arithmetic", "math", "math")
    }
    assert yields == {"truncated": 1, "degenerate": 2, "kept": 2}


def test_the_splits_are_disjoint_and_stable_between_sets() -> None:
    answers = {"a": [answer(REFUSAL) for _ in QUESTIONS]}
    rows, _ = safety_rows(QUESTIONS, answers, RefusalRules(), seed=0, selection_share=0.3)
    again, _ = safety_rows(QUESTIONS[300:], {"a": answers["a"][300:]}, RefusalRules(), seed=7, selection_share=0.3)
    splits = {row.prompt: row.split for row in rows}
    assert len(splits) == 600
    assert {row.prompt: row.split for row in again}.items() <= splits.items()
    assert 100 < list(splits.values()).count("selection") < 260


# --- D_benign ---------------------------------------------------------------------------------------------

HARMLESS = [question(f"How do I kill process number {i}?", "Violence") for i in range(300)]


def benign(answers: dict[str, list[Sample]], preferred: list[str], **options: int) -> tuple[list[Row], Counter[str]]:
    count = len(next(iter(answers.values())))
    seed = options.get("seed", 0)
    return benign_rows(HARMLESS[:count], answers, RefusalRules(), preferred=preferred, seed=seed, selection_share=0.3)


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
        "doubtful": 0, "unanswered": 0, "refused by aligned": 2, "answers by aligned": 1,
        "answers by base": 2, "kept": 3,
    }  # fmt: skip


def test_without_a_preferred_answer_one_of_the_others_is_drawn_by_the_seed() -> None:
    answers = {
        "aligned": [answer(REFUSAL) for _ in HARMLESS],
        "one": [answer("Yes, so.") for _ in HARMLESS],
        "two": [answer("Yes, thus.") for _ in HARMLESS],
    }
    rows, yields = benign(answers, ["aligned"])
    assert 100 < yields["answers by one"] < 200  # 150 ± 6 standard deviations
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
