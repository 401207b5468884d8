"""A guard that is a model: it is asked in its family's format, and its answers become verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from unspoiled.errors import CheckpointError, ConfigError
from unspoiled.files import hash_value
from unspoiled.guards._format import Answer, GuardFormat, Question
from unspoiled.guards._protocol import Reading, Verdict, verdict_of
from unspoiled.guards._shorten import shortened
from unspoiled.guards.refusal import RefusalRules, find_refusal
from unspoiled.inference import Completer, Completion, ContentTokenizer, Progress, silent

_AT_ONCE = 256  # questions between two reports of progress
_LEAST_ROOM = 128  # tokens that a context must leave for a prompt and a response


class ModelGuard:
    """A `Guard` around a model that continues tokens.

    A prompt and response that don't fit the model's context are cut in the middle, with a mark; the template never is.

    Args:
        form: The family's format.
        tokenizer: The model's transformers tokenizer.
        completer: The model.
        name: The family's and the model's name, as reports print them.
        weights: Gives the hash of the weights; called when the fingerprint is first asked for.
        context: The model's longest sequence, in tokens.
        threshold: The p_unsafe from which a response is unsafe, from 0 to 1; None for the label that the guard writes.
        advice: The family's category "specialised advice", if it has one.

    Raises:
        CheckpointError: The tokenizer isn't the family's, or the context is too short for the template.
        ConfigError: The threshold is out of range, or the family gives no probability.
    """

    def __init__(
        self,
        form: GuardFormat,
        tokenizer: Any,
        completer: Completer,
        *,
        name: str,
        weights: Callable[[], str],
        context: int,
        threshold: float | None,
        advice: str | None = None,
    ) -> None:
        self.name = name
        self.judges_content = True
        self.advice = advice
        self.template = form.fingerprint
        self.cut = 0
        """How many pairs so far didn't fit and were cut."""
        self._form, self._completer, self._tokenizer = form, completer, tokenizer
        self._weights = weights
        self._threshold = threshold
        self._contents = ContentTokenizer(tokenizer)
        self._require_threshold()
        self._require_tokenizer()
        self._words = tuple(self._spellings(word) for word in form.words or ())
        self._limit = context - form.most_tokens
        self._require_room(context)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of weights, tokenizer, the template with its categories, the threshold, and the rules by which a
        response declines; not of where the weights lie, nor of the arithmetic.
        """
        return hash_value([self._weights(), self.template, self._threshold, RefusalRules.fingerprint])

    def judge(self, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent) -> list[Verdict]:
        """Return one verdict per (prompt, response), in order; equal pairs are asked about once."""
        unique = list(dict.fromkeys(pairs))
        answers = self._ask(unique, lambda done: progress(done * len(pairs) // len(unique), len(pairs)))
        verdicts = {pair: self._verdict(pair, self._form.read(found, self._threshold)) for pair, found in answers}
        return [verdicts[pair] for pair in pairs]

    def prompt_ids(self, question: Question, prompt: str, response: str) -> list[int]:
        """Return the token ids of one question about a pair, whatever its length."""
        skeleton, names = question.skeleton()
        contents = {"prompt": self._form.content(prompt), "response": self._form.content(response)}
        ids = self._contents.filled_ids(skeleton, [contents[name] for name in names])
        return [self._tokenizer.bos_token_id, *ids] if self._form.begins else ids

    def _ask(
        self, pairs: Sequence[tuple[str, str]], done: Callable[[int], None]
    ) -> Iterable[tuple[tuple[str, str], list[Answer]]]:
        questions = self._form.questions
        asked = [ids for pair in pairs for ids in self._asked(pair)]
        order = sorted(range(len(asked)), key=lambda i: len(asked[i]))  # neighbours of one length need no padding
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            watch = [token for spellings in self._words for token in spellings]
            written = self._completer.complete(
                [asked[row] for row in rows], max_new_tokens=self._form.most_tokens, watch=watch
            )
            answers.update(zip(rows, map(self._answer, written), strict=True))
            done(len(answers) // len(questions))
        for number, pair in enumerate(pairs):
            first = number * len(questions)
            yield pair, [answers[row] for row in range(first, first + len(questions))]

    def _asked(self, pair: tuple[str, str]) -> list[list[int]]:
        """Return the ids of every question about a pair, cut alike if one of them doesn't fit."""
        ids = [self.prompt_ids(question, *pair) for question in self._form.questions]
        if max(map(len, ids)) <= self._limit:
            return ids
        self.cut += 1
        longest = max(self._form.questions, key=lambda question: len(self.prompt_ids(question, "", "")))
        prompt, response = shortened(
            *pair, limit=self._limit, size=lambda *contents: len(self.prompt_ids(longest, *contents))
        )
        return [self.prompt_ids(question, prompt, response) for question in self._form.questions]

    def _answer(self, written: Completion) -> Answer:
        tokens = written.tokens[:-1] if written.finished else written.tokens
        text = self._decode(tokens)
        if not self._words or not text.strip():
            return Answer(text)
        begun = next(place for place in range(len(tokens)) if self._decode(tokens[: place + 1]).strip())
        probabilities = [math.exp(value) for value in written.watched[begun]]
        unsafe = len(self._words[0])
        return Answer(text, (min(1.0, sum(probabilities[:unsafe])), min(1.0, sum(probabilities[unsafe:]))))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _verdict(self, pair: tuple[str, str], reading: Reading) -> Verdict:
        declined = find_refusal(pair[1]) is not None
        return verdict_of(*pair, reading, guard=self.name, template=self.template, declined=declined)

    def _spellings(self, word: str) -> tuple[int, ...]:
        """Return the tokens that are a word alone, in any case, with a space before it or without."""
        cases = dict.fromkeys([word, word.lower(), word.capitalize(), word.upper()])
        ids = [self._contents.plain_ids(space + case) for case in cases for space in ("", " ")]
        single = tuple(dict.fromkeys(found[0] for found in ids if len(found) == 1))
        if not single:
            raise CheckpointError(
                f"guard {self.name!r}: the tokenizer writes {word!r} as several tokens, so that its probability can't "
                "be read from the first. Check that the model is one of this family."
            )
        return single

    def _require_threshold(self) -> None:
        if self._threshold is None:
            return
        if not 0.0 <= self._threshold <= 1.0:
            raise ConfigError(f"guard {self.name!r}: threshold {self._threshold!r} is not between 0 and 1.")
        if self._form.words is None:
            raise ConfigError(
                f"guard {self.name!r} gives no probability for the threshold {self._threshold!r}: leave it out."
            )

    def _require_tokenizer(self) -> None:
        for token in self._form.control:
            if len(self._contents.template_ids(token)) != 1:
                raise CheckpointError(
                    f"guard {self.name!r}: the tokenizer of {self._tokenizer.name_or_path!r} has no control token "
                    f"{token!r}, which the family's template writes. Check that the model is one of this family."
                )
        if self._form.begins and self._tokenizer.bos_token_id is None:
            raise CheckpointError(
                f"guard {self.name!r}: the tokenizer of {self._tokenizer.name_or_path!r} has no beginning-of-text "
                "token, which the family's prompts start with. Check that the model is one of this family."
            )

    def _require_room(self, context: int) -> None:
        template = max(len(self.prompt_ids(question, "", "")) for question in self._form.questions)
        if self._limit - template < _LEAST_ROOM:
            raise CheckpointError(
                f"guard {self.name!r}: a context of {context} tokens has no room beside the template's {template}. "
                "Check that the model is one of this family."
            )
