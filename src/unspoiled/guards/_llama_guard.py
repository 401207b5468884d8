"""Llama Guard 2, 3 (8B) and 4: `safe`, or `unsafe` and the codes of the categories violated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from unspoiled.guards._family import FormatOptions, GuardFamily
from unspoiled.guards._format import Answer, GuardFormat, Question, label_of, lines_of, read_template, unread
from unspoiled.guards._markers import Markers
from unspoiled.guards._protocol import Reading

_CATEGORIES_2 = (
    *("Violent Crimes", "Non-Violent Crimes", "Sex Crimes", "Child Exploitation", "Specialized Advice", "Privacy"),
    *("Intellectual Property", "Indiscriminate Weapons", "Hate", "Self-Harm", "Sexual Content"),
)
_CATEGORIES_3 = (
    *("Violent Crimes", "Non-Violent Crimes", "Sex Crimes", "Child Exploitation", "Defamation", "Specialized Advice"),
    *("Privacy", "Intellectual Property", "Indiscriminate Weapons", "Hate", "Self-Harm", "Sexual Content"),
    *("Elections", "Code Interpreter Abuse"),
)
_TAGS = (
    *("<BEGIN UNSAFE CONTENT CATEGORIES>", "<END UNSAFE CONTENT CATEGORIES>"),
    *("<BEGIN CONVERSATION>", "<END CONVERSATION>"),
)
_LLAMA_3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA_4 = ("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>")


def _codes(names: Sequence[str]) -> dict[str, str]:
    """Return the categories by code; a code stays a category's own where others are left out."""
    return {f"S{number}": name for number, name in enumerate(names, start=1)}


def _read(answers: Sequence[Answer], threshold: float | None, *, codes: Sequence[str]) -> Reading:
    """Read `safe` alone, or `unsafe` and a line of codes.

    p_unsafe is the probability of `unsafe` as the first word, as the model card of Llama Guard 2 defines its score.
    """
    (answer,) = answers
    lines = lines_of(answer.text)
    first = lines[0].lower() if lines else ""
    if first not in {"safe", "unsafe"} or (first == "safe" and len(lines) > 1):
        return unread(answer.text)
    found = [code.upper() for code in re.findall(r"\bs[0-9]+\b", " ".join(lines[1:]), re.IGNORECASE)]
    p_unsafe = None if answer.p is None else answer.p[0]
    return Reading(
        label_of("safe" if first == "safe" else "unsafe", p_unsafe, threshold),
        p_unsafe,
        tuple(code for code in dict.fromkeys(found) if code in codes),
        text=answer.text,
    )


def _build(
    options: FormatOptions,
    *,
    template: str,
    names: Sequence[str],
    tags: tuple[str, ...] = (),
    control: tuple[str, ...] = (),
    begins: bool = False,
) -> GuardFormat:
    codes = {code: name for code, name in _codes(names).items() if code in options.categories or not options.categories}
    listed = "\n".join(f"{code}: {name}." for code, name in codes.items())
    return GuardFormat(
        (Question(read_template(template, categories=listed)),),
        partial(_read, codes=tuple(codes)),
        Markers(tags=(*_TAGS, *tags), labels=("User", "Agent")),
        control=control,
        words=("unsafe", "safe"),
        strips=True,
        begins=begins,
    )


LLAMA_GUARD_2 = GuardFamily(
    name="llama-guard-2",
    judges="responses",
    reports=("probability", "categories"),
    source="meta-llama/llama-cookbook, prompt_format_utils.py, and the hub's chat template",
    licence="Llama 3 Community License",
    default_model="meta-llama/Meta-Llama-Guard-2-8B",
    build=partial(
        _build,
        template="llama_guard_2",
        names=_CATEGORIES_2,
        tags=("[INST]", "[/INST]"),
        control=("<|begin_of_text|>", "<|eot_id|>"),
        begins=True,
    ),
    categories=tuple(_codes(_CATEGORIES_2)),
    advice="S5",
)
LLAMA_GUARD_3 = GuardFamily(
    name="llama-guard-3",
    judges="responses",
    reports=("probability", "categories"),
    source="https://www.llama.com/docs/model-cards-and-prompt-formats/llama-guard-3/",
    licence="Llama 3.1 Community License",
    default_model="meta-llama/Llama-Guard-3-8B",
    build=partial(_build, template="llama_guard_3", names=_CATEGORIES_3, control=_LLAMA_3),
    categories=tuple(_codes(_CATEGORIES_3)),
    advice="S6",
)
LLAMA_GUARD_4 = GuardFamily(
    name="llama-guard-4",
    judges="responses",
    reports=("probability", "categories"),
    source="the hub's chat template of meta-llama/Llama-Guard-4-12B",
    licence="Llama 4 Community License",
    default_model="meta-llama/Llama-Guard-4-12B",
    build=partial(_build, template="llama_guard_4", names=_CATEGORIES_3, control=_LLAMA_4),
    categories=tuple(_codes(_CATEGORIES_3)),
    advice="S6",
)
