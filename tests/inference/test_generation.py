"""Writing to many prompts at once, against transformers' own `generate` one by one; rows that leave, join and wait."""

import inspect
from typing import Any

import pytest
import torch
from loss_models import MODELS, ROWS, made

from unspoiled.inference import _capacity as capacity_module
from unspoiled.inference import _generation as generation_module
from unspoiled.inference._capacity import BatchSize, Capacity
from unspoiled.inference._generation import Manner, TokenWriter

PROMPTS = [list(prompt) for prompt, _ in ROWS]
LONGEST = max(map(len, PROMPTS))
OFTEN, SELDOM = frozenset(range(3, 96, 4)), frozenset(range(3, 96, 12))  # tokens that end a row
LIMIT = 14
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seeds": range(100, 100 + len(PROMPTS)), "watch": [4, 5]}
ANGLES_OF_THE_BATCH = "phi3 with long positions"  # one long row changes what short ones beside it get


def alone(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=LIMIT,
        do_sample=False,
        eos_token_id=sorted(OFTEN),
        pad_token_id=0,
    )
    return list(output[0, len(prompt) :].tolist())


def written(model: Any, batch_size: BatchSize, **manner: Any) -> list[Any]:
    """Return what is written after each prompt."""
    found: dict[int, Any] = {}
    writer = TokenWriter(model, SELDOM if manner else OFTEN, batch_size=batch_size)
    for position, completion in writer.write(PROMPTS, Manner(LIMIT, **manner)):
        assert position not in found, "every prompt is finished once"
        found[position] = completion
    return [found[position] for position in range(len(PROMPTS))]


@pytest.mark.parametrize("name", sorted({*MODELS} - {ANGLES_OF_THE_BATCH}))
def test_greedy_is_transformers_own_one_by_one(name: str) -> None:
    """Whatever an architecture's cache is: columns, windows, states."""
    model = made(name)
    expected = [alone(model, prompt) for prompt in PROMPTS]
    assert [list(each.tokens) for each in written(model, 3)] == expected
    one_length = len({len(tokens) for tokens in expected}) == 1
    assert one_length == name.startswith("gemma3"), "the test's premise (gemma3 repeats one token with these weights)"


class Watched:
    """Notes the batches that a model is given: (rows, tokens read by each, columns of the mask)."""

    def __init__(self, model: Any) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.fails_at: dict[int, RuntimeError] = {}
        self.fits = 1  # rows that never fail
        self._forward = model.forward
        model.forward = self

    @property
    def __signature__(self) -> Any:
        return inspect.signature(self._forward)

    def __call__(self, **arguments: Any) -> Any:
        rows, tokens = arguments["input_ids"].shape
        mask = arguments.get("attention_mask")
        self.calls.append((rows, tokens, 0 if mask is None else mask.shape[1]))
        output = self._forward(**arguments)
        if rows > self.fits and len(self.calls) in self.fails_at:  # when all layers' caches have grown
            raise self.fails_at[len(self.calls)]
        return output


@pytest.fixture
def model() -> Any:
    return made("llama")


def test_places_of_rows_that_leave_are_taken(model: Any) -> None:
    """A batch that waits for its slowest row before the next begins takes more passes."""
    calls = Watched(model).calls
    lengths = [len(each.tokens) for each in written(model, 4, **SAMPLED)]
    by_length = sorted(range(len(PROMPTS)), key=lambda position: -len(PROMPTS[position]))
    one_after_another = sum(max(lengths[position] for position in by_length[i : i + 4]) for i in (0, 4, 8))
    assert len([rows for rows, tokens, _ in calls if tokens == 1]) < one_after_another
    assert max(rows for rows, _, _ in calls) == 4
    assert sum(rows for rows, _, _ in calls) == sum(lengths), "no pass writes to a row that is finished"


def test_columns_leave_with_the_rows_that_needed_them(model: Any) -> None:
    """Memory is that of the rows at work: after the long prompts, batches are no wider than short ones need."""
    watched = Watched(model)
    written(model, 3, **SAMPLED)
    last = watched.calls[-1]
    assert max(columns for _, _, columns in watched.calls) <= LONGEST + LIMIT
    assert last[2] <= min(map(len, PROMPTS)) + 20 + LIMIT < LONGEST


