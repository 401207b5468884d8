"""The generated sets, D_safety, D_expert and D_benign, and the prompt files they are kept apart from."""

from unspoiled.data._rows import (
    Question,
    Row,
    SetName,
    Split,
    TestPrompt,
    prompt_id,
    read_rows,
    read_test_prompts,
    read_verdict,
    split_of,
    write_rows,
)
from unspoiled.data._templates import read_benign_examples, read_request, read_taxonomy
from unspoiled.data.curate import PromptIndex, require_no_leak
from unspoiled.data.questions import (
    EXAMPLES_PER_REQUEST,
    Asked,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
)
from unspoiled.data.targets import Yields, benign_rows, curate_questions, expert_rows, safety_rows

__all__ = [
    "EXAMPLES_PER_REQUEST",
    "Asked",
    "PromptIndex",
    "Question",
    "Row",
    "SetName",
    "Split",
    "TestPrompt",
    "Yields",
    "ask_benign_questions",
    "ask_domain_questions",
    "ask_unsafe_questions",
    "benign_rows",
    "curate_questions",
    "expert_rows",
    "prompt_id",
    "read_benign_examples",
    "read_request",
    "read_rows",
    "read_taxonomy",
    "read_test_prompts",
    "read_verdict",
    "require_no_leak",
    "safety_rows",
    "split_of",
    "write_rows",
]
