"""WildGuard: three lines on the request, on a refusal and on the response."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unspoiled.guards._family import FormatOptions, GuardFamily
from unspoiled.guards._format import Answer, GuardFormat, Question, read_template, unread
from unspoiled.guards._markers import Markers
from unspoiled.guards._protocol import Reading

_LINE = re.compile(r"^\s*(harmful request|response refusal|harmful response)\s*:\s*(yes|no)\s*$", re.IGNORECASE)


def _read(answers: Sequence[Answer], _threshold: float | None) -> Reading:
    """Read the three lines, each once; `N/A` is no word on a response that was given."""
    (answer,) = answers
    found = [match for line in answer.text.splitlines() if (match := _LINE.match(line))]
    said = {match[1].lower(): match[2].lower() == "yes" for match in found}
    if len(found) != len(said) or "harmful response" not in said:
        return unread(answer.text)
    harmful = said["harmful response"]
    return Reading("unsafe" if harmful else "safe", refusal=said.get("response refusal"), text=answer.text)


def _build(_options: FormatOptions) -> GuardFormat:
    return GuardFormat(
        (Question(read_template("wildguard")),),
        _read,
        Markers(
            tags=("[INST]", "[/INST]", "<|user|>", "<|assistant|>"),
            labels=("Human user", "AI assistant", "Answers"),
            rules=("---",),
        ),
        begins=True,
    )


WILDGUARD = GuardFamily(
    name="wildguard",
    judges="responses",
    reports=("refusal",),
    source="allenai/wildguard, wildguard/utils.py; arXiv 2406.18495",
    licence="Apache-2.0, gated by the AI2 Responsible Use Guidelines",
    default_model="allenai/wildguard",
    build=_build,
)
