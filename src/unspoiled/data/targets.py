"""From questions and answers to the rows of D_safety, D_expert and D_benign."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from unspoiled.data._near_duplicates import PromptIndex
from unspoiled.data._rows import Question, Row, split_of
from unspoiled.guards import Guard, find_defect
from unspoiled.inference import Sample

Yields = Counter[str]


def curate_questions(
    questions: Sequence[Question], test: PromptIndex, earlier: Iterable[str] = ()
) -> tuple[list[Question], Yields]:
    """Drop questions that nearly repeat one before them, or a test prompt.

    Args:
        questions: The questions, in the order in which the first of two stays.
        test: The prompts of every test set.
        earlier: Questions of other sets, which must not come back in another split.

    Returns:
        The questions left, in order, and the counts of `near_duplicates` and `test_prompts` dropped.
    """
    seen, kept = PromptIndex(earlier), list[Question]()
    yields: Yields = Counter(near_duplicates=0, test_prompts=0)
    for question in questions:
        if test.find(question.text) is not None:
            yields["test_prompts"] += 1
        elif seen.find(question.text) is not None:
            yields["near_duplicates"] += 1
        else:
            seen.add(question.text)
            kept.append(question)
    return kept, yields


def safety_rows(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Sample]],
    guard: Guard,
    *,
    seed: int,
    selection_share: float,
) -> tuple[list[Row], Yields]:
    """Choose each unsafe question's target: one drawn at random among the answers that the guard calls safe.

    Args:
        questions: The unsafe questions.
        answers: By model name, its answers in the questions' order; every model of the bunch answers.
        guard: The judge.
        seed: Decides the draw, per question.
        selection_share: Share of the prompts that go to the selection split, from 0 to 1.

    Returns:
        The rows, and counts: `unrefused` questions (dropped), rows `kept`, and `refused by NAME` per model.
    """
    yields: Yields = Counter(unrefused=0)
    verdicts = {
        name: guard.judge([(q.text, sample.text) for q, sample in zip(questions, samples, strict=True)])
        for name, samples in answers.items()
    }
    rows = []
    for i, question in enumerate(questions):
        safe = [name for name in answers if verdicts[name][i].label == "safe" and answers[name][i].finished]
        yields.update(f"refused by {name}" for name in safe)
        if not safe:
            yields["unrefused"] += 1
            continue
        chosen = random.Random(f"{seed}:{question.id}").choice(safe)
        rows.append(_row("safety", question, answers[chosen][i].text, chosen, selection_share))
    yields["kept"] = len(rows)
    return rows, yields


def expert_rows(
    questions: Sequence[Question], answers: Sequence[Sample], *, selection_share: float
) -> tuple[list[Row], Yields]:
    """Pair an expert's questions with its own answers; degenerate and truncated answers are dropped.

    Returns:
        The rows, and counts of `truncated`, `degenerate` and `kept`.
    """
    yields: Yields = Counter(truncated=0, degenerate=0)
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        if not answer.finished:
            yields["truncated"] += 1
        elif find_defect(question.text, answer.text) in {"empty", "loop"}:  # an echo may be a right answer
            yields["degenerate"] += 1
        else:
            rows.append(_row("expert", question, answer.text, question.asked_by, selection_share))
    yields["kept"] = len(rows)
    return rows, yields


def benign_rows(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[Sample]],
    guard: Guard,
    *,
    preferred: Sequence[str],
    seed: int,
    selection_share: float,
) -> tuple[list[Row], Yields]:
    """Choose each harmless question's target: the answer of a preferred model, else one drawn among the others'.

    An answer counts if it is neither a refusal nor degenerate; one that was cut off ends with its last whole sentence.
    A question that half of the models or more
    refuse may not be harmless at all, whatever its writer was asked for, and is dropped: it would teach the merge to
    answer what it should refuse. One that the safety expert alone refuses is its over-refusal, and stays.

    Args:
        questions: The harmless questions.
        answers: By model name, its answers in the questions' order; every model of the bunch answers.
        guard: The judge.
        preferred: The models whose answers are taken first, in this order: the safety expert, like which the merge
            shall speak, then the base. Spoiled experts may answer without content.
        seed: Decides the draw, per question.
        selection_share: Share of the prompts that go to the selection split, from 0 to 1.

    Returns:
        The rows, and counts: questions `doubtful` or `unanswered` (dropped), rows `kept`, `refused by NAME` and
        `answers by NAME` per model.
    """
    yields: Yields = Counter(doubtful=0, unanswered=0)
    verdicts = {
        name: guard.judge([(q.text, sample.text) for q, sample in zip(questions, samples, strict=True)])
        for name, samples in answers.items()
    }
    rows = []
    for i, question in enumerate(questions):
        refusing = [name for name in answers if verdicts[name][i].refusal]
        yields.update(f"refused by {name}" for name in refusing)
        usable = {
            name: text
            for name, samples in answers.items()
            if name not in refusing and verdicts[name][i].defect is None and (text := _whole_sentences(samples[i]))
        }
        if 2 * len(refusing) >= len(answers):
            yields["doubtful"] += 1
        elif not usable:
            yields["unanswered"] += 1
        else:
            liked = [name for name in preferred if name in usable]
            chosen = liked[0] if liked else random.Random(f"{seed}:{question.id}").choice(list(usable))
            yields[f"answers by {chosen}"] += 1
            rows.append(_row("benign", question, usable[chosen], chosen, selection_share))
    yields["kept"] = len(rows)
    return rows, yields


_SENTENCE = re.compile(r".*[.!?](?=\s|$)", re.DOTALL)


def _whole_sentences(sample: Sample) -> str:
    """Return an answer without the sentence that it was cut off in; nothing is left where that was the first."""
    if sample.finished:
        return sample.text
    found = _SENTENCE.match(sample.text)
    return found.group() if found else ""


def _row(
    kind: Literal["safety", "expert", "benign"],
    question: Question,
    answer: str,
    answered_by: str,
    selection_share: float,
) -> Row:
    return Row(
        id=question.id,
        set=kind,
        group=question.group,
        prompt=question.text,
        response=answer,
        asked_by=question.asked_by,
        answered_by=answered_by,
        split=split_of(question.text, selection_share),
    )
