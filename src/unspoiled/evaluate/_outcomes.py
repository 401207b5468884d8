"""What a model does on the test prompts: one outcome per prompt, from which every rate is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unspoiled.data import TestPrompt, is_correct
from unspoiled.errors import DataError
from unspoiled.evaluate._comparison import Observed
from unspoiled.evaluate._measures import (
    ADVICE_PREFIX,
    DOMAIN_PREFIX,
    INVALID,
    LOSS_PREFIX,
    OVER_REFUSAL,
    REFUSAL,
    SAFE_PREFIX,
    TASK_PREFIX,
)
from unspoiled.evaluate._results import Mean, ModelScores, Rate
from unspoiled.files import read_jsonl, write_jsonl_atomic
from unspoiled.guards import Guard, require_parsed
from unspoiled.inference import Exchange, Prompt, TransformersBackend, counted

UNSAFE, HARMLESS = "unsafe", "harmless"


@dataclass(frozen=True)
class TestSets:
    """The prompts that nothing else of a run touches.

    Args:
        unsafe: Prompts to refuse.
        harmless: Prompts to answer.
        domains: Rows with answers, by domain.
        max_new_tokens: Longest response, in tokens; generation is greedy.
    """

    __test__ = False

    unsafe: Sequence[TestPrompt]
    harmless: Sequence[TestPrompt]
    domains: Mapping[str, Sequence[TestPrompt]]
    max_new_tokens: int

    @property
    def rows(self) -> list[TestPrompt]:
        """Every row: the unsafe prompts, the harmless ones, then the domains'."""
        return [*self.unsafe, *self.harmless, *(row for rows in self.domains.values() for row in rows)]


@dataclass(frozen=True)
class Outcome:
    """What one model did on one test prompt.

    Args:
        set: `unsafe`, `harmless`, `domain:NAME` or `task:NAME`.
        id: The prompt's id.
        prompt: The prompt.
        response: What the model wrote; of a multiple-choice row, the choice it holds likeliest.
        family: The family of the prompt: responses to one family aren't independent.
        category: The prompt's harm category; empty if it has none.
        seed: What the response was sampled by; 0 of greedy ones.
        refused: Whether it validly declined (safety sets only).
        defect: What makes the response invalid, or None (safety sets only).
        correct: Whether the answer is right (domains, and tasks whose score is true or false).
        score: A task's score of the row, where it is a number.
        loss: The cross-entropy of the right answer, in nats per token (domains only).
        safe: By guard, whether it calls the response safe (unsafe prompts only; guards that judge content).
        advice: By guard, whether it calls the response unsafe for specialised advice alone (those with that category).
    """

    set: str
    id: str
    prompt: str
    response: str
    family: str
    category: str = ""
    seed: int = 0
    refused: bool | None = None
    defect: str | None = None
    correct: bool | None = None
    score: float | None = None
    loss: float | None = None
    safe: Mapping[str, bool] = field(default_factory=dict)
    advice: Mapping[str, bool] = field(default_factory=dict)


def measure(
    backend: TransformersBackend,
    tests: TestSets,
    guards: Mapping[str, Guard],
    *,
    unparsed: float = 0.1,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Outcome]:
    """Return the model's outcome on every test prompt, in the sets' order.

    Args:
        backend: The model.
        tests: The prompts.
        guards: The judges of the responses to safety prompts, by name, at least one. What is a refusal is said by the
            first of them.
        unparsed: Share of a guard's verdicts that may be unreadable, from 0 to 1.
        progress: Called with (set, prompts done, prompts in all).

    Raises:
        DataError: A guard's verdicts are unreadable beyond that.
    """
    outcomes: list[Outcome] = []
    for name, rows in ((UNSAFE, tests.unsafe), (HARMLESS, tests.harmless)):
        samples = backend.generate(
            [Prompt(row.prompt) for row in rows],
            max_new_tokens=tests.max_new_tokens,
            on_sample=counted(lambda done, total, name=name: progress(name, done, total), len(rows)),  # type: ignore[misc]
        )
        pairs = [(row.prompt, sample.text) for row, sample in zip(rows, samples, strict=True)]
        verdicts = {guard: judge.judge(pairs) for guard, judge in guards.items()}
        for given in verdicts.values():
            require_parsed(given, at_most=unparsed)
        of_content = [guard for guard in guards if guards[guard].judges_content and name == UNSAFE]
        first = verdicts[next(iter(guards))]
        for i, (row, sample) in enumerate(zip(rows, samples, strict=True)):
            refused, defect = first[i].refusal, first[i].defect
            own = {guard: verdicts[guard][i] for guard in of_content}
            safe = {guard: verdict.label == "safe" for guard, verdict in own.items()}
            advice = {
                guard: verdict.label == "unsafe" and verdict.categories == (guards[guard].advice,)
                for guard, verdict in own.items()
                if guards[guard].advice is not None
            }
            outcomes.append(
                Outcome(
                    name,
                    row.id,
                    row.prompt,
                    sample.text,
                    row.family,
                    row.category,
                    refused=refused,
                    defect=defect,
                    safe=safe,
                    advice=advice,
                )
            )
    for domain, rows in tests.domains.items():
        answers = _answers(backend, rows, tests.max_new_tokens)
        outcomes += [
            Outcome(f"domain:{domain}", row.id, row.prompt, answer, row.family, correct=_is_right(row, answer))
            for row, answer in zip(rows, answers, strict=True)
        ]
        progress(domain, len(rows), len(rows))
    return outcomes


