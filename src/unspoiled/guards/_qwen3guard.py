"""Qwen3Guard-Gen: a level of safety, categories, and whether the response is a refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from unspoiled.guards._family import Controversial, FormatOptions, GuardFamily
from unspoiled.guards._format import Answer, GuardFormat, Question, read_template, unread
from unspoiled.guards._markers import Markers
from unspoiled.guards._protocol import Label, Reading

_SAFETY = re.compile(r"^\s*safety:\s*(safe|unsafe|controversial)\s*$", re.IGNORECASE | re.MULTILINE)
_CATEGORIES = re.compile(r"^\s*categories:(.*)$", re.IGNORECASE | re.MULTILINE)
_REFUSAL = re.compile(r"^\s*refusal:\s*(yes|no)\s*$", re.IGNORECASE | re.MULTILINE)


def _read(answers: Sequence[Answer], _threshold: float | None, *, controversial: Controversial) -> Reading:
    (answer,) = answers
    safety, refusal = _SAFETY.findall(answer.text), _REFUSAL.findall(answer.text)
    if len(safety) != 1 or len(refusal) > 1:
        return unread(answer.text)
    levels: dict[str, Label] = {"safe": "safe", "unsafe": "unsafe", "controversial": controversial}
    listed = ",".join(_CATEGORIES.findall(answer.text)).split(",")
    categories = tuple(name.strip() for name in listed if name.strip() and name.strip().lower() != "none")
    return Reading(
        levels[safety[0].lower()],
        categories=categories,
        refusal=refusal[0].lower() == "yes" if refusal else None,
        text=answer.text,
    )


def _build(options: FormatOptions) -> GuardFormat:
    sections = ("SAFETY POLICY", "UNSAFE CONTENT CATEGORIES", "REFUSAL POLICY", "CONVERSATION")
    return GuardFormat(
        (Question(read_template("qwen3guard_gen")),),
        partial(_read, controversial=options.controversial),
        Markers(
            tags=tuple(f"<{end} {section}>" for section in sections for end in ("BEGIN", "END")),
            labels=("USER", "ASSISTANT"),
        ),
        control=("<|im_start|>", "<|im_end|>"),
        most_tokens=128,
        reading=f"controversial is {options.controversial}",
    )


QWEN3GUARD_GEN = GuardFamily(
    name="qwen3guard-gen",
    judges="responses",
    reports=("categories", "refusal"),
    source="Qwen3Guard technical report, appendix 6.1, and the hub's chat template; arXiv 2510.14276",
    licence="Apache-2.0",
    default_model="Qwen/Qwen3Guard-Gen-0.6B",
    build=_build,
)
