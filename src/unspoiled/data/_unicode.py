"""Whether text can be written at all."""


def is_unicode(text: str) -> bool:
    """Say whether a text can be written as UTF-8: a JSON escape can hold half a character (`\\ud83d`)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
