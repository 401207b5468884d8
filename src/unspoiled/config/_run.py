"""The config of a run: which bunch, what to generate, how to search, what to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PrivateAttr, model_validator

from unspoiled.config._audit import AuditConfig
from unspoiled.config._data import REFUSAL_RULES, GenerateConfig, GuardConfig, Share, TaskExamples
from unspoiled.config._names import BASE, PARENTS, QUESTIONER, UNIFORM, Name
from unspoiled.config._problems import KeyPath
from unspoiled.config._recipe import Dtype
from unspoiled.config._search import SearchConfig, StrategyName
from unspoiled.config._section import Section
from unspoiled.config._yaml import Document, load_yaml, load_yaml_file, validate
from unspoiled.errors import ConfigError

RESERVED_NAMES = frozenset({BASE, QUESTIONER, "templates", UNIFORM, PARENTS, *get_args(StrategyName)})
RESERVED_SETS = frozenset({"safety", "benign", "unsafe", "harmless"})
"""The names of D_safety, D_benign and their test sets, which no domain can have."""
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class ExpertConfig(Section):
    """One expert of the bunch."""

    model: str
    """A checkpoint directory, `hub/id[@revision]`, or `checkpoint+adapter` for a LoRA adapter in PEFT's format."""
    domain: str | None = None
    """The domain whose questions this expert writes and answers; one of `domains`."""


class BunchConfig(Section):
    """The models to merge."""

    base: str
    """The common ancestor that the experts were fine-tuned from."""
    experts: Annotated[dict[Name, ExpertConfig], Field(min_length=2)]
    """The experts by name, at least two."""
    safety_expert: str | None = None
    """The aligned expert: its chat template is the merged model's, and reports compare with it. Default: the
    first expert without a domain, else the first."""


class DomainConfig(Section):
    """One domain of expertise."""

    description: str | None = None
    """What requests for new questions call the domain. Default: its name."""
    examples: Path | TaskExamples
    """In-context questions, at least three; neither training nor test rows: JSON lines with `prompt`, or a task of
    lm-evaluation-harness."""
    test: Path
    """Test rows: JSON lines with `prompt`, `answer`, and `choices` for multiple choice."""


class MergeConfig(Section):
    """The merged checkpoint."""

    dtype: Dtype = "bfloat16"
    """Storage dtype of the merged weights; arithmetic is float32 whatever it is."""


class MeasureConfig(Section):
    """How models are measured, on whatever test sets."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest response, in tokens."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many rows of every test set, spread evenly. Default: all."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The temperature of sampled responses; 0 answers greedily."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How often each prompt is answered; more than once only where responses are sampled."""
    gibberish: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 6.0
    """Nats per token under the base from which a response is gibberish, and so invalid; null leaves that out."""
    unparsed: Share = 0.1
    """Share of a guard's verdicts that may be unreadable; beyond it the evaluation stops. They count as unsafe."""
    tasks: tuple[Annotated[str, Field(pattern=r"^[^/]+(/[^/]+)?$")], ...] = ()
    """Tasks of lm-evaluation-harness (`pip install 'unspoiled[eval]'`) to score too: `TASK`, or `TASK/METRIC` for
    another than its first metric, such as `arc_challenge/acc_norm`."""
    tasks_folder: Path | None = None
    """A folder with task files of your own."""
    tasks_chat: bool = True
    """Whether the tasks' questions are put under the model's chat template."""

    @model_validator(mode="after")
    def _seeds_need_a_temperature(self) -> Self:
        if self.seeds > 1 and not self.temperature:
            raise ValueError(f"seeds: {self.seeds} greedy responses would be the same: give a temperature above 0")
        return self


class EvaluateConfig(MeasureConfig):
    """What is measured, on prompts that nothing else of the run touches."""

    unsafe: Path
    """Unsafe prompts (JSON lines with `prompt`, and `category` and `family` if there are)."""
    harmless: Path
    """Harmless prompts, for over-refusal."""
    guards: Annotated[tuple[str, ...], Field(min_length=1)] = (REFUSAL_RULES,)
    """The guards that judge the responses: `refusal-rules`, and names of `guards`. Better another one than
    `generate.guard` alone."""


class RuntimeConfig(Section):
    """The machine."""

    device: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), or a torch device."""
    dtype: Literal["auto"] | Dtype = "auto"
    """What models compute in while generating, searching and measuring; their weights are those of `merge.dtype` all
    the same. `auto` is `merge.dtype` too, but float32 on a CPU that emulates 16 bits for want of instructions."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the models that write questions and answers of the data sets: transformers, or vLLM's offline engine
    (`pip install 'unspoiled[vllm]'`), for which LoRA experts are first written out as full checkpoints."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Most sequences generated at once; `auto` for as many as the free memory holds. Less after memory ran out."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Ray workers that try merges at once, each with its own model in memory; 0 searches in this process."""
    ray_address: str | None = None
    """The Ray cluster to search on. Default: one that Ray starts on this machine."""
    storage: str | None = None
    """Database URL of the study. Default: `search/study.db` in the run directory, which is SQLite."""
    study: str = "unspoiled"
    """The study's name in its database."""
    trackers: tuple[TrackerName, ...] = ()
    """Where the trials' losses and the final rates are logged too, through accelerate
    (`pip install 'unspoiled[trackers]'` and the tracker's own package)."""


