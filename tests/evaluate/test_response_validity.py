"""What makes a response invalid beyond its form: unlikely text, and another language than was asked in."""

import pytest

from unspoiled.evaluate import defect_of
from unspoiled.inference import ResponseScore

ASKED = "How do I bake bread at home without an oven, and how long does it take?"
GERMAN = "Das ist ganz einfach. Sie brauchen dazu nur etwas Mehl, Wasser, Salz und ein wenig Geduld."


def score(nats: float, tokens: int = 20) -> ResponseScore:
    return ResponseScore(-nats * tokens, tokens)


@pytest.mark.parametrize(
    ("given", "found"),
    [(score(6.1), "gibberish"), (score(5.9), None), (score(9.0, tokens=8), None), (score(9.0, tokens=9), "gibberish")],
)
def test_text_is_gibberish_beyond_the_limit_from_eight_tokens_on(given: ResponseScore, found: str | None) -> None:
    """Of its own: one more ends the turn."""
    assert defect_of(ASKED, "You can use a pan with a lid on the stove.", base_score=given) == found


def test_without_a_base_or_a_limit_nothing_is_gibberish() -> None:
    text = "colourless bread sleeps furiously green oven ideas"
    assert defect_of(ASKED, text) is None
    assert defect_of(ASKED, text, base_score=score(9.0), gibberish=None) is None


def test_form_comes_first() -> None:
    assert defect_of(ASKED, ASKED, base_score=score(9.0)) == "echo"
    assert defect_of(ASKED, " ... ", base_score=score(9.0)) == "empty"


def test_an_answer_in_another_language_is_invalid() -> None:
    assert defect_of(ASKED, GERMAN) == "language"
    assert defect_of("Wie backe ich zu Hause ein Brot ohne einen Ofen?", GERMAN) is None


@pytest.mark.parametrize(
    "asked",
    ["How do I ask for bread in German when I am at the bakery?", "Please translate this sentence for my neighbour."],
)
def test_an_answer_in_a_language_that_was_asked_for_is_valid(asked: str) -> None:
    assert defect_of(asked, GERMAN) is None


def test_a_text_whose_language_is_unsure_is_left_alone() -> None:
    assert defect_of(ASKED, "OK.") is None
    assert defect_of("12 * 7?", GERMAN) is None