@pytest.mark.parametrize("tokens", [1, 60])
def test_long_prompts_are_read_few_at_a_time(model: Any, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    expected = written(model, 12, **SAMPLED)
    monkeypatch.setattr(generation_module, "_TOKENS_READ_AT_ONCE", tokens)
    calls = Watched(model).calls
    found = written(model, 12, **SAMPLED)
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert all(rows * read <= tokens for rows, read, _ in calls if rows > 1 and read > 1)
    assert max(rows for rows, _, _ in calls) > 6, "they are at work together all the same"


OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: tried 9 GB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
}


@pytest.mark.parametrize(("name", "device"), [("llama", "cuda"), ("llama", "cpu"), ("mistral with a window", "mps")])
def test_memory_that_runs_out_at_any_moment_changes_nothing(name: str, device: str) -> None:
    """Samples keep the random streams they had and the tokens that they have; none is lost, none given twice."""
    model = made(name)
    expected = written(model, 4, **SAMPLED)
    watched, error = Watched(model), OUT_OF_MEMORY[device]
    moment = 0
    while not moment or moment <= len(watched.calls):
        moment += 4
        watched.calls.clear()
        watched.fails_at = {moment: error, moment + 2: error}
        found = written(model, 4, **SAMPLED)
        assert [each.tokens for each in found] == [each.tokens for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(torch.tensor(one.watched), torch.tensor(other.watched), atol=1e-4)
    assert moment > 15, "the test's premise"


def test_memory_too_little_for_one_row_is_an_error(model: Any) -> None:
    watched = Watched(model)
    watched.fails_at = dict.fromkeys(range(100), torch.OutOfMemoryError("no room"))
    watched.fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        written(model, 4)


def test_other_errors_are_not_taken_for_want_of_memory(model: Any) -> None:
    watched = Watched(model)
    watched.fails_at = {1: RuntimeError("mat1 and mat2 shapes cannot be multiplied")}
    with pytest.raises(RuntimeError, match="shapes"):
        written(model, 4)


def test_a_prompt_without_tokens_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        next(TokenWriter(model, OFTEN, batch_size=2).write([[4], []], Manner(3)))


def test_what_a_row_costs_is_measured(model: Any) -> None:
    """By hand: keys and values of 2 heads of 8 float32 in each of 4 layers; the logits of 96 tokens."""
    row, token = capacity_module._cost(model)
    assert token == 2 * 4 * 2 * 8 * 4
    assert row == 96 * capacity_module._BYTES_PER_LOGIT
    row, token = capacity_module._cost(made("mamba"))
    assert token == 0, "a state is as large after many tokens as after few"
    assert row > 96 * capacity_module._BYTES_PER_LOGIT


def test_the_automatic_size_is_what_free_memory_holds(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More short rows than long ones; never more than are of use; less once memory has run out, for good."""
    row, token = capacity_module._cost(model)
    free = 10 * (row + 50 * token) / capacity_module._USED_SHARE
    monkeypatch.setattr(capacity_module, "_free_bytes", lambda device: free * 1.001)
    capacity = Capacity(model, "auto")
    capacity.measure()
    assert capacity.rows(50) == 10
    assert 4 <= capacity.rows(100) <= 5
    assert capacity.rows(10**9) == 1
    monkeypatch.setattr(capacity_module, "_free_bytes", lambda device: float("inf"))
    capacity.measure()
    assert capacity.rows(50) == capacity_module._MOST_ROWS["cpu"]
    assert capacity.shrink(8, 50)
    assert capacity.rows(50) == 4
    capacity.measure()
    assert capacity.rows(50) == 4
    assert not capacity.shrink(1, 50)


def test_the_automatic_size_is_kept_to(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three of the longest prompts at first, and for more of the short ones later."""
    expected = written(model, 12, **SAMPLED)
    row, token = capacity_module._cost(model)
    room = 3 * (row + (LONGEST + LIMIT) * token)
    monkeypatch.setattr(capacity_module, "_free_bytes", lambda device: room / capacity_module._USED_SHARE * 1.001)
    calls = Watched(model).calls
    assert [each.tokens for each in written(model, "auto", **SAMPLED)] == [each.tokens for each in expected]
    assert all(row * rows + token * rows * columns <= room * 1.001 for rows, _, columns in calls)
    assert max(rows for rows, _, _ in calls) > 3
