"""Prompts that repeat one another are found, the same ones whichever way they are looked for."""

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from unspoiled.data import PromptIndex, Repeat
from unspoiled.data._letter_counts import LetterCounts

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from similar_prompts import change_a_letter, change_a_word, just_similar_pairs, made_up_prompts


@pytest.mark.parametrize(
    ("one", "other", "rule"),
    [
        ("How do I pick a lock?", "how do i pick a LOCK", "exact"),
        ("How do I pick a lock on a door?", "How do I pick the lock on a door?", "near"),
        ("What is 12 + 35?", "What's 12 + 35?", "near"),
        ("Où est l'école du village?", "où est l'école du  village", "exact"),
        ("Où est l'école du village?", "Ou\u0300 est l'e\u0301cole du village?", "exact"),  # accents as own characters
        ("Wie heißt die große Straße?", "WIE HEISST DIE GROSSE STRASSE?", "exact"),
        ("What is ＡＢＣ １２?", "What is ABC 12?", "exact"),  # full-width letters
        ("How do I pick a lock?", "How do I pi\u200bck a lo\u00adck?", "exact"),  # characters that nobody sees
        ("कुत्ते रात में क्यों भौंकते हैं?", "कुत्ते रात में क्यों भौंकते हैं", "exact"),
        ("🙂🙂", " 🙂🙂 ", "exact"),
    ],
)
@pytest.mark.parametrize("scan_limit", [0, 500])
def test_a_repeat_is_found_with_its_rule_and_source(one: str, other: str, rule: str, scan_limit: int) -> None:
    found = PromptIndex([one], "safety", scan_limit=scan_limit).find(other)
    assert found == Repeat(one, rule, "safety")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 + 35?", "What is 12 + 36?"),
        ("What is 12 + 35?", "What is 12 - 35?"),
        ("What is 12 + 35?", "What is 12 \uff0d 35?"),  # a full-width minus
        ("Give the 3rd word of this sentence.", "Give the 4th word of this sentence."),
        ("How do I pick a lock?", "How do I bake a cake?"),
        ("दिन", "दान"),  # they differ in a vowel sign alone
        ("🙂🙂", "🚀"),  # no words in either
        ("???", "🚀"),
    ],
)
@pytest.mark.parametrize("scan_limit", [0, 500])
def test_another_question_is_none(one: str, other: str, scan_limit: int) -> None:
    assert PromptIndex([one], scan_limit=scan_limit).find(other) is None


def test_the_most_similar_one_is_named_and_the_first_of_two_as_similar() -> None:
    first, second, nearest = "what rains on a red plain", "what rains on a wet plain", "what rains on a rod plain"
    for scan_limit in (0, 500):
        index = PromptIndex([first, second, nearest], scan_limit=scan_limit)
        assert index.find("what rains on a rod plains") == Repeat(nearest, "near")
        assert index.find("what rains on a  plain") == Repeat(first, "near"), "all three differ by three letters"


def test_of_two_as_similar_the_first_is_named_though_it_is_longer() -> None:
    text = "a" * 55
    longer, shorter = "a" * 54 + "b" * 11, "a" * 45  # 12 changes in 120 letters, 10 in 100: both are 90% alike
    for scan_limit in (0, 500):
        assert PromptIndex([longer, shorter], scan_limit=scan_limit).find(text) == Repeat(longer, "near")
        assert PromptIndex([shorter, longer], scan_limit=scan_limit).find(text) == Repeat(shorter, "near")


SIMILAR_TEXTS = st.lists(st.text(st.sampled_from("ab 12é学🙂\u0301"), max_size=40), max_size=25)


@given(texts=SIMILAR_TEXTS)
def test_many_prompts_are_compared_to_the_same_end_as_few(texts: list[str]) -> None:
    scanned, counted = PromptIndex(scan_limit=1000), PromptIndex(scan_limit=2)
    for text in texts:
        assert scanned.find(text) == counted.find(text)
        scanned.add(text)
        counted.add(text)


@pytest.mark.parametrize("edit", [change_a_word, change_a_letter])
def test_no_near_duplicate_is_lost_among_many_prompts(edit) -> None:
    """Letter counts are a bound, not a guess: recall is 100%, on pairs as different as the rule allows."""
    pairs = just_similar_pairs(made_up_prompts(400), edit)
    index = PromptIndex([one for one, _ in pairs], scan_limit=0)
    assert all(index.find(other) is not None for _, other in pairs)


@given(
    text=st.text(max_size=200), similarity=st.sampled_from([0.5, 0.8, 0.9]), seed=st.integers(0, 1000),
    changes=st.integers(0, 40),
)  # fmt: skip
def test_letter_counts_keep_whatever_is_similar(text: str, similarity: float, seed: int, changes: int) -> None:
    draw, other = random.Random(seed), text
    for _ in range(changes):
        other = change_a_letter(other or "a", draw)
    counts = LetterCounts(similarity)
    counts.add("")
    counts.add(other)
    if fuzz.ratio(text, other) >= 100 * similarity:
        assert 1 in counts.candidates(text)


def test_letter_counts_leave_little_to_compare() -> None:
    prompts = made_up_prompts(3000)
    counts = LetterCounts(0.9)
    for prompt in prompts:
        counts.add(prompt)
    left = sum(len(counts.candidates(prompt)) for prompt in prompts[:200]) / 200
    assert left < 3000 / 200


def test_texts_of_one_letter_a_thousand_times_over_are_told_apart() -> None:
    """The counts are capped, which may only let more through, never less."""
    index = PromptIndex(["a" * 40_000, "b" * 40_000], scan_limit=0)
    assert index.find("a" * 39_000) == Repeat("a" * 40_000, "near")
    assert index.find("c" * 40_000) is None
