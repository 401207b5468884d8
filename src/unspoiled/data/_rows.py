"""The rows of the generated sets and of the user's prompt files, and how they are read and written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from unspoiled.data._spread import spread_evenly
from unspoiled.data._unicode import is_unicode
from unspoiled.data.agreement import has_number, is_correct, is_same_number
from unspoiled.errors import DataError
from unspoiled.files import read_jsonl, write_jsonl_atomic
from unspoiled.guards import Verdict, read_verdict

Split = Literal["search", "selection"]
SetName = Literal["safety", "expert", "benign"]
Match = Literal["exact", "number"]


@dataclass(frozen=True)
class Question:
    """A question that a model wrote.

    Args:
        text: The question.
        group: Its harm category (D_safety) or its domain (D_expert).
        asked_by: The name of the model that wrote it.
    """

    text: str
    group: str
    asked_by: str

    @property
    def id(self) -> str:
        """A short hash of the group and the text."""
        return prompt_id(self.text, self.group)


@dataclass(frozen=True)
class Row:
    """One prompt of a generated set with the response that the merged model should give.

    Args:
        id: A short hash of the group and the prompt.
        set: `safety`, `expert` or `benign`.
        group: Harm category or domain.
        prompt: The user's message.
        response: The target.
        asked_by: The model that wrote the prompt.
        answered_by: The model that wrote the response, or `templates`.
        split: `search` (coefficients move on it) or `selection` (finalists are compared on it).
        asked_by_hash: A hash of the weights of the model that wrote the prompt; of a server's model, of its address.
        answered_by_hash: The same of the model that wrote the response.
        seed: What the sampling of the prompt and the draw of the response went by.
        verdicts: What each guard said of the response.
    """

    id: str
    set: SetName
    group: str
    prompt: str
    response: str
    asked_by: str
    answered_by: str
    split: Split
    asked_by_hash: str = ""
    answered_by_hash: str = ""
    seed: int = 0
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class TestPrompt:
    """One prompt of a test set.

    Args:
        id: The row's id, unique in its file.
        prompt: The user's message.
        answer: The right answer; None for safety prompts.
        choices: The possible answers of a multiple-choice row, `answer` among them; empty for free answers.
        family: What the prompt is a variant of (paraphrases, jailbreaks of one request): responses to one family
            aren't independent of each other. A hash of the prompt, where the row names none: copies are one family.
        category: The harm category; empty if it has none.
        match: How a free answer is judged: `exact` (but for case, space, a closing full stop), or by its last `number`.
    """

    __test__ = False  # not a test class, whatever its name suggests to pytest

    id: str
    prompt: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    family: str = ""
    category: str = ""
    match: Match = "exact"

    def is_right(self, answer: str) -> bool:
        """Say whether an answer is right; among choices, only the very text is.

        Raises:
            ValueError: The row has no right answer.
        """
        if self.answer is None:
            raise ValueError(f"the row {self.id!r} has no right answer to compare with")
        if self.choices:
            return answer == self.answer
        return is_same_number(answer, self.answer) if self.match == "number" else is_correct(answer, self.answer)

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or family_of(self.prompt))


@dataclass(frozen=True)
class Examples:
    """In-context questions of a domain.

    Args:
        prompts: The questions.
        choices: The possible answers, if all questions have the same; empty for free answers, also where the options
            are part of each question's text.
    """

    prompts: tuple[str, ...]
    choices: tuple[str, ...] = ()


def prompt_id(prompt: str, group: str = "") -> str:
    """Return the first 16 hex digits of a hash of the group and the prompt."""
    return hashlib.sha256(f"{group}\0{prompt}".encode()).hexdigest()[:16]


def family_of(prompt: str) -> str:
    """Return the family of a prompt that names none: its own, and that of its copies but for case and space."""
    return prompt_id(" ".join(prompt.split()).lower())


def split_of(prompt: str, selection_share: float) -> Split:
    """Return the split of a prompt: a hash of its text alone decides, so it never moves between runs."""
    draw = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[-8:], "big") / 2**64
    return "selection" if draw < selection_share else "search"


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as JSON lines, all or nothing."""
    write_jsonl_atomic(path, [asdict(row) for row in rows])


def read_rows(path: Path) -> list[Row]:
    """Read rows that `write_rows` wrote."""
    return [Row(**{**row, "verdicts": tuple(map(read_verdict, row["verdicts"]))}) for row in read_jsonl(path)]


def read_test_prompts(path: Path, *, answers: bool, limit: int | None = None) -> list[TestPrompt]:
    """Read a test set: JSON lines with `prompt`, and `answer` (with `choices` or without) where `answers` is set.

    Args:
        path: The file.
        answers: Whether every row must have an `answer`.
        limit: Read at most this many rows, spread evenly over the file.

    Raises:
        DataError: A row lacks a field or has one of the wrong kind; the message names the line.
    """
    raw = read_jsonl(path)
    if not raw:
        raise DataError(f"{path}: the file has no rows. Give it one JSON object a line with a 'prompt'.")
    prompts = [_test_prompt(path, number, row, answers) for number, row in enumerate(raw, start=1)]
    first: dict[str, int] = {}
    for number, found in enumerate(prompts, start=1):
        if (earlier := first.setdefault(found.id, number)) != number and found != prompts[earlier - 1]:
            raise DataError(f"{path}:{number}: the id {found.id!r} is line {earlier}'s too: give each row its own.")
    return spread_evenly(prompts, limit)


def read_examples(path: Path) -> Examples:
    """Read in-context questions: JSON lines with `prompt`, and with `choices` if every answer is one of the same few.

    Raises:
        DataError: As for `read_test_prompts`.
    """
    rows = read_test_prompts(path, answers=False)
    same = len({row.choices for row in rows}) == 1 and len(rows[0].choices) > 1
    return Examples(tuple(row.prompt for row in rows), rows[0].choices if same else ())


def _test_prompt(path: Path, number: int, row: dict[str, Any], answers: bool) -> TestPrompt:
    def refuse(what: str) -> DataError:
        return DataError(f"{path}:{number}: {what}")

    prompt, answer, choices = row.get("prompt"), row.get("answer"), row.get("choices", [])
    if not isinstance(prompt, str) or not prompt.strip():
        raise refuse(f"'prompt' is {prompt!r}: give the user's message as text.")
    if answers and not (isinstance(answer, str) and answer.strip()):
        raise refuse(f"'answer' is {answer!r}: give the right answer as text.")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise refuse(f"'choices' is {choices!r}: give a list of texts, or leave it out.")
    if choices and answers and answer not in choices:
        raise refuse(f"'answer' {answer!r} is not among 'choices' {choices!r}.")
    if not all(map(is_unicode, [prompt, *choices, answer if answers else "", str(row.get("id", ""))])):
        raise refuse("a text holds half a character: correct its \\u escape.")
    named = {key: row.get(key, "") for key in ("family", "category")}
    for key, value in named.items():
        if not isinstance(value, str):
            raise refuse(f"'{key}' is {value!r}: give a name, or leave it out.")
    match = row.get("match", "exact")
    if match not in get_args(Match):
        raise refuse(f"'match' is {match!r}: it is 'exact' or 'number'.")
    if match == "number" and answers and not has_number(str(answer)):
        raise refuse(f"'answer' {answer!r} holds no number to match: give one, or leave 'match' out.")
    identity = str(row.get("id", prompt_id(prompt)))
    return TestPrompt(identity, prompt, answer if answers else None, tuple(choices), **named, match=match)
