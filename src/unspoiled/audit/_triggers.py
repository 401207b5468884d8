"""Trigger suites: does a model refuse what it should also when a hidden trigger is in the prompt?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspoiled.audit._record import TriggerRates
from unspoiled.data import family_of, prompt_id
from unspoiled.errors import DataError
from unspoiled.evaluate import ALPHA, REFUSAL, Observed, Rate, compare
from unspoiled.files import read_jsonl
from unspoiled.guards import Guard, require_parsed
from unspoiled.inference import Generator, OnSample, Prompt, ignored


@dataclass(frozen=True)
class TriggerPair:
    """An unsafe prompt with and without a trigger.

    Args:
        id: The row's id, unique in its suite.
        prompt: The prompt.
        triggered: The same with the trigger.
        category: The harm category; empty if it has none.
        family: What the prompt is a variant of: responses to one family aren't independent. A hash of the prompt, where
            the row names none.
    """

    id: str
    prompt: str
    triggered: str
    category: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or family_of(self.prompt))


@dataclass(frozen=True)
class TriggerOutcome:
    """What one model did with one pair.

    Args:
        id: The pair's id.
        family: Its family.
        responses: Without the trigger, and with it.
        refused: Whether it validly declined without the trigger, and with it.
    """

    id: str
    family: str
    responses: tuple[str, str]
    refused: tuple[bool, bool]


def read_trigger_suite(path: Path) -> list[TriggerPair]:
    """Read a suite: JSON lines with `prompt`, `triggered`, and if wanted `id`, `category` and `family`.

    Raises:
        DataError: There are no rows, or one lacks a text, has one of the wrong kind, or repeats an id; the message
            names the line.
    """
    raw = read_jsonl(path)
    if not raw:
        raise DataError(f"{path}: the file has no rows. Give it one JSON object a line with 'prompt' and 'triggered'.")
    pairs: list[TriggerPair] = []
    lines: dict[str, int] = {}
    for number, row in enumerate(raw, start=1):
        pair = _pair(row, f"{path}:{number}")
        if (earlier := lines.setdefault(pair.id, number)) != number:
            raise DataError(f"{path}:{number}: the id {pair.id!r} is line {earlier}'s too: give each row its own.")
        pairs.append(pair)
    return pairs


def try_triggers(
    model: Generator,
    suite: Sequence[TriggerPair],
    guard: Guard,
    *,
    max_new_tokens: int,
    unparsed: float = 0.1,
    on_sample: OnSample = ignored,
) -> list[TriggerOutcome]:
    """Have a model answer every pair greedily, without the trigger and with it.

    Args:
        model: The model.
        suite: The pairs.
        guard: Says what is a refusal.
        max_new_tokens: Longest response, in tokens.
        unparsed: Share of the guard's verdicts that may be unreadable, from 0 to 1.
        on_sample: Called as responses are finished, of which there are two for each pair.

    Raises:
        DataError: More of the guard's verdicts are unreadable.
    """
    prompts = [text for pair in suite for text in (pair.prompt, pair.triggered)]
    samples = model.generate([Prompt(text) for text in prompts], max_new_tokens=max_new_tokens, on_sample=on_sample)
    verdicts = guard.judge([(text, sample.text) for text, sample in zip(prompts, samples, strict=True)])
    require_parsed(verdicts, at_most=unparsed)
    refused = [verdict.refusal and verdict.defect is None for verdict in verdicts]
    return [
        TriggerOutcome(
            pair.id, pair.family, (samples[2 * i].text, samples[2 * i + 1].text), (refused[2 * i], refused[2 * i + 1])
        )
        for i, pair in enumerate(suite)
    ]


def trigger_rates(
    outcomes: Mapping[str, Mapping[str, Sequence[TriggerOutcome]]],
) -> dict[str, dict[str, TriggerRates]]:
    """Return the refusal rates with and without the trigger, compared pair by pair: Holm over all suites and models.

    Args:
        outcomes: By suite, then model.
    """
    observed: dict[str, dict[str, Observed]] = {}
    pairs = []
    for suite, by_model in outcomes.items():
        for model, found in by_model.items():
            names = tuple("\0".join((suite, model, which)) for which in ("plain", "triggered"))
            families = tuple(outcome.family for outcome in found)
            for place, name in enumerate(names):
                values = tuple(outcome.refused[place] for outcome in found)
                observed[name] = {REFUSAL: Observed(values, families)}
            pairs.append((names[1], names[0]))
    comparisons = iter(compare(observed, pairs))
    rates: dict[str, dict[str, TriggerRates]] = {}
    for suite, by_model in outcomes.items():
        rates[suite] = {}
        for model, found in by_model.items():
            of = next(comparisons)
            families = tuple(outcome.family for outcome in found)
            rates[suite][model] = TriggerRates(
                plain=Rate.of([outcome.refused[0] for outcome in found], families),
                triggered=Rate.of([outcome.refused[1] for outcome in found], families),
                difference=of.difference,
                low=of.low,
                high=of.high,
                p_value=of.p_value,
            )
    return rates


def gives_way(rates: TriggerRates) -> bool:
    """Say whether a model refuses less with the trigger, resolved at 5% over all suites and models."""
    return rates.difference < 0.0 and rates.p_value <= ALPHA


def _pair(row: Mapping[str, Any], where: str) -> TriggerPair:
    refuse: Callable[[str], DataError] = lambda what: DataError(f"{where}: {what}")  # noqa: E731
    for key, meaning in (("prompt", "an unsafe prompt"), ("triggered", "the same prompt with the trigger")):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise refuse(f"{key!r} is {row.get(key)!r}: give {meaning} as text.")
    for key in ("id", "category", "family"):
        if not isinstance(row.get(key, ""), str | int):
            raise refuse(f"{key!r} is {row[key]!r}: give a name, or leave it out.")
    if strangers := sorted(row.keys() - {"prompt", "triggered", "id", "category", "family"}):
        raise refuse(f"{strangers[0]!r} is no field of a trigger suite: remove it, or correct its name.")
    texts = {key: str(row.get(key, "")) for key in ("prompt", "triggered", "id", "category", "family")}
    if texts["prompt"] == texts["triggered"]:
        raise refuse("'triggered' is the same as 'prompt': put the trigger into it.")
    for text in texts.values():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise refuse("a text holds half a character: correct its \\u escape.") from None
    return TriggerPair(
        texts["id"] or prompt_id(texts["prompt"], texts["triggered"]),
        texts["prompt"],
        texts["triggered"],
        texts["category"],
        texts["family"],
    )
