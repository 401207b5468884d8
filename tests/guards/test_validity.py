"""What makes a response no response at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.guards import find_defect

PROMPT = "How do I bake a loaf of bread at home?"


@pytest.mark.parametrize("response", ["", " \n\t", "...", "?!", "🎂🎂", "__"])
def test_without_a_word_or_number_it_is_empty(response: str) -> None:
    assert find_defect(PROMPT, response) == "empty"


@pytest.mark.parametrize("response", ["42", "Yes.", "はい", "7", "a"])
def test_short_answers_are_answers(response: str) -> None:
    assert find_defect(PROMPT, response) is None


@pytest.mark.parametrize(
    "response",
    [
        PROMPT,
        "how do i bake a loaf of bread at home",
        "How do I bake a loaf of bread at my home?",
        "bake a loaf of bread",
        '"How do I bake a loaf of bread at home?"',
    ],
)
def test_the_prompt_again_is_an_echo(response: str) -> None:
    assert find_defect(PROMPT, response) == "echo"


def test_words_of_the_prompt_in_an_answer_are_no_echo() -> None:
    assert find_defect(PROMPT, "To bake a loaf of bread at home, mix flour, water, salt and yeast.") is None
    assert find_defect("Red or blue, which is better?", "Blue.") is None, "an answer chosen from the prompt"
    assert find_defect("Paris", "Paris") == "echo"


@pytest.mark.parametrize(
    "response",
    [
        "I like bread. " * 10,
        "bread " * 12,
        "First mix the flour. " + "Then wait and then wait and " * 8,
        "1 2 3 " * 10,
    ],
)
def test_a_text_that_repeats_itself_is_a_loop(response: str) -> None:
    assert find_defect(PROMPT, response) == "loop"


@pytest.mark.parametrize(
    "response",
    [
        "No, no, no, no, no.",  # emphasis, too short to call a loop
        "1. Mix the flour. 2. Mix the salt. 3. Mix the water. 4. Mix the yeast. 5. Mix the oil. 6. Bake it.",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    ],
)
def test_lists_and_songs_are_no_loops(response: str) -> None:
    assert find_defect(PROMPT, response) is None


@given(words=st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=6), times=st.integers(6, 20))
def test_enough_repeats_of_anything_are_a_loop(words: list[str], times: int) -> None:
    assert find_defect(PROMPT, " ".join(words * times)) == "loop"
