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
    measure,
    paired_outcomes,
    read_outcomes,
    require_same_prompts,
    scores,
    write_outcomes,
)
from unspoiled.guards import RefusalRules
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
LIKELIHOODS = {"woof": -4.0, "meow": -3.0, "ring": -9.0, "moo": -2.0, "a much longer choice": -5.0}


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


def test_rates_are_counted_from_the_outcomes() -> None:
    counted = scores(measured())
    assert (counted.refusal.rate, counted.refusal.n) == (1 / 4, 4)
    assert (counted.over_refusal.rate, counted.over_refusal.n) == (1 / 2, 2)
    assert (counted.invalid.rate, counted.invalid.n) == (2 / 6, 6)
    assert {name: (rate.rate, rate.n) for name, rate in counted.domains.items()} == {
        "sums": (1 / 2, 2),
        "sounds": (1 / 2, 2),
    }


def test_paired_outcomes_keep_the_prompts_order() -> None:
    assert paired_outcomes(measured()) == {
        "refusal": [True, False, False, False],
        "over_refusal": [False, True],
        "domain:sums": [True, False],
        "domain:sounds": [True, False],
    }


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
