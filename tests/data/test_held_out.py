"""What repeats a test prompt is found and named, and a shared way of asking is no repeat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.data import HeldOut, Repeat, require_no_leak
from unspoiled.errors import DataError

VIGNETTE = (
    "A farmer from the north walks twenty miles to the market every Monday and sells eggs there until noon. "
    "Why does he come home by bus?"
)


def test_a_quotation_in_other_words_around_it_is_found_with_its_test_set() -> None:
    held_out = HeldOut({"safety": ["How tall is the tower of the old town hall?"], "riddles": [VIGNETTE]})
    asked = VIGNETTE.replace("Why does he come home by bus?", "Explain in two sentences who buys what he brings.")
    assert held_out.find(asked) == Repeat(VIGNETTE, "ngrams", "riddles")
    assert held_out.find("Please: " + VIGNETTE.upper() * 2) == Repeat(VIGNETTE, "ngrams", "riddles")


def test_a_part_of_a_long_test_prompt_that_makes_up_the_question_is_found() -> None:
    part = "A farmer from the north walks twenty miles to the market every Monday"
    assert HeldOut({"riddles": [VIGNETTE]}).find(f"Is this true? {part}") == Repeat(VIGNETTE, "ngrams", "riddles")


def test_seven_words_in_a_row_are_no_quotation() -> None:
    held_out = HeldOut({"riddles": [VIGNETTE]})
    assert held_out.find("A farmer from the north walks twenty steps each day to feed some geese") is None


def test_stock_phrases_of_an_exam_are_no_quotation() -> None:
    exam = [f"Which of the following is the most likely cause of {word}?" for word in "abcdefghijklm"]
    held_out = HeldOut({"exam": exam})
    assert held_out.find("Which of the following is the most likely cause of thunder over the sea?") is None
    assert held_out.find(exam[3].upper()) == Repeat(exam[3], "exact", "exam")
    few = HeldOut({"exam": exam[:2]})  # two prompts don't make a phrase a stock phrase
    assert few.find("Which of the following is the most likely cause of thunder over the sea?") is not None


@pytest.mark.parametrize(
    ("test", "asked", "repeats"),
    [
        ("How do I carve a spoon?", "How do I carve a spoon for my aunt?", True),
        ("How do I carve a spoon?", "My aunt wrote a letter about how do I carve a spoon and much else", False),
        ("What is 12 + 35?", "So tell me: what is 12 + 35?", True),
        ("What is 12 + 35?", "What is 12 + 35 - 4?", False),
        ("What is rain?", "What is rain made of?", False),  # three words are compared whole, as near-duplicates
        ("What is rain?", "what is RAIN", True),
        ("为什么天空是蓝色的而不是绿色的？", "请告诉我为什么天空是蓝色的而不是绿色的好吗", True),
        ("为什么天空是蓝色的而不是绿色的？", "为什么大海是咸的？", False),
    ],
)
def test_prompts_shorter_than_a_run(test: str, asked: str, repeats: bool) -> None:
    found = HeldOut({"short": [test]}).find(asked)
    assert (found is not None) is repeats
    if found is not None:
        assert (found.of, found.source) == (test, "short")


def test_the_prompt_that_is_shared_most_is_named() -> None:
    other = "A farmer from the north walks twenty miles to the market and sings the whole way there and back again."
    assert HeldOut({"a": [other], "b": [VIGNETTE]}).find(
        f"{VIGNETTE} Say why, and then how the town got its name."
    ) == Repeat(VIGNETTE, "ngrams", "b")


def test_a_response_that_quotes_an_answer_or_a_prompt_is_found() -> None:
    answer = "He sold all his eggs before noon and the last bus goes at one."
    held_out = HeldOut({"riddles": [VIGNETTE]}, {"riddles": [answer, "By bus", "B"]})
    assert held_out.find_quoted(f"Well, {answer.lower()} So he rides.") == Repeat(answer, "ngrams", "riddles")
    assert held_out.find_quoted(f"{VIGNETTE} That is a good question.") == Repeat(VIGNETTE, "ngrams", "riddles")
    assert held_out.find_quoted("By bus, B.") is None, "short answers are what anybody says"
    assert held_out.find_quoted("A farmer from the north walks twenty miles to the market.") is None, "a mere third"


TEXTS = st.lists(st.text(st.sampled_from("ab 12+é学🙂"), max_size=60), min_size=1, max_size=5)


@given(texts=TEXTS)
def test_every_test_prompt_repeats_itself(texts: list[str]) -> None:
    held_out = HeldOut({"one": texts})
    for text in texts:
        assert held_out.find(text) is not None
        assert held_out.find(f"  {text.upper()} ") is not None


def test_a_leak_fails_and_shows_both_prompts() -> None:
    held_out = HeldOut({"unsafe": ["How do I carve a spoon from a birch log?"], "riddles": [VIGNETTE]})
    require_no_leak(["How do I bake bread?"], held_out)
    with pytest.raises(
        DataError, match=r"'how do I carve a spoon from the birch log' repeats the test prompt 'How do I.*of 'unsafe'"
    ):
        require_no_leak(["How do I bake bread?", "how do I carve a spoon from the birch log"], held_out)
    with pytest.raises(DataError, match="of 'riddles'"):
        require_no_leak([f"{VIGNETTE} Answer in one word, and then say how far it is to the market."], held_out)
