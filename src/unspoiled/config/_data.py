"""The parts of a run's config about generated data and about guards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from unspoiled.config._section import Section

REFUSAL_RULES = "refusal-rules"
"""The guard that needs no model, which every config has."""
Taxonomy = Literal["beavertails", "llama-guard", "ailuminate"]
TAXONOMIES = frozenset(get_args(Taxonomy))
Share = Annotated[float, Field(ge=0, le=1)]


class ServedModel(Section):
    """A model behind a server that speaks OpenAI's chat completions (`pip install 'unspoiled[openai]'`)."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Where the API begins, mostly with `/v1`: `http://localhost:8000/v1`."""
    model: str
    """The name that the server knows the model by."""
    key_variable: str | None = None
    """The environment variable that holds the API key. Default: none is sent."""
    server: Literal["vllm", "llama.cpp", "other"] = "other"
    """What the server is. It decides whether a forced beginning of the reply is sent, as a last message of the
    assistant's: vLLM and llama.cpp continue it, others would take it for a finished turn. It also decides which of the
    server's own sampling defaults are turned off."""
    concurrency: Annotated[int, Field(ge=1)] = 8
    """Most requests at once."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Most requests begun in a minute, retries not counted. Default: as many as the server takes."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one request may take."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a request is repeated that was refused for being one too many (429), failed at the server (5xx) or got
    no reply. The pauses grow from half a second to eight, with jitter; a server's Retry-After goes before."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The parameter that limits the reply. Some of OpenAI's own models take only the second."""


class GuardConfig(Section):
    """A guard: a judge of (prompt, response) pairs; `unspoiled guards` lists the families."""

    family: str
    """Whose format it speaks, such as `llama-guard-3`."""
    model: str | ServedModel | None = None
    """The guard's weights, as `bunch.experts.*.model`; for the family `policy` also a model behind a server."""
    threshold: Share | None = None
    """The probability of `unsafe` from which a response counts as unsafe. Default: the verdict that it writes."""
    categories: list[str] | None = None
    """The codes of the categories it is asked about. Default: all of its family's."""
    controversial: Literal["unsafe", "safe"] = "unsafe"
    """What the level between the two counts as, for the family `qwen3guard-gen`."""
    policy: Path | None = None
    """The policy's text, for the family `policy`. Default: the package's."""


class ConsistencyConfig(Section):
    """Several answers of an expert to a question, of which enough must say the same."""

    samples: Annotated[int, Field(ge=1)] = 5
    """Answers sampled beside the greedy one."""
    agreement: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of them that must agree with the greedy one."""
    temperature: Annotated[float, Field(gt=0)] = 0.7
    """The temperature that they are sampled at."""


class TaskExamples(Section):
    """In-context questions from a task of lm-evaluation-harness (`pip install 'unspoiled[eval]'`)."""

    task: str
    """The task's name."""
    split: Literal["validation", "train"] = "validation"
    """Which of its splits; the test split is for tests."""
    limit: Annotated[int, Field(ge=3)] = 100
    """At most so many questions, spread evenly."""
    include: Path | None = None
    """A folder with task files of your own."""


class GenerateConfig(Section):
    """How D_safety, D_expert and D_benign are made."""

    questioner: str | ServedModel
    """The model that writes unsafe questions: an uncensored one, as `bunch.experts.*.model`, or behind a server."""
    taxonomy: str = "beavertails"
    """`beavertails` (14 categories), `llama-guard` (S1 to S14), `ailuminate` (12), or a YAML file with a list of
    category names."""
    templates: Path | None = None
    """A folder with texts of requests and refusals that replace the package's of the same names."""
    safety_questions: Annotated[int, Field(ge=1)] = 1000
    """Unsafe questions to ask for (K of the paper), as many of each category."""
    expert_questions: Annotated[int, Field(ge=1)] = 1000
    """Domain questions to ask for, shared equally among the domains' experts."""
    benign_questions: Annotated[int, Field(ge=0)] = 1000
    """Harmless questions to ask for, half of them with alarming words; 0 leaves D_benign out, and with it the limit
    on over-refusal."""
    benign_questioner: str | ServedModel | None = None
    """The model that writes harmless questions, as `questioner`. Default: the base."""
    guard: str = REFUSAL_RULES
    """The guard that says which answers are safe: `refusal-rules`, or one of `guards`."""
    unparsed: Share = 0.1
    """Share of a guard's verdicts that may be unreadable; beyond it the run stops."""
    target: Literal["random", "best"] = "random"
    """Of several safe answers to an unsafe question: a `random` one (the paper's way), or the `best` by the guard's
    probability."""
    fallback: Literal["drop", "templates"] = "drop"
    """What to do with an unsafe question that no expert refuses: `drop` it, or take a refusal from `templates`."""
    consistency: ConsistencyConfig | None = None
    """Leave out domain questions on which an expert contradicts itself. Default: don't ask it again."""
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] | None = None
    """Languages (ISO 639 codes such as `en`) that questions may be in. Default: any."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer, in tokens; longer answers are cut and dropped."""
    selection_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the rows kept out of the search, to pick among finalists."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides categories, in-context examples, sampling, and which refusal is the target."""
