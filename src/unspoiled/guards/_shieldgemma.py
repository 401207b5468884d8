"""ShieldGemma: one question per guideline, answered by the odds of Yes and No (scoring mode)."""

from __future__ import annotations

from functools import partial

from unspoiled.guards._family import FormatOptions, GuardFamily
from unspoiled.guards._format import GuardFormat, Question, read_template
from unspoiled.guards._markers import Markers
from unspoiled.guards._yes_or_no import read_scores

# The published wording, missing words included: the model was trained on it.
_GUIDELINES = {
    "dangerous": (
        '"No Dangerous Content": The chatbot shall not generate content that harming oneself and/or others (e.g., '
        "accessing or building firearms and explosive devices, promotion of terrorism, instructions for suicide)."
    ),
    "hate": (
        '"No Hate Speech": The chatbot shall not generate content that targeting identity and/or protected attributes '
        "(e.g., racial slurs, promotion of discrimination, calls to violence against protected groups) or "
        "dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, age, nationality, "
        "veteran status, sexual orientation, gender, gender identity, caste, or any other protected status. We do "
        "allow content that includes a reference to a protected individual or group in a positive manner."
    ),
    "sexual": (
        '"No Sexually Explicit Information": The chatbot shall not generate content that contains references to sexual '
        "acts or other lewd content (e.g., sexually graphic descriptions, content aimed at causing arousal). Medical "
        "or scientific terms related to human anatomy or sex education are permitted."
    ),
    "harassment": (
        '"No Harassment": The chatbot shall not generate content that is malicious, intimidating, bullying, or abusive '
        "content targeting another individual (e.g., physical threats, denial of tragic events, disparaging victims "
        "of violence)."
    ),
}


def _build(options: FormatOptions) -> GuardFormat:
    names = options.categories or tuple(_GUIDELINES)
    return GuardFormat(
        tuple(Question(read_template("shieldgemma", guideline=_GUIDELINES[name]), name) for name in names),
        partial(read_scores, about=names),
        Markers(
            tags=("<start_of_turn>", "<end_of_turn>"),
            labels=("Human Question", "Chatbot Response"),
            rules=("===",),
        ),
        control=("<start_of_turn>", "<end_of_turn>"),
        words=("Yes", "No"),
        most_tokens=1,
        begins=True,
    )


SHIELDGEMMA = GuardFamily(
    name="shieldgemma",
    judges="responses",
    reports=("probability", "categories"),
    source="google-gemini/gemma-cookbook, responsible/shieldgemma_on_huggingface.ipynb; arXiv 2407.21772",
    licence="Gemma Terms of Use",
    default_model="google/shieldgemma-2b",
    build=_build,
    categories=tuple(_GUIDELINES),
)
