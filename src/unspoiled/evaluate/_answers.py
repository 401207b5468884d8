"""What a model answers to the prompts of the test sets, before anybody judges it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from unspoiled.data import TestPrompt
from unspoiled.evaluate._measures import DOMAIN_PREFIX
from unspoiled.files import hash_value
from unspoiled.inference import Exchange, Generator, Prompt, ResponseScore, Scorer, counted

UNSAFE, HARMLESS = "unsafe", "harmless"
Progress = Callable[[str, int, int], None]
"""Called with (what is done, how much of it, of how much)."""


def unwatched(what: str, done: int, total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class TestSets:
    """The prompts that nothing else of a run touches; each set may be missing.

    Args:
        unsafe: Prompts to refuse.
        harmless: Prompts to answer.
        domains: Rows with answers, by domain.
        max_new_tokens: Longest response, in tokens.
        temperature: 0 answers greedily; otherwise the temperature of plain sampling.
        seeds: How often each prompt is answered, at least 1; more than once only where answers are sampled.

    Raises:
        ValueError: Greedy answers are wanted several times.
    """

    __test__ = False  # not a test class, whatever its name suggests to pytest

    unsafe: Sequence[TestPrompt] = ()
    harmless: Sequence[TestPrompt] = ()
    domains: Mapping[str, Sequence[TestPrompt]] = field(default_factory=lambda: MappingProxyType({}))
    max_new_tokens: int = 128
    temperature: float = 0.0
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds > 1 and not self.temperature > 0:
            raise ValueError("greedy answers are the same for every seed: give a temperature, or one seed")

    @property
    def sets(self) -> dict[str, Sequence[TestPrompt]]:
        """The rows by set, as outcomes name the sets; empty sets left out."""
        domains = {DOMAIN_PREFIX + name: rows for name, rows in self.domains.items()}
        return {name: rows for name, rows in {UNSAFE: self.unsafe, HARMLESS: self.harmless, **domains}.items() if rows}

    @property
    def rows(self) -> list[TestPrompt]:
        """Every row: the unsafe prompts, the harmless ones, then the domains'."""
        return [row for rows in self.sets.values() for row in rows]


@dataclass(frozen=True)
class Answer:
    """One answer of one model.

    Args:
        set: `unsafe`, `harmless` or `domain:NAME`.
        row: What was asked.
        text: What the model wrote; of a multiple-choice row, the choice it holds likeliest.
        seed: What it was sampled by; 0 of greedy answers and of choices.
        correct: Whether it is right; None for safety prompts.
        loss: The cross-entropy of the row's right answer, in nats per token; None for safety prompts, and where the
            same row's was given with an earlier seed.
    """

    set: str
    row: TestPrompt
    text: str
    seed: int = 0
    correct: bool | None = None
    loss: float | None = None

    @property
    def is_of_safety(self) -> bool:
        """Whether the prompt is one to refuse or one that must not be refused."""
        return self.set in (UNSAFE, HARMLESS)


def answer(generator: Generator, scorer: Scorer, tests: TestSets, *, progress: Progress = unwatched) -> list[Answer]:
    """Have a model answer every test prompt; return the answers set by set, seed by seed, in the rows' order.

    Args:
        generator: Writes as the model.
        scorer: Scores as the model: choices, and right answers.
        tests: The prompts.
        progress: Called as answers come.
    """
    answers: list[Answer] = []
    for name, rows in tests.sets.items():
        free = [row for row in rows if not row.choices]
        choosing = [row for row in rows if row.choices]
        losses: dict[str, float] = {}
        if name.startswith(DOMAIN_PREFIX):
            likelihoods = _score(scorer, [(row, row.answer or "") for row in free])
            losses |= {row.id: _loss(score) for row, score in zip(free, likelihoods, strict=True)}
        chosen = _choose(scorer, choosing, name)
        for seed in range(tests.seeds):
            texts = _write(generator, free, tests, seed, name, progress)
            written = iter(texts)
            for row in rows:
                if row.choices:
                    if seed == 0:
                        answers.append(chosen[row.id])
                    continue
                text = next(written)
                right = None if row.answer is None else row.is_right(text)
                answers.append(Answer(name, row, text, seed, right, losses.get(row.id) if seed == 0 else None))
        if not free:
            progress(name, len(rows), len(rows))
    return answers


def _write(
    generator: Generator, rows: Sequence[TestPrompt], tests: TestSets, seed: int, name: str, progress: Progress
) -> list[str]:
    """Return what a model writes to rows, in their order.

    A row's random stream is its own, wherever it stands: rows before it that come or go change nothing.
    """
    copies: Counter[str] = Counter()
    streams = []
    for row in rows:
        streams.append(int(hash_value([row.id, copies[row.id]])[:15], 16))
        copies[row.id] += 1
    samples = generator.generate(
        [Prompt(row.prompt) for row in rows],
        max_new_tokens=tests.max_new_tokens,
        temperature=tests.temperature,
        seed=seed,
        streams=streams,
        on_sample=counted(lambda done, total: progress(name, done, total), len(rows)),
    )
    return [sample.text for sample in samples]


def _choose(scorer: Scorer, rows: Sequence[TestPrompt], name: str) -> dict[str, Answer]:
    """Return the choice that a model holds likeliest, by the rows' ids.

    Of given choices the very text counts, as `us` and `US` may be two of them. Likelihoods are of whole choices, their
    lengths not evened out, as `acc` of lm-evaluation-harness.
    """
    scores = iter(_score(scorer, [(row, choice) for row in rows for choice in row.choices]))
    chosen = {}
    for row in rows:
        own = [next(scores) for _ in row.choices]
        best = max(range(len(own)), key=lambda i: own[i].log_likelihood)
        loss = None if row.answer is None else _loss(own[row.choices.index(row.answer)])
        right = None if row.answer is None else row.is_right(row.choices[best])
        chosen[row.id] = Answer(name, row, row.choices[best], 0, right, loss)
    return chosen


def _loss(score: ResponseScore) -> float:
    """Return a cross-entropy to a millionth: what is beyond depends on which rows were scored together."""
    return round(score.cross_entropy, 6)


def _score(scorer: Scorer, pairs: Sequence[tuple[TestPrompt, str]]) -> list[ResponseScore]:
    return scorer.score([Exchange(Prompt(row.prompt), text) for row, text in pairs])


def base_scores(scorer: Scorer, answers: Sequence[Answer]) -> list[ResponseScore | None]:
    """Return each safety answer's score as the base's answer to the same prompt; None for the others."""
    safety = [answer for answer in answers if answer.is_of_safety and answer.text.strip()]
    scores = _score(scorer, [(answer.row, answer.text) for answer in safety])
    found = {id(answer): score for answer, score in zip(safety, scores, strict=True)}
    return [found.get(id(answer)) for answer in answers]
