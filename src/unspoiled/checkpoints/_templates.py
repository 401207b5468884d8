"""The chat template of a merged model: a model's own, the most common one, a built-in one, or given text.

Each built-in template is written from its format's public description:
alpaca (Stanford Alpaca's prompt without input, turns ended by the end-of-sequence token), chatml (OpenAI's chat
markup), exaone (LG AI Research's EXAONE 3), llama3 (Meta's Llama 3 prompt format), mistral (Mistral's tokenizer V1,
the one whose marks are text; the system message goes before the first user message).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from unspoiled.checkpoints._tokenizer import MAX_TEMPLATE_BYTES, chat_template
from unspoiled.errors import ConfigError

_ALPACA = """\
{%- set preamble = "Below is an instruction that describes a task. " -%}
{%- set preamble = preamble + "Write a response that appropriately completes the request." -%}
{%- if messages[0].role == "system" -%}
    {{- messages[0].content | trim }}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {{- preamble }}
    {%- set turns = messages -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if turn.role == "user" -%}
        {{- "\\n\\n### Instruction:\\n" + turn.content | trim }}
    {%- elif turn.role == "assistant" -%}
        {{- "\\n\\n### Response:\\n" + turn.content | trim + eos_token }}
    {%- else -%}
        {{- raise_exception("alpaca knows system, user and assistant, not " + turn.role) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "\\n\\n### Response:\\n" }}
{%- endif -%}
"""

_CHATML = """\
{%- for turn in messages -%}
    {{- "<|im_start|>" + turn.role + "\\n" + turn.content + "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|im_start|>assistant\\n" }}
{%- endif -%}
"""

_EXAONE = """\
{%- if messages[0].role != "system" -%}
    {{- "[|system|][|endofturn|]\\n" }}
{%- endif -%}
{%- for turn in messages -%}
    {{- "[|" + turn.role + "|]" + turn.content }}
    {{- "\\n" if turn.role == "user" else "[|endofturn|]\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "[|assistant|]" }}
{%- endif -%}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for turn in messages -%}
    {{- "<|start_header_id|>" + turn.role + "<|end_header_id|>\\n\\n" + turn.content | trim + "<|eot_id|>" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif -%}
"""

_MISTRAL = """\
{%- set has_system = messages[0].role == "system" -%}
{%- set system = messages[0].content + "\\n\\n" if has_system else "" -%}
{{- bos_token }}
{%- for turn in (messages[1:] if has_system else messages) -%}
    {%- if turn.role != ("user" if loop.index0 is even else "assistant") -%}
        {{- raise_exception("mistral wants user and assistant in turns, with at most one system message before them") }}
    {%- elif turn.role == "user" -%}
        {{- " [INST] " + (system if loop.first else "") + turn.content + " [/INST]" }}
    {%- else -%}
        {{- " " + turn.content + eos_token }}
    {%- endif -%}
{%- endfor -%}
"""

BUILT_IN_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}
)
"""The chat templates that a recipe can name, as Jinja text."""


def choose_chat_template(choice: str | None, models: Mapping[str, Path], donor: Path) -> str | None:
    """Return the chat template of a merged model, as Jinja text that nobody has rendered yet.

    Args:
        choice: `"auto"` for the template that most of the models have (of equally common ones the donor's, else
            the first in the order of `models`; outer white space makes no difference), the name of a built-in
            one, Jinja text, or None for the donor's own.
        models: The models' tokenizer directories by name.
        donor: The directory that the merged model's tokenizer comes from.

    Returns:
        None if the chosen models have no template.

    Raises:
        ConfigError: neither a known name nor Jinja text, or text of more than `MAX_TEMPLATE_BYTES`.
        CheckpointError: a damaged or oversized template of a model.
    """
    if choice is None:
        return chat_template(donor)
    if choice == "auto":
        return _most_common(models, donor)
    if choice in BUILT_IN_TEMPLATES:
        return BUILT_IN_TEMPLATES[choice]
    if "{" not in choice:
        near = difflib.get_close_matches(choice, ["auto", *BUILT_IN_TEMPLATES], n=1)
        raise ConfigError(
            f"chat_template: {choice!r} is neither a built-in template nor Jinja text."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + f" Write auto, one of {', '.join(BUILT_IN_TEMPLATES)}, the template itself, or leave it out."
        )
    if (size := len(choice.encode("utf-8", "surrogatepass"))) > MAX_TEMPLATE_BYTES:
        raise ConfigError(
            f"chat_template: the text has {size:,} bytes, and at most {MAX_TEMPLATE_BYTES:,} are taken. Shorten it."
        )
    return choice


def _most_common(models: Mapping[str, Path], donor: Path) -> str | None:
    found = [template for path in models.values() if (template := chat_template(path)) is not None]
    counts = Counter(template.strip() for template in found)
    if not counts:
        return None
    most = max(counts.values())
    candidates = [template for template in found if counts[template.strip()] == most]
    own = chat_template(donor)
    if own is not None and counts[own.strip()] == most:
        return own
    return candidates[0]
