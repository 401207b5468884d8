"""Control tokens that are spelled out in text for a server, which tokenises by itself and may take them for real."""

from __future__ import annotations

import re

_NAMES_IN_ANGLES = (
    r"s|bos|eos|pad|unk|mask|sop|eop|start_of_turn|end_of_turn|start_of_image|end_of_image|begin_of_text|end_of_text|"
    r"think|tool_call|tool_calls|tool_response|tool_result|tools|system|user|assistant"
)
_NAMES_IN_BRACKETS = (
    r"INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|TOOL_CALL|ARGS|CALL_ID|THINK|IMG|"
    r"IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|gMASK|sMASK|MASK|CLS|SEP|UNK|PAD|BOS|EOS"
)
_CONTROL = re.compile(
    r"<(?=[|｜][^\n]{0,80}?[|｜]>)"  # <|im_end|>, <|eot_id|>, <｜User｜>: whatever the name
    r"|<(?=[|｜][^\s<>]{1,40}>|[^\s<>]{1,40}[|｜]>)"  # <|turn>, <turn|>
    r"|<(?=/?(?:" + _NAMES_IN_ANGLES + r")>)"  # <start_of_turn>, </s>
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:" + _NAMES_IN_BRACKETS + r")\])"  # [INST], [/INST]
)


def break_control_tokens(text: str) -> str:
    """Return text in which no common spelling of a control token is left: a space follows its first character.

    `<|im_end|>` becomes `< |im_end|>`: the reader sees the same, and no tokenizer takes it for the token. A template's
    markers that are no tokens (`### Instruction:`, `USER:`) are left: whoever reads them that way reads any text so.
    """
    return _CONTROL.sub(lambda found: found[0] + " ", text)
