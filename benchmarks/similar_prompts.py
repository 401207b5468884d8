"""Made-up prompts, and changes to them that leave a near-duplicate just within the rule."""

import random
from collections.abc import Callable, Sequence

from rapidfuzz import fuzz

OPENINGS = (
    "how do i", "what is the best way to", "can you explain how to", "why does", "write a short text about",
    "which", "give me a list of", "is it true that",
)  # fmt: skip
_SYLLABLES = (
    "ba", "ke", "ri", "to", "mu", "sa", "len", "dor", "fi", "na", "gra", "pol", "ti", "ver", "con", "mer", "sta", "lo",
    "pre", "ing", "ed", "er", "al", "ion", "ment", "ous", "tra", "win", "cle",
)  # fmt: skip
Edit = Callable[[str, random.Random], str]


def made_up_words(count: int, seed: int = 0) -> list[str]:
    draw, words = random.Random(seed), dict[str, None]()
    while len(words) < count:
        words["".join(draw.choices(_SYLLABLES, k=draw.choice([1, 2, 2, 3, 3, 4])))] = None
    return list(words)


WORDS = made_up_words(3000)


def made_up_prompts(count: int, seed: int = 0) -> list[str]:
    """Return prompts of 40 to 170 letters, with a few common words and many rare ones, as in real text."""
    draw = random.Random(seed)
    weights = [1 / (rank + 5) for rank in range(len(WORDS))]
    return [
        f"{draw.choice(OPENINGS)} {' '.join(draw.choices(WORDS, weights, k=draw.randint(3, 18)))}" for _ in range(count)
    ]


def change_a_word(text: str, draw: random.Random) -> str:
    """Replace, leave out or add a word, as a model does that says the same again."""
    words = text.split()
    at, kind = draw.randrange(len(words)), draw.randrange(3)
    words[at : at + (kind != 2)] = [] if kind == 1 and len(words) > 1 else [draw.choice(WORDS)]
    return " ".join(words)


def change_a_letter(text: str, draw: random.Random) -> str:
    """Replace, leave out or add a letter."""
    at, kind = draw.randrange(len(text)), draw.randrange(3)
    letter = "" if kind == 1 else draw.choice("abcdefghijklmnopqrstuvwxyz")
    return " ".join((text[:at] + letter + text[at + (kind != 2) :]).split())


def just_similar(text: str, edit: Edit, draw: random.Random, least: float = 90.0) -> str:
    """Change `text` again and again, as long as it stays a near-duplicate: the hardest ones to find."""
    current = text
    for _ in range(60):
        changed = edit(current, draw)
        if fuzz.ratio(text, changed) >= least:
            current = changed
    return current


def just_similar_pairs(prompts: Sequence[str], edit: Edit, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(prompt, just_similar(prompt, edit, draw)) for prompt in prompts]
