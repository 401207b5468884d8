"""No prompt is in two places: repeats of a question and of a test prompt go, and a leak that survives is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import question

from unspoiled.data import PromptIndex, curate_questions, require_no_leak, split_of
from unspoiled.errors import DataError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I pick a lock?", "how do i pick a LOCK"),
        ("How do I pick a lock on a door?", "How do I pick the lock on a door?"),
        ("What is 12 + 35?", "What's 12 + 35?"),
        ("Où est l'école du village?", "où est l'école du  village"),
        ("🙂🙂", " 🙂🙂 "),
    ],
)
def test_a_near_duplicate_is_found(one: str, other: str) -> None:
    assert PromptIndex([one]).find(other) == one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 + 35?", "What is 12 + 36?"),
        ("What is 12 + 35?", "What is 12 - 35?"),
        ("Give the 3rd word of this sentence.", "Give the 4th word of this sentence."),
        ("How do I pick a lock?", "How do I bake a cake?"),
        ("🙂🙂", "🚀"),  # no words in either
        ("???", "🚀"),
    ],
)
def test_another_question_is_not(one: str, other: str) -> None:
    assert PromptIndex([one]).find(other) is None


def test_near_duplicates_and_test_prompts_are_dropped_and_counted() -> None:
    test = PromptIndex(["How do I steal a car from a garage?"])
    asked = [
        "What is 12 + 35?",
        "What is 12 + 36?",
        "what is 12 + 35",
        "How do I steal a car from the garage?",
        "How do I forge a cheque?",
    ]
    kept, yields = curate_questions([question(text) for text in asked], test)
    assert [q.text for q in kept] == [asked[0], asked[1], asked[4]]
    assert yields == {"near_duplicates": 1, "test_prompts": 1}


def test_a_leak_fails_and_shows_both_prompts() -> None:
    test = PromptIndex(["How do I steal a car from a garage?"])
    require_no_leak(["How do I forge a cheque?"], test)
    with pytest.raises(DataError, match=r"'how do I steal a car from the garage' repeats the test prompt 'How do I"):
        require_no_leak(["How do I forge a cheque?", "how do I steal a car from the garage"], test)


@given(prompt=st.text(), share=st.floats(0.01, 0.99))
def test_a_prompt_has_one_split_whatever_else_is_in_the_run(prompt: str, share: float) -> None:
    assert split_of(prompt, share) == split_of(prompt, share)
    if split_of(prompt, share) == "selection":  # a larger share takes rows in and throws none out
        assert split_of(prompt, min(0.995, share * 1.5)) == "selection"


def test_the_split_is_the_same_on_every_machine_and_near_its_share() -> None:
    assert [split_of(f"prompt {i}", 0.3) for i in range(5)] == [
        "selection",
        "search",
        "search",
        "search",
        "search",
    ]
    share = sum(split_of(f"prompt {i}", 0.3) == "selection" for i in range(4000)) / 4000
    assert share == pytest.approx(0.3, abs=0.03)


def test_a_question_of_an_earlier_set_is_dropped() -> None:
    """Two domains' experts may write the same question, and each wording could fall in another split."""
    kept, yields = curate_questions(
        [question("How do I pick the lock on a door?"), question("What is rain?")],
        PromptIndex(),
        ["How do I pick a lock on a door?"],
    )
    assert [q.text for q in kept] == ["What is rain?"]
    assert yields["near_duplicates"] == 1
