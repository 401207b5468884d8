"""Nothing that a stranger wrote hides or moves other text."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from unspoiled.report._hostile_text import clip, shortened, visible


@given(st.text(alphabet=st.characters(categories=None)))
def test_visible_text_has_no_character_that_hides_or_moves_text(text):
    for char in visible(text):
        assert char in "\n\t\u200c\u200d" or unicodedata.category(char)[0] in "LMNPS" or char == " " or (
            unicodedata.category(char) == "Zs"
        )  # fmt: skip
    visible(text).encode()
    assert visible(visible(text)) == visible(text)


def test_ordinary_writing_stays_as_it_is():
    for text in ("Grüße, 你好, שלום, مرحبا, नमस्ते", "👩‍👩‍👧", "می‌خواهم", "a\tb\nc", "e\u0301"):
        assert visible(text) == text


def test_known_ways_to_hide_text_are_made_visible():
    assert visible("a\u202eb\u200bc\ue000d\x1b[2J\U000e0041\U000e0101\u3164\r") == (
        "a⟨U+202E⟩b⟨U+200B⟩c⟨U+E000⟩d⟨U+001B⟩[2J⟨U+E0041⟩⟨U+E0101⟩⟨U+3164⟩⟨U+000D⟩"
    )


@given(st.text(), st.integers(0, 60))
def test_clip_keeps_to_its_budget_and_counts_the_rest(text, budget):
    shown, omitted = clip(text, budget)
    assert len(shown.encode()) <= budget or (omitted == 0 and shown == visible(text))
    assert shown == visible(text[: len(text) - omitted])


def test_shortened_is_one_line():
    assert shortened("a\nb", 5) == "a b"
    assert shortened("abcdef", 5) == "abcd…"
