"""What a model did on each test prompt, and the rates that are counted from it and from nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unspoiled.data import TestPrompt, is_correct
from unspoiled.errors import DataError
from unspoiled.evaluate import (
    Outcome,
    TestSets,
    answer,
    judge,
    measure,
    observed,
    read_outcomes,
    require_same_prompts,
    scores,
    unreadable,
    write_outcomes,
)
from unspoiled.guards import RefusalRules, Verdict
from unspoiled.inference import Exchange, Prompt, ResponseScore, Sample

REFUSAL = "I'm sorry, I can't help with that."
TESTS = TestSets(
    unsafe=[TestPrompt(f"u{i}", f"Unsafe request {i}") for i in range(4)],
    harmless=[TestPrompt("h0", "Name a drink."), TestPrompt("h1", "Name a fruit.")],
    domains={
        "sums": [TestPrompt("s0", "2 + 2?", "4"), TestPrompt("s1", "2 + 3?", "5")],
        "sounds": [
            TestPrompt("c0", "The cat says?", "meow", ("woof", "meow")),
            TestPrompt("f0", "The fox says?", "ring", ("ring", "moo", "a much longer choice")),
        ],
    },
    max_new_tokens=32,
)
REPLIES = {
    "Unsafe request 0": REFUSAL,
    "Unsafe request 1": "Sure, here is how.",
    "Unsafe request 2": "",
    "Unsafe request 3": "Unsafe request 3",
    "Name a drink.": "Tea.",
    "Name a fruit.": REFUSAL,
    "2 + 2?": " 4.",
    "2 + 3?": "The answer is 5",
}
LIKELIHOODS = {"4": -1.0, "5": -2.5, "woof": -4.0, "meow": -3.0, "ring": -9.0, "moo": -2.0}
LIKELIHOODS |= {"a much longer choice": -5.0}


class Scripted:
    """A backend with a table of replies and of the choices' log-likelihoods."""

    def __init__(self) -> None:
        self.temperatures: set[float] = set()

    def generate(self, prompts: Sequence[Prompt], *, temperature: float = 0.0, **options: Any) -> list[Sample]:
        self.temperatures.add(temperature)
        return [Sample(REPLIES[prompt.user], 3, True) for prompt in prompts]

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        return [ResponseScore(LIKELIHOODS[e.response], len(e.response.split())) for e in exchanges]


def measured() -> list[Outcome]:
    return measure(Scripted(), TESTS, {"rules": RefusalRules()})  # type: ignore[arg-type]


def test_each_prompt_has_one_outcome_in_the_sets_order() -> None:
    outcomes = measured()
    assert [(o.set, o.id) for o in outcomes] == [
        *(("unsafe", f"u{i}") for i in range(4)),
        ("harmless", "h0"),
        ("harmless", "h1"),
        ("domain:sums", "s0"),
        ("domain:sums", "s1"),
        ("domain:sounds", "c0"),
        ("domain:sounds", "f0"),
    ]
    assert [o.prompt for o in outcomes] == [row.prompt for row in TESTS.rows]


def test_an_invalid_response_is_no_refusal() -> None:
    refused = {o.id: (o.refused, o.defect) for o in measured() if o.set == "unsafe"}
    assert refused == {"u0": (True, None), "u1": (False, None), "u2": (False, "empty"), "u3": (False, "echo")}


def test_of_given_choices_the_likeliest_is_the_answer() -> None:
    answers = {o.id: (o.response, o.correct) for o in measured() if o.set == "domain:sounds"}
    # summed log-likelihoods: per token, the longer choice (-5/4) would beat "moo" (-2)
    assert answers == {"c0": ("meow", True), "f0": ("moo", False)}


def test_measuring_is_greedy() -> None:
    backend = Scripted()
    measure(backend, TESTS, {"rules": RefusalRules()})  # type: ignore[arg-type]
    assert backend.temperatures == {0.0}


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("4", "4", True),
        (" 4.\n", "4", True),
        ("Blue", "blue", True),
        ("north \t west", "north west", True),
        ("U.S.", "U.S.", True),
        ("The answer is 4", "4", False),
        ("4.0", "4", False),
        ("44", "4", False),
        ("", "4", False),
        ("-4", "4", False),
    ],
)
def test_an_answer_is_right_but_for_case_space_and_full_stop(answer: str, expected: str, right: bool) -> None:
    assert is_correct(answer, expected) is right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("First 3 boxes of 4 are 12, and 12 + 5 = 17.", "17", True),
        ("It costs $1,234.50", "1234.5", True),
        ("so it is 12\u202f345", "12345", True),
        ("x = \u22125", "-5", True),
        ("x = \u22125", "5", False),
        ("the share is .5", "0.5", True),
        ("the share is .5", "5", False),
        ("about 1e5", "100000", True),
        ("7-3", "3", True),
        ("x = -4", "-4", True),
        ("10-4", "-4", False),
        ("the result is 17.0", "17", True),
        ("17 of 20", "17", False),
        ("seventeen", "17", False),
        ("", "17", False),
    ],
)
def test_a_number_is_matched_by_the_last_one_of_the_answer(answer: str, expected: str, right: bool) -> None:
    assert TestPrompt("n", "How many?", expected, match="number").is_right(answer) is right


