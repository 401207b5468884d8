"""The config of a run: which bunch, what to generate, how to search, what to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from unspoiled.config._recipe import Dtype
from unspoiled.config._yaml import Document, load_yaml, load_yaml_file, validate
from unspoiled.errors import ConfigError

RESERVED_NAMES = frozenset({"base", "questioner", "uniform", "grid", "cocktail", "evolve"})
SAFETY_SET = "safety"
"""The name of D_safety among the data sets, which no domain can have."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ExpertConfig(_Section):
    """One expert of the bunch."""

    model: str
    """A checkpoint directory, `hub/id[@revision]`, or `checkpoint+adapter` for a LoRA adapter in PEFT's format."""
    domain: str | None = None
    """The domain whose questions this expert writes and answers; one of `domains`."""


class BunchConfig(_Section):
    """The models to merge."""

    base: str
    """The common ancestor that the experts were fine-tuned from."""
    experts: Annotated[dict[Name, ExpertConfig], Field(min_length=2)]
    """The experts by name, at least two."""
    safety_expert: str | None = None
    """The aligned expert: its chat template is the merged model's, and reports compare with it. Default: the
    first expert without a domain, else the first."""


class DomainConfig(_Section):
    """One domain of expertise."""

    description: str | None = None
    """What requests for new questions call the domain. Default: its name."""
    examples: Path
    """In-context questions (JSON lines with `prompt`), at least three; neither training nor test rows."""
    test: Path
    """Test rows: JSON lines with `prompt`, `answer`, and `choices` for multiple choice."""


class GenerateConfig(_Section):
    """How D_safety and D_expert are made."""

    questioner: str
    """The model that writes unsafe questions: an uncensored one, as `bunch.experts.*.model`."""
    taxonomy: str = "beavertails"
    """`beavertails` (14 categories), or a YAML file with a list of category names."""
    safety_questions: Annotated[int, Field(ge=1)] = 1000
    """Unsafe questions to ask for (K of the paper)."""
    expert_questions: Annotated[int, Field(ge=1)] = 1000
    """Domain questions to ask for, shared equally among the domains' experts."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer, in tokens; longer answers are cut and dropped."""
    selection_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the rows kept out of the search, to pick among finalists."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides categories, in-context examples, sampling, and which refusal is the target."""


class SearchConfig(_Section):
    """How the coefficients are searched."""

    method: Literal["task_arithmetic", "linear"] = "task_arithmetic"
    """The merge method whose weights move."""
    granularity: Literal["model", "group", "layer"] = "model"
    """One weight per expert, per expert and group of layers, or per expert and layer."""
    layer_groups: Annotated[int, Field(ge=1)] = 4
    """Number of groups for `granularity: group`."""
    strategies: Annotated[tuple[Literal["grid", "cocktail", "evolve"], ...], Field(min_length=1, strict=False)] = (
        "cocktail",
        "evolve",
    )
    """Which strategies to run; the uniform merge is always measured beside them."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """α of J = CE_safety + α · CE_expert."""
    trials: Annotated[int, Field(ge=1)] = 100
    """Trials of `evolve`."""
    bounds: Annotated[tuple[float, float], Field(strict=False)] = (0.0, 1.5)
    """Smallest and largest weight."""
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    """Initial step of `evolve`, σ₀."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """T of `cocktail`'s softmax(−loss / T)."""
    finalists: Annotated[int, Field(ge=1)] = 5
    """How many of each strategy's best trials are compared on the selection split."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of `evolve`."""

    @model_validator(mode="after")
    def _ordered_bounds(self) -> Self:
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {list(self.bounds)} are not [smallest, largest]")
        return self

    @model_validator(mode="after")
    def _distinct_strategies(self) -> Self:
        if len(set(self.strategies)) < len(self.strategies):
            raise ValueError(f"strategies {list(self.strategies)} names one twice: name each once")
        return self


class MergeConfig(_Section):
    """The merged checkpoint."""

    dtype: Dtype = "bfloat16"
    """Storage dtype of the merged weights; arithmetic is float32 whatever it is."""


class EvaluateConfig(_Section):
    """What is measured, on prompts that nothing else of the run touches."""

    unsafe: Path
    """Unsafe prompts (JSON lines with `prompt`)."""
    harmless: Path
    """Harmless prompts, for over-refusal."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest response, in tokens."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many rows of every test set, spread evenly. Default: all."""


class RuntimeConfig(_Section):
    """The machine."""

    device: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), or a torch device."""
    batch_size: Annotated[int, Field(ge=1)] = 48
    """Most sequences generated at once; halved when memory runs out."""


class RunConfig(_Section):
    """Everything that defines a run. Relative paths are relative to the config file's directory."""

    bunch: BunchConfig
    domains: Annotated[dict[Name, DomainConfig], Field(min_length=1)]
    """The domains of expertise by name."""
    generate: GenerateConfig
    search: SearchConfig = SearchConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig
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
    for domain in domains:
        if domain == SAFETY_SET:
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