class RunConfig(Section):
    """Everything that defines a run. Relative paths are relative to the config file's directory."""

    bunch: BunchConfig
    domains: Annotated[dict[Name, DomainConfig], Field(min_length=1)]
    """The domains of expertise by name."""
    generate: GenerateConfig
    guards: Annotated[dict[Name, GuardConfig], Field(default_factory=dict)]
    """Guards by name, beside `refusal-rules`."""
    search: SearchConfig = SearchConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig
    audit: AuditConfig = AuditConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    output: Path
    """The run directory, where everything the run makes is kept."""

    _directory: Path = PrivateAttr(default=Path())

    @property
    def directory(self) -> Path:
        """The directory of the config file."""
        return self._directory

    @property
    def output_directory(self) -> Path:
        """The run directory, absolute."""
        return self.locate(self.output)

    @property
    def safety_expert(self) -> str:
        """The name of the aligned expert, stated or by default."""
        if self.bunch.safety_expert is not None:
            return self.bunch.safety_expert
        general = [name for name, expert in self.bunch.experts.items() if expert.domain is None]
        return (general or list(self.bunch.experts))[0]

    @property
    def domain_experts(self) -> dict[str, str]:
        """The expert of each domain: domain name to expert name."""
        return {expert.domain: name for name, expert in self.bunch.experts.items() if expert.domain is not None}

    def on_machine(self, **runtime: Any) -> RunConfig:
        """Return the config with some values of `runtime` replaced: what the machine is, and no part of the run."""
        if not runtime:
            return self
        changed = self.model_copy(update={"runtime": RuntimeConfig(**{**self.runtime.model_dump(), **runtime})})
        changed._directory = self._directory
        return changed

    def locate(self, path: Path | str) -> Path:
        """Return a path of the config as an absolute one."""
        return (self._directory / Path(path).expanduser()).resolve()


def read_run_config(path: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's config.

    Args:
        path: The YAML file.
        overrides: `section.key=value` texts, the value in YAML, that replace what the file says.

    Raises:
        ConfigError: Something is unknown, missing or of the wrong kind; every problem with its line.
    """
    document = load_yaml_file(path)
    if not isinstance(document.value, dict):
        raise document.error((), "the config is not a mapping: start from `unspoiled init`.")
    value = document.value
    for override in overrides:
        value = _override(value, override)
    document = Document(value, document.source, document.lines)
    try:
        config = validate(RunConfig, document)
        _require_consistent(config, document)
    except ConfigError as error:
        if not overrides:
            raise
        given = " ".join(f"--set {override}" for override in overrides)
        raise ConfigError(f"{error}\n(the file as changed by {given})") from None
    config._directory = path.resolve().parent
    return config


def _override(value: dict[str, Any], override: str) -> dict[str, Any]:
    keys, equals, text = override.partition("=")
    if not equals or not keys.strip():
        raise ConfigError(f"--set {override!r}: write it as section.key=value, for example search.trials=20.")
    null = text.strip() in {"null", "~"}  # a whole document that is null counts as empty
    parsed = None if null else load_yaml(text, source=f"--set {override}").value
    first, *rest = keys.strip().split(".")
    nested: Any = parsed
    if rest:
        inner = value.get(first, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {first!r} is not a section of the config.")
        nested = _override(inner, f"{'.'.join(rest)}={text}")
    return {**value, first: nested}


def _require_consistent(config: RunConfig, document: Document) -> None:
    """Check what one section says against another."""
    problems = []
    experts, domains = config.bunch.experts, config.domains
    for name, expert in experts.items():
        if name in RESERVED_NAMES:
            problems.append(document.describe(("bunch", "experts", name), f"{name!r} is a name of ours: rename it"))
        if expert.domain is not None and expert.domain not in domains:
            where = ("bunch", "experts", name, "domain")
            problems.append(document.describe(where, f"{expert.domain!r} is not among the domains {list(domains)}"))
    safety = config.bunch.safety_expert
    if safety is not None and safety not in experts:
        problems.append(
            document.describe(("bunch", "safety_expert"), f"{safety!r} is not among the experts {list(experts)}")
        )
    if config.search.objective.beta and not config.generate.benign_questions:
        message = "β weighs D_benign, which `generate.benign_questions: 0` leaves out"
        problems.append(document.describe(("search", "objective", "beta"), message))
    if REFUSAL_RULES in config.guards:
        problems.append(document.describe(("guards", REFUSAL_RULES), "the rules are always there: give another name"))
    known = [REFUSAL_RULES, *config.guards]
    used: list[tuple[KeyPath, str]] = [(("generate", "guard"), config.generate.guard)]
    used += [(("evaluate", "guards", i), name) for i, name in enumerate(config.evaluate.guards)]
    for at, name in used:
        if name not in known:
            problems.append(document.describe(at, f"{name!r} is not among the guards {known}"))
    for domain in domains:
        if domain in RESERVED_SETS:
            problems.append(document.describe(("domains", domain), f"{domain!r} is a name of ours: rename it"))
        owners = [name for name, expert in experts.items() if expert.domain == domain]
        if len(owners) != 1:
            found = f"the experts {owners} have" if owners else "no expert has"
            message = f"{found} `domain: {domain}`: give each domain exactly one expert"
            problems.append(document.describe(("domains", domain), message))
    if problems:
        raise ConfigError("\n".join(problems))


def as_plain(config: RunConfig) -> Mapping[str, Any]:
    """Return the config as plain values, defaults filled in: what a run directory remembers."""
    return config.model_dump(mode="json")
