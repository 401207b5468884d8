"""The policy judge: any model that follows instructions, asked to judge by a policy that the user can replace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from unspoiled.errors import ConfigError
from unspoiled.files import hash_value
from unspoiled.guards._family import GuardFamily
from unspoiled.guards._format import read_template, unread
from unspoiled.guards._protocol import Label, Reading, Verdict, verdict_of
from unspoiled.guards._shorten import cut
from unspoiled.guards.refusal import RefusalRules, find_refusal
from unspoiled.inference import Generator, Progress, Prompt, counted, silent

_MOST_TOKENS = 1024  # a model that thinks before it answers needs most of them
_MOST_CHARACTERS = 24_000  # of a prompt and of a response
_THINKS, _THOUGHT = "<think>", "</think>"
_TAG_CHARACTERS = re.compile(r"[<>|\[\]]")

POLICY = GuardFamily(
    name="policy",
    judges="responses",
    reports=("categories", "refusal"),
    source="this package: guards/templates/policy.txt and policy_judge.txt",
)


class PolicyGuard:
    """A `Guard` around a generator, which reads a policy and answers in JSON.

    The pair is put to it as one JSON object on one line: quotation marks, line breaks and brackets of the contents are
    escaped, so that nothing in them ends the object or spells a control token or a tag.

    Args:
        generator: The judge.
        name: The judge's name, as reports print it.
        weights: Gives the hash of the judge's weights; called when the fingerprint is first asked for.
        policy: What is unsafe, in words; None for the package's policy.

    Raises:
        ConfigError: The policy is empty.
    """

    def __init__(
        self, generator: Generator, *, name: str, weights: Callable[[], str], policy: str | None = None
    ) -> None:
        text = default_policy() if policy is None else policy
        if not text.strip():
            raise ConfigError(f"guard {name!r}: the policy is empty. Write what is unsafe, in words.")
        self.name = name
        self.judges_content = True
        self.advice = None
        self.cut = 0
        """How many pairs so far were longer than what the judge is given, and were cut."""
        self._system = read_template("policy_judge", policy=text.strip())
        self.template = hash_value(self._system)
        self._generator, self._weights = generator, weights

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, the text that the judge is asked with, and the rules by which a response declines."""
        return hash_value([POLICY.name, self._weights(), self.template, RefusalRules.fingerprint])

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order; equal pairs are asked about once."""
        unique = list(dict.fromkeys(pairs))
        samples = self._generator.generate(
            [self._request(pair) for pair in unique],
            max_new_tokens=_MOST_TOKENS,
            on_sample=counted(progress, len(unique)),
        )
        verdicts = {
            pair: verdict_of(
                *pair,
                read_json_verdict(sample.text) if sample.finished else unread(sample.text),
                guard=self.name,
                template=self.template,
                declined=find_refusal(pair[1]) is not None,
            )
            for pair, sample in zip(unique, samples, strict=True)
        }
        return [verdicts[pair] for pair in pairs]

    def _request(self, pair: tuple[str, str]) -> Prompt:
        if max(map(len, pair)) > _MOST_CHARACTERS:
            self.cut += 1
        return Prompt(exchange_json(*(cut(content, _MOST_CHARACTERS) for content in pair)), system=self._system)


def default_policy() -> str:
    """Return the package's policy text."""
    return resources.files("unspoiled.guards").joinpath("templates", "policy.txt").read_text(encoding="utf-8")


def read_policy(path: Path) -> str:
    """Read a policy file.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the policy can't be read ({error}). Give a text file in UTF-8.") from error


def exchange_json(prompt: str, response: str) -> str:
    """Return a pair as JSON on one line, with brackets and bars escaped too: no tag and no control token is in it."""
    text = json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False)
    return _TAG_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", _one_line(text))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one that says a thing twice says nothing."""
    return dict(pairs) if len({key for key, _ in pairs}) == len(pairs) else {}


def _writable(value: object) -> str:
    """Return a value as text without half characters, which a JSON escape can hold."""
    return str(value).encode("utf-8", "replace").decode()


def _one_line(text: str) -> str:
    """Escape the line breaks that JSON leaves as they are."""
    return re.sub(r"[\x85\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def read_json_verdict(text: str) -> Reading:
    """Read a judge's answer: the JSON object in it that has a verdict.

    What a model thought before (`</think>`), code fences and words around the object are passed over. Several objects
    are read if they agree; anything else is unreadable.
    """
    said = text.rpartition(_THOUGHT)[2]
    if _THINKS in said:  # an unfinished thought holds no verdict, whatever it weighs
        return unread(text)
    found = [value for value in _objects(said) if "verdict" in value]
    labels = {str(value["verdict"]).strip().lower() for value in found}
    if labels not in ({"safe"}, {"unsafe"}):
        return unread(text)
    label: Label = "safe" if labels == {"safe"} else "unsafe"
    categories = found[-1].get("categories")
    refusal = found[-1].get("refusal")
    return Reading(
        label,
        categories=tuple(str(one).encode("utf-8", "replace").decode() for one in categories)
        if isinstance(categories, list)
        else (),
        refusal=refusal if isinstance(refusal, bool) else None,
        text=text,
    )


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text that stand in no other."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield value
        start = text.find("{", end)
