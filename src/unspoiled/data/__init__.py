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
from unspoiled.data._held_out import HeldOut, require_apart, require_no_leak
from unspoiled.data._language import UNKNOWN, language_of, require_known_languages
from unspoiled.data._near_duplicates import PromptIndex, Repeat, Rule
from unspoiled.data._rows import (
    Examples,
    Question,
    Row,
    SetName,
    Split,
    TestPrompt,
    family_of,
    prompt_id,
    read_examples,
    read_rows,
    read_test_prompts,
    split_of,
    write_rows,
)
from unspoiled.data._spread import spread_evenly
from unspoiled.data._tally import Tally
from unspoiled.data._taxonomy import Category, read_taxonomy
from unspoiled.data._templates import BORDERLINE, EVERYDAY, Templates
from unspoiled.data.agreement import agrees, is_correct
from unspoiled.data.curate import Curated, Curator, Dropped, Reason, read_dropped, write_dropped
from unspoiled.data.fallback import TEMPLATES, TemplateRefusals
from unspoiled.data.harness import open_tasks, read_task_questions
from unspoiled.data.questions import (
    EXAMPLES_PER_REQUEST,
    TEMPERATURE,
    Asked,
    Writer,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
)
from unspoiled.data.targets import Answers, Drawing, benign_rows, expert_rows, safety_rows, shares_agreeing

__all__ = [
    "BORDERLINE",
    "EVERYDAY",
    "EXAMPLES_PER_REQUEST",
    "TEMPERATURE",
    "TEMPLATES",
    "UNKNOWN",
    "Answers",
    "Asked",
    "Balance",
    "Category",
    "Contamination",
    "Curated",
    "Curator",
    "DataCardInputs",
    "Drawing",
    "Dropped",
    "Examples",
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
    "Tally",
    "TemplateRefusals",
    "Templates",
    "TestPrompt",
    "Writer",
    "agrees",
    "ask_benign_questions",
    "ask_domain_questions",
    "ask_unsafe_questions",
    "balance_of",
    "benign_rows",
    "count_contamination",
    "count_targets",
    "expert_rows",
    "family_of",
    "find_flaw",
    "group_lengths",
    "is_correct",
    "language_of",
    "open_tasks",
    "prompt_id",
    "read_dropped",
    "read_examples",
    "read_rows",
    "read_task_questions",
    "read_taxonomy",
    "read_test_prompts",
    "read_verdict",
    "render_data_card",
    "require_apart",
    "require_known_languages",
    "require_no_leak",
    "safety_rows",
    "shares_agreeing",
    "split_of",
    "spread_evenly",
    "write_dataset",
    "write_dropped",
    "write_rows",
]
