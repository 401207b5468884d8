"""Generators that write what a test tells them to, and remember what they were asked."""

from collections.abc import Callable, Sequence

from unspoiled.data import Question
from unspoiled.inference import OnSample, Prompt, Sample, ignored

Reply = Callable[[Prompt, int], str]


class Scripted:
    """Answers the i-th prompt of its life with `reply(prompt, i)`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked: list[Prompt] = []
        self.calls: list[tuple[int, float, int]] = []  # (prompts, temperature, seed) of each call
        self.streams: list[int] = []  # of all calls

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_sample: OnSample = ignored,
    ) -> list[Sample]:
        self.calls.append((len(prompts), temperature, seed))
        texts = [self._reply(prompt, len(self.asked) + i) for i, prompt in enumerate(prompts)]
        self.asked += prompts
        self.streams += range(len(prompts)) if streams is None else streams
        samples = [answer(text) for text in texts]
        for i, sample in enumerate(samples):
            on_sample(i, sample)
        return samples


def answer(text: str, *, finished: bool = True) -> Sample:
    return Sample(text, len(text.split()), finished)


def question(text: str, group: str = "Self-Harm", asked_by: str = "questioner") -> Question:
    return Question(text, group, asked_by)
