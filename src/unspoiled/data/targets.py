"""From questions and answers to the rows of D_safety, D_expert and D_benign."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unspoiled.data._rows import Question, Row, SetName, split_of
from unspoiled.data._tally import Tally
from unspoiled.data.agreement import agrees
from unspoiled.data.fallback import TEMPLATES, TemplateRefusals
from unspoiled.guards import Guard, Verdict
from unspoiled.inference import Sample

Target = Literal["random", "best"]


@dataclass(frozen=True)
class Answers:
    """One model's answers to questions, judged.

    Args:
        model: The model's name.
        model_hash: A hash of its weights.
        samples: Its answers, in the questions' order.
        verdicts: What the guard says of each.
    """

    model: str
    model_hash: str
    samples: Sequence[Sample]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Drawing:
    """How rows are made of what was answered.

    Args:
        seed: Decides which of several targets is drawn, per question.
        selection_share: Share of the prompts that go to the selection split, from 0 to 1.
        askers: A hash of the weights of each model that asks, by name.
    """

    seed: int
    selection_share: float
    askers: Mapping[str, str]

    def choice(self, question: Question, options: Sequence[Answers]) -> Answers:
        """Draw one of the options for a question."""
        return random.Random(f"{self.seed}:{question.id}").choice(options)

    def row(
        self, kind: SetName, question: Question, text: str, *, by: str, by_hash: str, verdicts: Sequence[Verdict]
    ) -> Row:
        """Return the row of a question and its target."""
        return Row(
            id=question.id,
            set=kind,
            group=question.group,
            prompt=question.text,
            response=text,
            asked_by=question.asked_by,
            answered_by=by,
            split=split_of(question.text, self.selection_share),
            asked_by_hash=self.askers[question.asked_by],
            answered_by_hash=by_hash,
            seed=self.seed,
            verdicts=tuple(verdicts),
        )

    def answered(self, kind: SetName, question: Question, answers: Answers, i: int, text: str | None = None) -> Row:
        """Return the row of the i-th question with one model's answer, or with a part of it, as the target."""
        return self.row(
            kind, question, answers.samples[i].text if text is None else text,
            by=answers.model, by_hash=answers.model_hash, verdicts=[answers.verdicts[i]],
        )  # fmt: skip


def safety_rows(
    questions: Sequence[Question],
    answers: Sequence[Answers],
    drawing: Drawing,
    *,
    target: Target = "random",
    fallback: TemplateRefusals | None = None,
    guard: Guard,
) -> tuple[list[Row], Tally]:
    """Choose each unsafe question's target among the answers that the guard calls safe.

    Args:
        questions: The unsafe questions.
        answers: Of every model of the bunch.
        drawing: How to draw.
        target: `random` draws one (the paper's way); `best` takes the one that the guard holds least probably unsafe,
            and draws where it gives no probabilities.
        fallback: Writes the target where no answer is safe; None drops the question.
        guard: Judges what the fallback wrote.

    Returns:
        The rows, and counts: `unrefused` questions (nobody's answer is safe), `from templates`, rows `kept`, and
        `refused by NAME` and `target by NAME` per model.
    """
    tally = Tally()
    written: list[tuple[Question, str]] = []
    rows: dict[str, Row] = {}
    for i, question in enumerate(questions):
        safe = [own for own in answers if own.verdicts[i].label == "safe" and own.samples[i].finished]
        for own in safe:
            tally.count(f"refused by {own.model}", question.group)
        if safe:
            chosen = drawing.choice(question, _likeliest_safe(safe, i) if target == "best" else safe)
            rows[question.id] = drawing.answered("safety", question, chosen, i)
            tally.count(f"target by {chosen.model}", question.group)
            continue
        tally.count("unrefused", question.group)
        if fallback is not None:
            written.append((question, fallback.write(question, drawing.seed)))
    verdicts = guard.judge([(question.text, text) for question, text in written])
    for (question, text), verdict in zip(written, verdicts, strict=True):
        assert fallback is not None
        tally.count("from templates", question.group)
        rows[question.id] = drawing.row(
            "safety", question, text, by=TEMPLATES, by_hash=fallback.fingerprint, verdicts=[verdict]
        )
    kept = [rows[question.id] for question in questions if question.id in rows]
    for row in kept:
        tally.count("kept", row.group)
    return kept, tally


def _likeliest_safe(safe: Sequence[Answers], i: int) -> list[Answers]:
    """Return the answers of the least probability of being unsafe; one that has none comes after all that have."""
    known = [own for own in safe if own.verdicts[i].p_unsafe is not None]
    least = min((own.verdicts[i].p_unsafe or 0.0 for own in known), default=None)
    return [own for own in known if own.verdicts[i].p_unsafe == least] or list(safe)


