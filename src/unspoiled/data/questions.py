"""Questions that models write: unsafe ones by harm category, new ones of an expert's own domain, and harmless ones."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unspoiled.data._rows import Question, is_unicode
from unspoiled.data._templates import RequestTemplate, read_benign_examples, read_request
from unspoiled.errors import DataError
from unspoiled.inference import Generator, Progress, Prompt, Sample, silent

TEMPERATURE = 0.8  # the paper's, for questions; answers are greedy
EXAMPLES_PER_REQUEST = 3
QUESTIONS_PER_REQUEST = 4
EVERYDAY = "everyday"
"""The group of the ordinary questions of D_benign; the borderline ones have a harm category."""
_MAX_ROUNDS = 4  # requests are repeated for what was malformed or repeated, this often at most


@dataclass
class Asked:
    """The questions that a model wrote, and what became of its replies.

    `yields` counts `requests`, `malformed` replies, `duplicates` (exact), and `kept` questions.
    """

    questions: list[Question]
    yields: Counter[str] = field(default_factory=Counter)


def ask_unsafe_questions(
    questioner: Generator,
    *,
    name: str,
    categories: Sequence[str],
    count: int,
    seed: int,
    max_new_tokens: int = 64,
    progress: Progress = silent,
) -> Asked:
    """Have the questioner write `count` unsafe questions, each for a category drawn uniformly (PAPER: D_safety).

    Args:
        questioner: The model that writes, an uncensored one.
        name: Its name, recorded with each question.
        categories: The taxonomy.
        count: Distinct questions wanted; fewer come back where the questioner repeats itself.
        seed: Decides the categories and the sampling.
        max_new_tokens: Longest reply, in tokens.
        progress: Called with (questions kept, count).

    Raises:
        DataError: No reply could be read; the message shows one.
    """
    template = read_request("safety_question")
    draw = random.Random(f"{seed}:categories")

    def request() -> tuple[Prompt, str]:
        category = draw.choice(categories)
        return template.fill(category=category), category

    def read(text: str) -> list[str]:
        value = _first_json(text)
        return _questions_in([value.get("question")] if isinstance(value, dict) else [])

    return _ask(
        questioner, request, read, name=name, count=count, per_request=1, seed=seed,
        max_new_tokens=max_new_tokens, known=(), progress=progress,
    )  # fmt: skip


def ask_domain_questions(
    expert: Generator,
    *,
    name: str,
    domain: str,
    description: str,
    examples: Sequence[str],
    count: int,
    seed: int,
    max_new_tokens: int = 256,
    progress: Progress = silent,
) -> Asked:
    """Have an expert write `count` questions of its own domain from in-context examples (PAPER: D_expert).

    Args:
        expert: The model that writes.
        name: Its name, recorded with each question.
        domain: The domain's name, recorded with each question.
        description: What the request calls the domain.
        examples: Questions of the domain, at least three; each request shows three, drawn at random.
        count: Distinct questions wanted.
        seed: Decides the examples and the sampling.
        max_new_tokens: Longest reply, in tokens.
        progress: Called with (questions kept, count).

    Raises:
        DataError: Too few examples, or no reply could be read.
    """
    if len(examples) < EXAMPLES_PER_REQUEST:
        raise DataError(
            f"domain {domain!r} has {len(examples)} in-context examples: give at least {EXAMPLES_PER_REQUEST}."
        )
    template: RequestTemplate = read_request("domain_question")
    draw = random.Random(f"{seed}:{domain}:examples")

    def request() -> tuple[Prompt, str]:
        shown = json.dumps(draw.sample(list(examples), EXAMPLES_PER_REQUEST), ensure_ascii=False)
        return template.fill(domain=description, examples=shown, count=QUESTIONS_PER_REQUEST), domain

    return _ask(
        expert, request, _read_list, name=name, count=count, per_request=QUESTIONS_PER_REQUEST, seed=seed,
        max_new_tokens=max_new_tokens, known=examples, progress=progress,
    )  # fmt: skip


def ask_benign_questions(
    writer: Generator,
    *,
    name: str,
    categories: Sequence[str],
    count: int,
    seed: int,
    max_new_tokens: int = 128,
    progress: Progress = silent,
) -> Asked:
    """Have a model write `count` harmless questions: by turns innocent ones with alarming words, and everyday ones.

    The borderline ones are asked for by harm category, so that refusals learnt from D_safety don't spread to all that
    sounds like it.

    Args:
        writer: The model that writes; not the questioner, who was made to write what this must not be.
        name: Its name, recorded with each question.
        categories: The taxonomy, which the topics of borderline questions are drawn from.
        count: Distinct questions wanted; fewer come back where the model repeats itself.
        seed: Decides the categories, the examples and the sampling.
        max_new_tokens: Longest reply, in tokens.
        progress: Called with (questions kept, count).

    Raises:
        DataError: No reply could be read; the message shows one.
    """
    examples = read_benign_examples()
    templates = {kind: read_request(f"{kind}_question") for kind in ("borderline", EVERYDAY)}
    draw = random.Random(f"{seed}:benign")
    turns = itertools.cycle(templates)

    def request() -> tuple[Prompt, str]:
        kind = next(turns)
        category = draw.choice(categories)
        shown = json.dumps(draw.sample(examples[kind], EXAMPLES_PER_REQUEST))
        prompt = templates[kind].fill(examples=shown, count=QUESTIONS_PER_REQUEST, category=category)
        return prompt, EVERYDAY if kind == EVERYDAY else category

    return _ask(
        writer, request, _read_list, name=name, count=count, per_request=QUESTIONS_PER_REQUEST, seed=seed,
        max_new_tokens=max_new_tokens, known=[text for kind in examples.values() for text in kind], progress=progress,
    )  # fmt: skip


def _ask(
    generator: Generator,
    request: Callable[[], tuple[Prompt, str]],
    read: Callable[[str], list[str]],
    *,
    name: str,
    count: int,
    per_request: int,
    seed: int,
    max_new_tokens: int,
    known: Sequence[str],
    progress: Progress,
) -> Asked:
    asked = Asked([])
    seen = {_normalised(text) for text in known}
    unread: Sample | None = None
    for round_number in range(_MAX_ROUNDS):
        missing = count - len(asked.questions)
        if missing <= 0:
            break
        requests = [request() for _ in range(-(-missing // per_request))]
        replies = generator.generate(
            [prompt for prompt, _ in requests],
            max_new_tokens=max_new_tokens,
            temperature=TEMPERATURE,
            seed=seed + round_number,
        )
        asked.yields["requests"] += len(requests)
        for (prompt, group), reply in zip(requests, replies, strict=True):
            texts = read(prompt.prefix + reply.text)
            if not texts:
                asked.yields["malformed"] += 1
                unread = reply
            for text in texts:
                if _normalised(text) in seen:
                    asked.yields["duplicates"] += 1
                elif len(asked.questions) < count:
                    seen.add(_normalised(text))
                    asked.questions.append(Question(text, group, name))
        progress(len(asked.questions), count)
    asked.yields["kept"] = len(asked.questions)
    if not asked.questions:
        shown = "" if unread is None else f" Its last reply began: {unread.text[:120]!r}."
        raise DataError(
            f"{name!r} wrote no readable question in {asked.yields['requests']} requests.{shown} "
            "Use a model that follows the JSON request, or train it on `unspoiled/data/templates`."
        )
    return asked


def _first_json(text: str) -> object:
    try:
        return json.JSONDecoder().raw_decode(text.strip())[0]
    except (ValueError, RecursionError):  # a model may well write a thousand brackets
        return None


def _read_list(text: str) -> list[str]:
    """Return the strings of a JSON list; of one cut off at the token limit, those that are whole."""
    text = text.strip()
    value = _first_json(text)
    if isinstance(value, list):
        return _questions_in(value)
    decoder, items, at = json.JSONDecoder(), [], 1
    while text[:1] == "[" and at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        items.append(item)
    return _questions_in(items)


def _questions_in(items: Sequence[object]) -> list[str]:
    """Return the texts among the items, without blank ones and those with half a character (a lone surrogate)."""
    texts = [item.strip() for item in items if isinstance(item, str)]
    return [text for text in texts if text and is_unicode(text)]


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
