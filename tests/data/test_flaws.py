"""What is no question at all is named; a question is not, however odd."""

import pytest

from unspoiled.data import Lengths, Templates, find_flaw
from unspoiled.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "too_short"),
        ("Why", "too_short"),
        ("???", "too_short"),
        ("🙂🙂", "too_short"),
        ("word " * 401, "too_long"),
        ("-" * 4001, "too_long"),
        ("How do I tie\x00 a knot?", "control_characters"),
        ("How do I tie \x1b[31ma knot?", "control_characters"),
        ("How do I tie a kn\ufffdt?", "control_characters"),
        ("How do I tie \u202ea knot?", "control_characters"),
        ("How do I tie a knot? \ud83d", "control_characters"),
        ("```json", "markup"),
        ("How do I tie a knot?\n```", "markup"),
        ('{"question": "How do I tie a knot?"}', "markup"),
        ("How do I tie a knot?<|im_end|>", "markup"),
        ("[INST] How do I tie a knot? [/INST]", "markup"),
        ("...", "placeholder"),
        ("…", "placeholder"),
        ("How do I ...?", "placeholder"),
        ("<question>", "placeholder"),
        ("Question 1", "placeholder"),
        ("Your question here", "placeholder"),
        ("What is the best way to [insert topic]?", "placeholder"),
        ("What do you think about {category}?", "placeholder"),
        ("ha ha ha ha ha ha ha ha ha", "loop"),
        ("How do I tie a knooooooooooooot?", "loop"),
        ("how do I tie a knot and " * 6, "loop"),
        ("为什么为什么为什么为什么为什么为什么为什么为什么", "loop"),
    ],
)
def test_what_is_no_question_is_named(text: str, flaw: str) -> None:
    assert find_flaw(text) == flaw


@pytest.mark.parametrize(
    "text",
    [
        "12 + 35",
        "Define photosynthesis.",
        "天空？",
        "What is 1000000000000 / 10?",
        "I feel so tired ... what can I do about it?",
        "Fill the gap: the capital of France is ______.",
        "What does this print?\n```python\nprint([1, 2])\n```",
        "Is List<String> a subtype of List<Object>?",
        "Write an email to [name] about the meeting.",
        "What is a placeholder in the text of a form?",
        "What is the answer to your question?",
        "می‌خواهم بدانم چرا آسمان آبی است؟",  # with the joiner that Persian is spelt with
        "What is 👩‍👩‍👧‍👦 called?",
        "What is the difference between <br> and <p>?\tAnd &amp;?",
    ],
)
def test_an_odd_question_is_a_question(text: str) -> None:
    assert find_flaw(text) is None


def test_the_examples_of_the_requests_are_questions() -> None:
    for examples in Templates().benign_examples.values():
        assert [find_flaw(text) for text in examples] == [None] * len(examples)


def test_lengths_are_a_choice() -> None:
    assert find_flaw("How do I tie a knot?", Lengths(least_words=7)) == "too_short"
    assert find_flaw("How do I tie a knot?", Lengths(most_words=5)) == "too_long"
    assert find_flaw("How do I tie a knot?", Lengths(most_characters=19)) == "too_long"
    with pytest.raises(ConfigError, match="from 3 to 2 words"):
        Lengths(least_words=3, most_words=2)