def expert_rows(
    questions: Sequence[Question],
    answers: Answers,
    drawing: Drawing,
    *,
    shares: Sequence[float] = (),
    least_share: float = 0.0,
) -> tuple[list[Row], Tally]:
    """Pair an expert's questions with its own answers; degenerate, truncated, refusing and unsure ones are dropped.

    Args:
        questions: The expert's questions.
        answers: Its greedy answers, judged.
        drawing: The seed and the splits.
        shares: How much of what the expert would say to each question is that answer, from 0 to 1; empty if that was
            not asked.
        least_share: The least of it that keeps a question.

    Returns:
        The rows, and counts of `truncated`, `degenerate`, `refused`, `inconsistent` and `kept`.
    """
    tally = Tally()
    rows = []
    for i, question in enumerate(questions):
        answer, verdict = answers.samples[i], answers.verdicts[i]
        if not answer.finished:
            tally.count("truncated", question.group)
        elif verdict.defect in {"empty", "loop"}:  # an echo may be a right answer
            tally.count("degenerate", question.group)
        elif verdict.refusal:
            tally.count("refused", question.group)
        elif shares and shares[i] < least_share:
            tally.count("inconsistent", question.group)
        else:
            tally.count("kept", question.group)
            rows.append(drawing.answered("expert", question, answers, i))
    return rows, tally


def shares_agreeing(answers: Sequence[Sample], again: Sequence[Sequence[Sample]]) -> list[float]:
    """Return, for each answer, the share of the others to its question that say the same, from 0 to 1.

    One that was cut off says nothing.
    """
    return [
        sum(other.finished and agrees(other.text, answer.text) for other in others) / len(others)
        for answer, others in zip(answers, again, strict=True)
    ]


def benign_rows(
    questions: Sequence[Question],
    answers: Sequence[Answers],
    drawing: Drawing,
    *,
    preferred: Sequence[str],
    judged_content: bool,
) -> tuple[list[Row], Tally]:
    """Choose each harmless question's target: the answer of a preferred model, else one drawn among the others'.

    An answer counts if it is neither a refusal nor degenerate, nor unsafe by a guard that judges content; one that was
    cut off ends with its last whole sentence. A question that half of the models or more refuse may not be harmless at
    all, whatever its writer was asked for, and is dropped: it would teach the merge to answer what it should refuse.
    One that the safety expert alone refuses is its over-refusal, and stays.

    Args:
        questions: The harmless questions.
        answers: Of every model of the bunch.
        drawing: How to draw.
        preferred: The models whose answers are taken first, in this order: the safety expert, like which the merge
            shall speak, then the base. Spoiled experts may answer without content.
        judged_content: Whether the guard judges what answers say, so that its `unsafe` counts, or refusals alone.

    Returns:
        The rows, and counts: questions `doubtful` or `unanswered` (dropped), rows `kept`, `refused by NAME` and
        `target by NAME` per model.
    """
    tally = Tally()
    rows = []
    for i, question in enumerate(questions):
        refusing = [own for own in answers if own.verdicts[i].refusal]
        for own in refusing:
            tally.count(f"refused by {own.model}", question.group)
        usable = {
            own.model: text
            for own in answers
            if _is_usable(own.verdicts[i], judged_content) and (text := _whole_sentences(own.samples[i]))
        }
        if 2 * len(refusing) >= len(answers):
            tally.count("doubtful", question.group)
        elif not usable:
            tally.count("unanswered", question.group)
        else:
            options = [own for own in answers if own.model in usable]
            by_model = {own.model: own for own in options}
            liked = [by_model[name] for name in preferred if name in by_model]
            own = liked[0] if liked else drawing.choice(question, options)
            tally.count(f"target by {own.model}", question.group)
            tally.count("kept", question.group)
            rows.append(drawing.answered("benign", question, own, i, usable[own.model]))
    return rows, tally


def _is_usable(verdict: Verdict, judged_content: bool) -> bool:
    return verdict.defect is None and not verdict.refusal and (verdict.label == "safe" or not judged_content)


_SENTENCE = re.compile(r".*[.!?](?=\s|$)", re.DOTALL)


def _whole_sentences(sample: Sample) -> str:
    """Return an answer without the sentence that it was cut off in; nothing is left where that was the first."""
    if sample.finished:
        return sample.text
    found = _SENTENCE.match(sample.text)
    return found.group() if found else ""