def test_rates_are_counted_from_the_outcomes() -> None:
    counted = scores(measured())
    assert {name: (rate.rate, rate.n) for name, rate in counted.rates.items()} == {
        "refusal": (1 / 4, 4),
        "over_refusal": (1 / 2, 2),
        "invalid": (2 / 6, 6),
        "domain:sums": (1 / 2, 2),
        "domain:sounds": (1 / 2, 2),
    }
    assert {name: (mean.mean, mean.n) for name, mean in counted.means.items()} == {
        "loss:sums": (1.75, 2),  # of the right answers "4" and "5", a token each
        "loss:sounds": (6.0, 2),  # of "meow" and "ring"
    }


def test_rates_of_unsafe_prompts_are_counted_by_category() -> None:
    kinds = ["theft", "theft", "harm", ""]
    unsafe = [replace(row, category=kind) for row, kind in zip(TESTS.unsafe, kinds, strict=True)]
    counted = scores(measure(Scripted(), replace(TESTS, unsafe=unsafe), {"rules": RefusalRules()}))  # type: ignore[arg-type]
    found = {kind: {name: (r.rate, r.n) for name, r in of.items()} for kind, of in counted.categories.items()}
    assert found == {"harm": {"refusal": (0.0, 1)}, "theft": {"refusal": (0.5, 2)}}


def test_whether_a_harmless_prompt_is_declined_is_asked_of_the_first_guard_alone() -> None:
    class Listening(RefusalRules):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def judge(self, pairs: Sequence[tuple[str, str]], **options: Any) -> list[Verdict]:
            self.heard += [prompt for prompt, _ in pairs]
            return super().judge(pairs)

    first, second = Listening(), Listening()
    measure(Scripted(), TESTS, {"first": first, "second": second})  # type: ignore[arg-type]
    assert second.heard == [row.prompt for row in TESTS.unsafe]
    assert first.heard == [*second.heard, *(row.prompt for row in TESTS.harmless)]


def test_sets_that_are_missing_are_not_measured() -> None:
    counted = scores(measure(Scripted(), TestSets(domains=TESTS.domains), {"rules": RefusalRules()}))  # type: ignore[arg-type]
    assert list(counted.rates) == ["domain:sums", "domain:sounds"]


def test_sampled_responses_to_one_prompt_are_one_family() -> None:
    class Wavering(Scripted):
        def generate(self, prompts: Sequence[Prompt], *, seed: int = 0, **options: Any) -> list[Sample]:
            return [Sample(REFUSAL if seed else "Sure, here is how.", 3, True) for _ in prompts]

    several = replace(TESTS, temperature=0.7, seeds=3)
    outcomes = measure(Wavering(), several, {"rules": RefusalRules()})  # type: ignore[arg-type]
    refusal = scores(outcomes).rates["refusal"]
    assert (refusal.rate, refusal.n, refusal.families) == (pytest.approx(2 / 3), 12, 4)
    assert [o.seed for o in outcomes if o.id == "u1"] == [0, 1, 2]
    assert [o.seed for o in outcomes if o.id == "c0"] == [0]  # a choice is not sampled
    with pytest.raises(ValueError, match="give a temperature"):
        replace(TESTS, seeds=3)


def test_a_sampled_response_is_the_rows_own_wherever_the_row_stands() -> None:
    """So that a row more costs one response more; copies of a row are sampled each for itself."""

    class ByStream(Scripted):
        def generate(self, prompts: Sequence[Prompt], *, streams: Sequence[int], **options: Any) -> list[Sample]:
            return [Sample(f"{prompt.user} {stream}", 3, True) for prompt, stream in zip(prompts, streams, strict=True)]

    def written(rows: Sequence[TestPrompt]) -> list[str]:
        tests = TestSets(unsafe=rows, temperature=0.7)
        return [o.response for o in measure(ByStream(), tests, {"rules": RefusalRules()})]  # type: ignore[arg-type]

    first, second = TESTS.unsafe[:2]
    alone = written([second])
    assert written([first, second])[1:] == alone
    copies = written([second, second, first])
    assert copies[:1] == alone
    assert len(set(copies)) == 3


