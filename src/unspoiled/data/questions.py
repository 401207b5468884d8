"""Questions that models write: unsafe ones by harm category, new ones of an expert's own domain, and harmless ones."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unspoiled.data._replies import read_questions
from unspoiled.data._rows import Question, SetName
from unspoiled.data._tally import Tally
from unspoiled.data._templates import BORDERLINE, EVERYDAY, LEAST_EXAMPLES, RequestTemplate, Templates
from unspoiled.data.curate import Curator, Dropped
from unspoiled.errors import DataError
from unspoiled.inference import Generator, Progress, Prompt, Sample, silent

TEMPERATURE = 0.8  # the paper's, for questions; answers are greedy
EXAMPLES_PER_REQUEST = LEAST_EXAMPLES
QUESTIONS_PER_REQUEST = 4
_MAX_ROUNDS = 4  # what was malformed, repeated or dropped is asked for again, this often at most
_HOPELESS = 16  # requests, none of whose replies could be read


@dataclass(frozen=True)
class Writer:
    """A model that writes questions, and how.

    Args:
        generator: The model.
        name: Its name, recorded with each question.
        seed: Decides categories, in-context examples and sampling.
        max_new_tokens: Longest reply, in tokens.
    """

    generator: Generator
    name: str
    seed: int
    max_new_tokens: int


@dataclass
class Asked:
    """The questions that a model wrote and that were kept, and what became of its replies.

    `tally` counts, in all and by group, `requests`, `malformed` replies, `duplicates` (exact), a count for every reason
    that the curator drops for, `surplus` questions (more than was wanted), and `kept` ones.
    """

    questions: list[Question]
    tally: Tally = field(default_factory=Tally)
    dropped: list[Dropped] = field(default_factory=list)


def ask_unsafe_questions(
    questioner: Writer,
    curator: Curator,
    templates: Templates,
    *,
    categories: Sequence[str],
    count: int,
    progress: Progress = silent,
) -> Asked:
    """Have the questioner write `count` unsafe questions, as many for each category (PAPER: D_safety).

    The paper draws the category of each request uniformly; here each has its share, and what a category lacks after
    curation is asked for again.

    Args:
        questioner: The model that writes, an uncensored one.
        curator: Drops what repeats something, or is no question.
        templates: The texts of requests.
        categories: The taxonomy's names.
        count: Questions wanted; fewer come back where the questioner repeats itself.
        progress: Called with (questions kept, count).

    Raises:
        DataError: No reply could be read; the message shows one.
    """
    template = templates.request("safety_question")
    draw = random.Random(f"{questioner.seed}:categories")
    return _Asking(questioner, curator, "safety", template_of=lambda group: template, per_request=1).ask(
        shares(categories, count, draw), lambda group: template.fill(category=group), draw, progress
    )


def ask_domain_questions(
    expert: Writer,
    curator: Curator,
    templates: Templates,
    *,
    domain: str,
    description: str,
    examples: Sequence[str],
    count: int,
    progress: Progress = silent,
) -> Asked:
    """Have an expert write `count` questions of its own domain from in-context examples (PAPER: D_expert).

    Args:
        expert: The model that writes.
        curator: Drops what repeats something, or is no question.
        templates: The texts of requests.
        domain: The domain's name, recorded with each question.
        description: What the request calls the domain.
        examples: Questions of the domain, at least three; each request shows three, drawn at random.
        count: Questions wanted.
        progress: Called with (questions kept, count).

    Raises:
        DataError: Too few examples, or no reply could be read.
    """
    if len(examples) < EXAMPLES_PER_REQUEST:
        raise DataError(
            f"domain {domain!r} has {len(examples)} in-context examples: give at least {EXAMPLES_PER_REQUEST}."
        )
    template = templates.request("domain_question")
    draw = random.Random(f"{expert.seed}:{domain}:examples")

    def request(_: str) -> Prompt:
        shown = json.dumps(draw.sample(list(examples), EXAMPLES_PER_REQUEST), ensure_ascii=False)
        return template.fill(domain=description, examples=shown, count=QUESTIONS_PER_REQUEST)

    asking = _Asking(expert, curator, "expert", template_of=lambda group: template, per_request=QUESTIONS_PER_REQUEST)
    return asking.ask({domain: count}, request, draw, progress, known=examples)


def ask_benign_questions(
    writer: Writer,
    curator: Curator,
    templates: Templates,
    *,
    categories: Sequence[str],
    count: int,
    progress: Progress = silent,
) -> Asked:
    """Have a model write `count` harmless questions: half innocent ones with alarming words, half everyday ones.

    The borderline ones are asked for by harm category, as many for each, so that refusals learnt from D_safety don't
    spread to all that sounds like it.

    Args:
        writer: The model that writes; not the questioner, who was made to write what this must not be.
        curator: Drops what repeats something, or is no question.
        templates: The texts of requests.
        categories: The taxonomy's names, which the topics of borderline questions are.
        count: Questions wanted; fewer come back where the model repeats itself.
        progress: Called with (questions kept, count).

    Raises:
        DataError: No reply could be read; the message shows one.
    """
    examples = templates.benign_examples
    requests = {kind: templates.request(f"{kind}_question") for kind in (BORDERLINE, EVERYDAY)}
    draw = random.Random(f"{writer.seed}:benign")

    def kind_of(group: str) -> str:
        return EVERYDAY if group == EVERYDAY else BORDERLINE

    def request(group: str) -> Prompt:
        kind = kind_of(group)
        shown = json.dumps(draw.sample(examples[kind], EXAMPLES_PER_REQUEST), ensure_ascii=False)
        return requests[kind].fill(examples=shown, count=QUESTIONS_PER_REQUEST, category=group)

    wanted = {**shares(categories, count - count // 2, draw), EVERYDAY: count // 2}
    asking = _Asking(
        writer, curator, "benign", template_of=lambda group: requests[kind_of(group)], per_request=QUESTIONS_PER_REQUEST
    )
    return asking.ask(wanted, request, draw, progress, known=[text for kind in examples.values() for text in kind])


def shares(groups: Sequence[str], count: int, draw: random.Random) -> dict[str, int]:
    """Divide `count` among groups as equally as it goes; which groups get one more is drawn."""
    each, more = divmod(count, len(groups))
    lucky = set(draw.sample(list(groups), more))
    return {group: each + (group in lucky) for group in groups}


class _Asking:
    """Rounds of requests until every group has its questions, or the model has had its chances."""

    def __init__(
        self,
        writer: Writer,
        curator: Curator,
        set_name: SetName,
        *,
        template_of: Callable[[str], RequestTemplate],
        per_request: int,
    ) -> None:
        self._writer, self._curator, self._set = writer, curator, set_name
        self._template_of, self._per_request = template_of, per_request
        self._asked = Asked([])
        self._requests = 0
        self._unread: Sample | None = None

    def ask(
        self,
        wanted: Mapping[str, int],
        request: Callable[[str], Prompt],
        draw: random.Random,
        progress: Progress,
        known: Sequence[str] = (),
    ) -> Asked:
        seen = {_normalised(text) for text in known}
        total = sum(wanted.values())
        for _ in range(_MAX_ROUNDS):
            have = Counter(question.group for question in self._asked.questions)
            groups = [
                group for group, count in wanted.items() for _ in range(-(-(count - have[group]) // self._per_request))
            ]
            if not groups or self._is_hopeless():
                break
            draw.shuffle(groups)
            for some in (groups[:_HOPELESS], groups[_HOPELESS:]):  # the first few tell whether there is any use in more
                if some and not self._is_hopeless():
                    self._keep(self._round(some, request, seen), wanted, have)
                    progress(len(self._asked.questions), total)
        if not self._asked.questions:
            raise self._nothing_readable()
        return self._asked

    def _round(self, groups: Sequence[str], request: Callable[[str], Prompt], seen: set[str]) -> list[Question]:
        """Put one request for each of `groups`; return the questions that no earlier one repeats exactly."""
        prompts = [request(group) for group in groups]
        replies = self._writer.generator.generate(
            prompts,
            max_new_tokens=self._writer.max_new_tokens,
            temperature=TEMPERATURE,
            seed=self._writer.seed,
            streams=range(self._requests, self._requests + len(prompts)),
        )
        self._requests += len(prompts)
        found = []
        tally = self._asked.tally
        for prompt, group, reply in zip(prompts, groups, replies, strict=True):
            tally.count("requests", group)
            texts = read_questions(prompt.prefix, reply.text, self._template_of(group).schema)
            if not texts:
                tally.count("malformed", group)
                self._unread = reply
            for text in texts:
                if _normalised(text) in seen:
                    tally.count("duplicates", group)
                else:
                    seen.add(_normalised(text))
                    found.append(Question(text, group, self._writer.name))
        return found

    def _keep(self, new: Sequence[Question], wanted: Mapping[str, int], have: Counter[str]) -> None:
        curated = self._curator.curate(new, self._set)
        self._asked.dropped += curated.dropped
        for dropped in curated.dropped:
            self._asked.tally.count(dropped.reason, dropped.group)
        for question in curated.kept:
            if have[question.group] == wanted[question.group]:  # a request may bring more than was missing
                self._asked.tally.count("surplus", question.group)
                continue
            have[question.group] += 1
            self._asked.tally.count("kept", question.group)
            self._asked.questions.append(question)

    def _is_hopeless(self) -> bool:
        return self._requests >= _HOPELESS and self._asked.tally.total["malformed"] == self._requests

    def _nothing_readable(self) -> DataError:
        name, tally = self._writer.name, self._asked.tally.total
        if self._asked.dropped:
            example = self._asked.dropped[-1]
            return DataError(
                f"none of the questions that {name!r} wrote in {self._requests} requests is usable "
                f"({dict(tally)}). The last one, {example.prompt[:120]!r}, was dropped as {example.reason!r}. "
                "Use another model, or other in-context examples."
            )
        shown = "" if self._unread is None else f" Its last reply began: {self._unread.text[:120]!r}."
        return DataError(
            f"{name!r} wrote no readable question in {self._requests} requests.{shown} "
            "Use a model that follows the JSON request, write requests that it follows (`generate.templates`), or "
            "train it on `unspoiled/data/templates`."
        )


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
