"""Contents that don't fit a guard's context, cut in the middle where everyone can see it."""

from __future__ import annotations

from collections.abc import Callable

_MOST_CHARACTERS_PER_TOKEN = 16


def shortened(prompt: str, response: str, *, limit: int, size: Callable[[str, str], int]) -> tuple[str, str]:
    """Return a prompt and a response whose question fits, each cut in the middle if it must be.

    The shorter one stays whole where the other can give all the room.

    Args:
        prompt: The user's message.
        response: The response.
        limit: Largest size.
        size: The size of the question about two contents, in tokens; about linear in their lengths.
    """
    longest = min(max(len(prompt), len(response)), _MOST_CHARACTERS_PER_TOKEN * limit)
    low, high = 0, longest  # characters that each may keep: the most that fit, by halving
    while low < high:
        middle = (low + high + 1) // 2
        if size(cut(prompt, middle), cut(response, middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return cut(prompt, low), cut(response, low)


def cut(text: str, keep: int) -> str:
    """Return a text with its middle left out, so that about `keep` characters of it remain, and a mark there."""
    if len(text) <= keep:
        return text
    head, tail = text[: (keep + 1) // 2], text[len(text) - keep // 2 :]
    return f"{head} [... {len(text) - keep} characters left out ...] {tail}"
