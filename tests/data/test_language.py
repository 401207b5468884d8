"""Languages are told where that is sure, and short or mixed texts are left alone."""

import pytest

from unspoiled.data import UNKNOWN, Templates, language_of
from unspoiled.data._language import require_known_languages
from unspoiled.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I make a simple tomato soup?", "en"),
        ("Wie koche ich eine einfache Tomatensuppe?", "de"),
        ("Quelle est la capitale du Canada?", "fr"),
        ("¿Cómo puedo aprender a tocar la guitarra?", "es"),
        ("Как работает холодильник?", "ru"),
        ("为什么天空是蓝色的？", "zh"),
        ("なぜ空は青いのですか？", "ja"),
        ("하늘은 왜 파란가요?", "ko"),
        ("لماذا السماء زرقاء؟", "ar"),
        ("कुत्ते क्यों भौंकते हैं?", "hi"),
        ("Tại sao bầu trời màu xanh?", "vi"),
    ],
)
def test_a_sentence_is_told_by_its_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What?",
        "12 + 35 = ?",
        "🙂🙂",
        "x = [i for i in range(10)]",
        "Explain the word Schadenfreude",
        "Translate this sentence into English: Der Hund schläft auf dem Sofa und träumt von einer großen Wurst.",
        'What does "Wer anderen eine Grube gräbt, fällt selbst hinein" mean?',
        "\ud83d",  # half a character
    ],
)
def test_short_and_mixed_texts_and_what_is_no_language_are_unknown(text: str) -> None:
    assert language_of(text) == UNKNOWN


def test_no_short_english_question_is_taken_for_another_language() -> None:
    examples = [text for kind in Templates().benign_examples.values() for text in kind]
    assert len(examples) > 40
    assert {language_of(text) for text in examples} <= {"en", UNKNOWN}
    assert sum(language_of(text) == "en" for text in examples) >= 0.8 * len(examples)


def test_a_language_that_cannot_be_recognised_is_refused_with_what_was_meant() -> None:
    require_known_languages(["en", "de"])
    with pytest.raises(ConfigError, match=r"languages: 'english' is no language .* Did you mean 'en'"):
        require_known_languages(["de", "english"])