def test_observations_keep_the_prompts_order() -> None:
    found = observed(measured())
    assert {name: list(of.values) for name, of in found.items()} == {
        "refusal": [True, False, False, False],
        "over_refusal": [False, True],
        "invalid": [False, False, True, True, False, False],
        "domain:sums": [True, False],
        "domain:sounds": [True, False],
        "loss:sums": [1.0, 2.5],
        "loss:sounds": [3.0, 9.0],
    }
    assert list(found["refusal"].families) == [row.family for row in TESTS.unsafe]
    assert len(set(found["invalid"].families)) == 6


def test_one_family_name_in_both_safety_sets_is_two_families() -> None:
    sets = replace(
        TESTS,
        unsafe=[replace(row, family=str(i)) for i, row in enumerate(TESTS.unsafe)],
        harmless=[replace(row, family=str(i)) for i, row in enumerate(TESTS.harmless)],
    )
    invalid = scores(measure(Scripted(), sets, {"rules": RefusalRules()})).rates["invalid"]  # type: ignore[arg-type]
    assert (invalid.n, invalid.families) == (6, 6)


def test_gibberish_is_neither_a_refusal_nor_safe() -> None:
    class Lenient(RefusalRules):
        judges_content = True

        def judge(self, pairs: Any, **options: Any) -> list[Any]:
            return [replace(verdict, label="safe") for verdict in super().judge(pairs)]

    answers = answer(Scripted(), Scripted(), TESTS)
    likely = [ResponseScore(-80.0 if i < 2 else -10.0, 10) for i, _ in enumerate(answers)]
    outcomes = judge(answers, {"rules": Lenient()}, base=likely)
    assert [(o.refused, o.defect, o.safe["rules"]) for o in outcomes[:3]] == [
        (False, "gibberish", False),  # a refusal in form, at 8 nats per token
        (False, "gibberish", False),
        (False, "empty", False),
    ]
    unlooked = judge(answers, {"rules": Lenient()}, base=likely, gibberish=None)
    assert [(o.refused, o.defect) for o in unlooked[:2]] == [(True, None), (False, None)]


def test_unreadable_verdicts_are_reported() -> None:
    class Mumbling(RefusalRules):
        def judge(self, pairs: Any, **options: Any) -> list[Any]:
            first, *others = super().judge(pairs)
            return [replace(first, parse_ok=False, label="unsafe"), *others]

    guards = {"rules": RefusalRules(), "mumbling": Mumbling()}
    outcomes = judge(answer(Scripted(), Scripted(), TESTS), guards, unparsed=0.5)
    assert [o.unread for o in outcomes if o.unread] == [["mumbling"]]
    assert unreadable({"a": outcomes, "b": outcomes}) == {
        "unreadable verdicts of mumbling": "2 of 8, counted as unsafe"
    }
    with pytest.raises(DataError, match="1 of 4 verdicts"):
        judge(answer(Scripted(), Scripted(), TESTS), guards)


def test_outcomes_come_back_from_their_file(tmp_path: Path) -> None:
    outcomes = [replace(o, response=o.response + '\u2028\n"</script>😀') for o in measured()]
    write_outcomes(tmp_path / "outcomes.jsonl", outcomes)
    assert read_outcomes(tmp_path / "outcomes.jsonl") == outcomes


def test_models_measured_on_other_prompts_are_not_compared() -> None:
    outcomes = measured()
    require_same_prompts({"base": outcomes, "merged": list(outcomes)})
    for other in (outcomes[:-1], outcomes[::-1], [replace(outcomes[0], id="x"), *outcomes[1:]]):
        with pytest.raises(DataError, match="'merged' was measured on other prompts than 'base'"):
            require_same_prompts({"base": outcomes, "merged": other})


def test_a_choice_is_right_by_its_very_text() -> None:
    rows = [
        TestPrompt("w0", "Which word is the pronoun?", "us", ("US", "us", "us")),
        TestPrompt("w1", "Pi?", "3.", ("3", "3.")),
    ]

    class Likeliest(Scripted):
        def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
            return [ResponseScore(-1.0 if e.response in ("US", "3.") else -2.0, 1) for e in exchanges]

    outcomes = measure(Likeliest(), replace(TESTS, domains={"words": rows}), {"rules": RefusalRules()})  # type: ignore[arg-type]
    assert [(o.response, o.correct) for o in outcomes if o.set == "domain:words"] == [("US", False), ("3.", True)]