def _answers(backend: TransformersBackend, rows: Sequence[TestPrompt], max_new_tokens: int) -> list[str]:
    """Return each row's answer: written greedily, or of given choices the likeliest."""
    answers = [""] * len(rows)
    free = [i for i, row in enumerate(rows) if not row.choices]
    samples = backend.generate([Prompt(rows[i].prompt) for i in free], max_new_tokens=max_new_tokens)
    for i, sample in zip(free, samples, strict=True):
        answers[i] = sample.text
    closed = [i for i, row in enumerate(rows) if row.choices]
    scores = iter(backend.score([Exchange(Prompt(rows[i].prompt), c) for i in closed for c in rows[i].choices]))
    for i in closed:
        likelihoods = [next(scores).log_likelihood for _ in rows[i].choices]
        answers[i] = rows[i].choices[likelihoods.index(max(likelihoods))]
    return answers


def _is_right(row: TestPrompt, answer: str) -> bool:
    """Judge an answer; of given choices the very text, as `us` and `US` may be two of them."""
    return answer == row.answer if row.choices else is_correct(answer, row.answer or "")


def scores(outcomes: Sequence[Outcome]) -> ModelScores:
    """Count one model's outcomes: a rate or mean per measure, and per harm category those of unsafe prompts."""
    unsafe = [outcome for outcome in outcomes if outcome.set == UNSAFE]
    categories = sorted({outcome.category for outcome in unsafe} - {""})
    found = observed(outcomes)
    return ModelScores(
        rates={name: Rate.of(of.truths, of.families) for name, of in found.items() if of.is_rate},
        means={name: Mean.of(of.values, of.families) for name, of in found.items() if not of.is_rate},
        categories={
            category: {
                name: Rate.of(of.truths, of.families)
                for name, of in observed([outcome for outcome in unsafe if outcome.category == category]).items()
                if name == REFUSAL or name.startswith(SAFE_PREFIX)
            }
            for category in categories
        },
    )


def observed(outcomes: Sequence[Outcome]) -> dict[str, Observed]:
    """Return the outcomes by measure, in the order of presentation, as `compare` takes them.

    `invalid` is over the unsafe and harmless prompts together.
    """
    found: dict[str, list[tuple[bool | float, str]]] = {}

    def note(measure: str, value: bool | float | None, outcome: Outcome) -> None:
        if value is not None:
            found.setdefault(measure, []).append((value, outcome.family))

    safety = {kind: [outcome for outcome in outcomes if outcome.set == kind] for kind in (UNSAFE, HARMLESS)}
    for prefix, of in ((REFUSAL, None), (SAFE_PREFIX, "safe"), (ADVICE_PREFIX, "advice")):
        for outcome in safety[UNSAFE]:
            if of is None:
                note(prefix, outcome.refused, outcome)
            else:
                for guard, value in getattr(outcome, of).items():
                    note(prefix + guard, value, outcome)
    for outcome in safety[HARMLESS]:
        note(OVER_REFUSAL, outcome.refused, outcome)
    for outcome in [*safety[UNSAFE], *safety[HARMLESS]]:
        note(INVALID, outcome.defect is not None, outcome)
    for of_set in (DOMAIN_PREFIX, TASK_PREFIX):
        for outcome in outcomes:
            if outcome.set.startswith(of_set):
                note(outcome.set, outcome.correct if outcome.score is None else outcome.score, outcome)
    for outcome in outcomes:
        if outcome.set.startswith(DOMAIN_PREFIX):
            note(LOSS_PREFIX + outcome.set.removeprefix(DOMAIN_PREFIX), outcome.loss, outcome)
    return {
        measure: Observed(tuple(value for value, _ in rows), tuple(family for _, family in rows))
        for measure, rows in found.items()
    }


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes as JSON lines, all or nothing."""
    write_jsonl_atomic(path, [vars(outcome) for outcome in outcomes])


def read_outcomes(path: Path) -> list[Outcome]:
    """Read what `write_outcomes` wrote."""
    return [Outcome(**row) for row in read_jsonl(path)]


def require_same_prompts(by_model: Mapping[str, Sequence[Outcome]]) -> None:
    """Check that all models were measured on the same prompts in the same order.

    Raises:
        DataError: They were not, so that no paired comparison is possible.
    """
    keys = {name: [(o.set, o.id) for o in outcomes] for name, outcomes in by_model.items()}
    first = next(iter(keys.values()), [])
    for name, found in keys.items():
        if found != first:
            raise DataError(f"{name!r} was measured on other prompts than {next(iter(keys))!r}: evaluate with --fresh.")
