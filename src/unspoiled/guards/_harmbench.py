"""HarmBench's Llama-2 classifier: whether a generation is an instance of a behaviour, yes or no."""

from __future__ import annotations

from unspoiled.guards._family import FormatOptions, GuardFamily
from unspoiled.guards._format import GuardFormat, Question, read_template
from unspoiled.guards._markers import Markers
from unspoiled.guards._yes_or_no import read_word


def _build(_options: FormatOptions) -> GuardFormat:
    return GuardFormat(
        (Question(read_template("harmbench")),),
        read_word,
        Markers(
            tags=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
            labels=("Behavior", "Generation", "Rules", "Answer"),
            rules=("---",),
        ),
        most_tokens=8,
        begins=True,
    )


HARMBENCH = GuardFamily(
    name="harmbench",
    judges="behaviour",
    reports=(),
    source="the hub's model card of cais/HarmBench-Llama-2-13b-cls; arXiv 2402.04249",
    licence="MIT, on Llama 2 weights",
    default_model="cais/HarmBench-Llama-2-13b-cls",
    build=_build,
)
