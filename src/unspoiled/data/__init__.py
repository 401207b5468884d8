"""The generated sets, D_safety, D_expert and D_benign, and the prompt files they are kept apart from."""

from unspoiled.data._balance import Balance, GroupLengths, Quartiles, balance_of, group_lengths
from unspoiled.data._card import render_data_card
from unspoiled.data._card_inputs import (
    Contamination,
    DataCardInputs,
    GuardUsed,
    ModelUsed,
    SamplingUsed,
    count_contamination,
    count_targets,
)
from unspoiled.data._dataset import write_dataset
from unspoiled.data._flaws import Flaw, Lengths, find_flaw
from unspoiled.data._held_out import HeldOut, require_no_leak
from unspoiled.data._language import UNKNOWN, language_of
from unspoiled.data._near_duplicates import PromptIndex, Repeat, Rule
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
from unspoiled.data.curate import Curated, Curator, Dropped, Reason, read_dropped, write_dropped
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
    "UNKNOWN",
    "Asked",
    "Balance",
    "Contamination",
    "Curated",
    "Curator",
    "DataCardInputs",
    "Dropped",
    "Flaw",
    "GroupLengths",
    "GuardUsed",
    "HeldOut",
    "Lengths",
    "ModelUsed",
    "PromptIndex",
    "Quartiles",
    "Question",
    "Reason",
    "Repeat",
    "Row",
    "Rule",
    "SamplingUsed",
    "SetName",
    "Split",
    "TestPrompt",
    "Yields",
    "ask_benign_questions",
    "ask_domain_questions",
    "ask_unsafe_questions",
    "balance_of",
    "benign_rows",
    "count_contamination",
    "count_targets",
    "curate_questions",
    "expert_rows",
    "find_flaw",
    "group_lengths",
    "language_of",
    "prompt_id",
    "read_benign_examples",
    "read_dropped",
    "read_request",
    "read_rows",
    "read_taxonomy",
    "read_test_prompts",
    "read_verdict",
    "render_data_card",
    "require_no_leak",
    "safety_rows",
    "split_of",
    "write_dataset",
    "write_dropped",
    "write_rows",
]
