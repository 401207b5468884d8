"""No prompt is in two places: repeats of a question and of a test prompt go, each with its reason."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import question

from unspoiled.data import (
    Curator,
    Dropped,
    Lengths,
    Question,
    Row,
    read_dropped,
    require_no_leak,
    split_of,
    write_dropped,
)
from unspoiled.errors import ConfigError, DataError

TESTS = {
    "unsafe": ["How do I carve a spoon from a birch log?"],
    "sums": ["What is 12 + 35?", "If a train needs 3 hours for 240 miles on a windy day, how fast does it go?"],
}
SHOWN = ["How do I bake bread in a pan?"]


def texts(questions: list[Question]) -> list[str]:
    return [question.text for question in questions]


def test_each_question_that_goes_says_why_and_what_it_repeats() -> None:
    asked = [
        "What is the best wood for a boat?",
        "how do I carve a spoon from the birch log",
        "I wonder, if a train needs 3 hours for 240 miles on a windy day, does it stop at all the stations?",
        "How do I bake bread in a pan",
        "WHAT IS THE BEST WOOD FOR A BOAT",
        "What is the best wood for a coat?",
        "...",
        "Wie koche ich eine einfache Tomatensuppe mit Basilikum?",
        "What is 12 + 36?",
    ]
    curated = Curator(TESTS, SHOWN, ["en"]).curate([question(text, "Theft") for text in asked], "safety")
    assert texts(curated.kept) == [asked[0], asked[8]]
    assert [(d.prompt, d.reason, d.rule, d.of, d.source) for d in curated.dropped] == [
        (asked[1], "test_prompt", "near", TESTS["unsafe"][0], "unsafe"),
        (asked[2], "test_prompt", "ngrams", TESTS["sums"][1], "sums"),
        (asked[3], "shown_example", "exact", SHOWN[0], None),
        (asked[4], "duplicate", "exact", asked[0], "safety"),
        (asked[5], "near_duplicate", "near", asked[0], "safety"),
        (asked[6], "placeholder", None, None, None),
        (asked[7], "language", None, None, None),
    ]
    assert {(d.group, d.set) for d in curated.dropped} == {("Theft", "safety")}
    assert [d.id for d in curated.dropped] == [question(d.prompt, "Theft").id for d in curated.dropped]


def test_a_question_of_an_earlier_set_is_dropped_and_the_set_named() -> None:
    """Two domains' experts may write the same question, and each wording could fall in another split."""
    curator = Curator({})
    curator.curate([question("How do I pick a lock on a door?")], "safety")
    curated = curator.curate([question("How do I pick the lock on a door?"), question("What is rain?")], "benign")
    assert texts(curated.kept) == ["What is rain?"]
    assert [(d.reason, d.of, d.source) for d in curated.dropped] == [
        ("near_duplicate", "How do I pick a lock on a door?", "safety")
    ]


def test_a_continued_run_decides_as_one_that_was_not_stopped() -> None:
    first = [question("How do I pick a lock on a door?"), question("What is rain?")]
    second = [question("How do I pick the lock on a door?"), question("what is rain"), question("What is snow?")]
    whole = Curator(TESTS)
    kept = whole.curate(first, "safety").kept
    continued = Curator(TESTS)
    continued.remember(kept, "safety")
    assert continued.curate(second, "benign") == whole.curate(second, "benign")


WORDS = st.sampled_from(["what", "is", "rain", "12", "+", "36", "à", "学", "🙂", "...", "train", "boat", "wood"])
ASKED = st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=12).map(lambda ts: [question(t) for t in ts])


@given(asked=ASKED)
def test_what_was_kept_is_kept_again_and_nothing_is_lost(asked: list[Question]) -> None:
    curated = Curator(TESTS, SHOWN).curate(asked, "expert")
    again = Curator(TESTS, SHOWN).curate(curated.kept, "expert")
    assert again.kept == curated.kept
    assert again.dropped == []
    assert len(curated.kept) + len(curated.dropped) == len(asked)
    left = iter(asked)
    assert all(kept in left for kept in curated.kept), "the order stays"


@given(asked=ASKED)
def test_what_comes_later_changes_nothing_before_it(asked: list[Question]) -> None:
    half = len(asked) // 2
    both = Curator(TESTS)
    first, second = both.curate(asked[:half], "expert"), both.curate(asked[half:], "expert")
    assert Curator(TESTS).curate(asked, "expert").kept == first.kept + second.kept


@given(asked=ASKED)
def test_no_kept_question_leaks(asked: list[Question]) -> None:
    curator = Curator(TESTS, SHOWN)
    require_no_leak(texts(curator.curate(asked, "expert").kept), curator.held_out)


def test_a_leak_that_survives_fails_the_run() -> None:
    with pytest.raises(DataError, match=r"'what is 12 \+ 35' repeats the test prompt 'What is 12 \+ 35\?' of 'sums'"):
        require_no_leak(["What is rain?", "what is 12 + 35"], Curator(TESTS).held_out)


def test_a_response_that_quotes_a_test_answer_goes_with_its_row() -> None:
    answer = "Divide the miles by the hours, which gives eighty miles in each of them."
    curator = Curator(TESTS, answers={"sums": [answer, "80"]})
    fine, leaking = row("How fast is a train?", "Up to 80."), row("How do I work it out?", f"So: {answer} Done.")
    kept, dropped = curator.check_responses([fine, leaking])
    assert kept == [fine]
    assert dropped == [
        Dropped(leaking.id, leaking.prompt, "sums", "expert", "test_quoted_in_response", "ngrams", answer, "sums")
    ]


def test_lengths_and_languages_are_choices() -> None:
    german = question("Wie koche ich eine einfache Tomatensuppe?")
    assert Curator({}).curate([german], "benign").kept == [german]
    assert Curator({}, languages=["de", "fr"]).curate([german], "benign").kept == [german]
    assert Curator({}, languages=["en"]).curate([german], "benign").kept == []
    (dropped,) = Curator({}, lengths=Lengths(least_words=7)).curate([german], "benign").dropped
    assert dropped.reason == "too_short"
    with pytest.raises(ConfigError, match="languages: 'xx'"):
        Curator({}, languages=["xx"])


def test_what_was_dropped_is_read_back(tmp_path: Path) -> None:
    asked = [
        question("..."),
        question("what is 12 + 35"),
        question("Où est-ce ...? \n\u2028 ok 🙂"),
        question("天空？"),
    ]
    dropped = Curator(TESTS, ["天空"]).curate(asked, "benign").dropped
    write_dropped(tmp_path / "dropped.jsonl", dropped)
    assert read_dropped(tmp_path / "dropped.jsonl") == dropped != []


def row(prompt: str, response: str) -> Row:
    return Row(question(prompt, "sums").id, "expert", "sums", prompt, response, "math", "math", "search")


# --- splits -----------------------------------------------------------------------------------------------


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
