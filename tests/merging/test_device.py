"""Merging on a device: every method works where its operands are, and gives what it gives on the CPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import AWAY, PretendDevice
from recipes import merged, opened, recipe
from safetensors.torch import load_file
from torch import Tensor

from command import unspoiled
from tiny import Bunch
from unspoiled.checkpoints import LowRankDelta, ModelSource
from unspoiled.config import ModelEntry, Recipe, Tokenizer
from unspoiled.errors import ConfigError, ResourceError
from unspoiled.merging import (
    AdaptedTensor,
    Block,
    DenseDelta,
    MergePlan,
    Method,
    Operand,
    all_methods,
    get_method,
    merge_to_directory,
)
from unspoiled.merging._device import DeviceRows, full_float32, open_device

NAMES = [method.name for method in all_methods()]
ROWS, WIDTH, CUT = 24, 40, 10
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

REQUIRED = {"weight": 0.6, "t": 0.3, "density": 0.5}
"""Values of the parameters that have no default."""
CHOSEN: dict[str, list[dict[str, Any]]] = {
    "nuslerp": [
        {},
        {"nuslerp_flatten": False},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ],
    "model_stock": [{}, {"filter_wise": True}],
    "wudi": [{"steps": 5, "lr": 1e-3}],
    "regmean": [{}, {"alpha": 1.0}],
    "ties_peft": [{}, {"frequency": True}],
    "resta": [{"safety": [0, 1, -1]}],
    "safemerge": [{"safety": [0, 1, -1]}],
    "mergealign": [{"safety": [0, 1]}],
    "sce": [{"select_topk": 0.4}],
}
"""Values that take other paths through a method than its defaults, or that it can't do without."""
CASES = [(name, chosen) for name in NAMES for chosen in CHOSEN.get(name, [{}])]


@dataclass(frozen=True)
class Given:
    """One tensor of a merge on a device: a LoRA expert and full ones in bfloat16, in blocks of `CUT` rows."""

    method: Method
    device: torch.device
    name: str = "layers.0.mlp.up_proj.weight"

    @property
    def shape(self) -> tuple[int, ...]:
        return (ROWS, WIDTH)

    @property
    def experts(self) -> int:
        return self.method.experts[1] or 3

    def __iter__(self) -> Iterator[Block]:
        draws = torch.Generator().manual_seed(0)
        base = torch.randn(ROWS, WIDTH, generator=draws).bfloat16()
        lora = LowRankDelta(torch.randn(ROWS, 4, generator=draws), torch.randn(4, WIDTH, generator=draws), 0.02)
        full = [base + 0.1 * torch.randn(ROWS, WIDTH, generator=draws).bfloat16() for _ in range(self.experts - 1)]
        grams = [torch.randn(3 * WIDTH, WIDTH, generator=draws) for _ in range(self.experts)]
        scores = torch.rand(self.experts, 2, ROWS, WIDTH, generator=draws)
        base, lora = base.to(self.device), LowRankDelta(lora.b.to(self.device), lora.a.to(self.device), lora.scale)
        full = [expert.to(self.device) for expert in full]
        step = ROWS if self.method.whole else CUT
        for start in range(0, ROWS, step):
            rows = slice(start, start + step)
            part = LowRankDelta(lora.b[rows], lora.a, lora.scale)
            operands: list[Operand]
            if self.method.operands == "deltas" and self.method.base != "unused":
                operands = [part, *(DenseDelta(expert[rows], base[rows]) for expert in full)]
            else:
                operands = [AdaptedTensor(base[rows], part), *(expert[rows] for expert in full)]
            data = [partial(self._statistic, scores[i, :, rows], grams[i]) for i in range(self.experts)]
            anchor = None if self.method.base == "unused" else base[rows]
            yield Block(anchor, operands, start * WIDTH, data if self.method.statistics else ())

    @staticmethod
    def _statistic(scores: Tensor, gram: Tensor, kind: str) -> Tensor:
        return gram.T @ gram if kind == "input_gram" else scores[int(kind == "base_importance")]

    def coefficients(self, chosen: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for parameter in self.method.parameters:
            value = REQUIRED.get(parameter.name, parameter.default)
            found[parameter.argument] = [value] * self.experts if parameter.scope == "model" else value
        return found | chosen

    def merged(self, chosen: dict[str, Any]) -> Tensor:
        return torch.cat([rows for _, rows in self.method.merge_blocks(self, self.coefficients(chosen))])


class PretendRows(DeviceRows):
    """Reads onto the pretended device, which only one thread knows."""

    def ahead(self, make: Callable[[int, int], Block], ranges: Sequence[tuple[int, int]]) -> Iterator[Block]:
        return (make(start, stop) for start, stop in ranges)


def assert_as_on_the_cpu(name: str, chosen: dict[str, Any], device: torch.device) -> None:
    expected = Given(get_method(name), torch.device("cpu")).merged(chosen)
    found = Given(get_method(name), device).merged(chosen)
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "chosen"), CASES)
def test_methods_work_where_their_operands_are(name: str, chosen: dict[str, Any]) -> None:
    """A tensor made without a device, or a NumPy view, would fail on any GPU."""
    with PretendDevice():
        assert_as_on_the_cpu(name, chosen, AWAY)


@needs_cuda
@pytest.mark.parametrize(("name", "chosen"), CASES)
def test_methods_give_the_same_on_cuda(name: str, chosen: dict[str, Any]) -> None:
    with full_float32():
        assert_as_on_the_cpu(name, chosen, torch.device("cuda", 0))


def test_the_pretended_device_refuses_what_a_real_one_refuses() -> None:
    with PretendDevice():
        away = torch.ones(3, device=AWAY)
        with pytest.raises(RuntimeError, match="two devices"):
            away + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            away.numpy()


def sparse_recipe(bunch: Bunch, method: str = "dare_ties", **options: Any) -> Recipe:
    """Return a random merge of an adapter, whose task vector stays low-rank, and a full fine-tune."""
    weights = {f"{bunch.base}+{bunch.aligned}": 0.7, str(bunch.full): 0.4}
    return recipe(method, weights, bunch.base, parameters={"density": 0.6}, **options)


def recipes(bunch: Bunch) -> dict[str, Recipe]:
    average = {f"{bunch.base}+{bunch.aligned}": 0.7, str(bunch.full): 0.4}
    padded = Tokenizer(source="union", pad_to_multiple_of=64)
    return {
        "task vectors": sparse_recipe(bunch),
        "weights": recipe("linear", average),
        "another vocabulary": sparse_recipe(bunch, tokenizer=padded),
        "an adapted base": recipe("task_arithmetic", {str(bunch.full): 0.5}, f"{bunch.base}+{bunch.skilled}"),
    }


@pytest.mark.parametrize("kind", ["task vectors", "weights", "another vocabulary", "an adapted base"])
def test_all_that_is_read_goes_to_the_device(bunch: Bunch, kind: str) -> None:
    wanted = recipes(bunch)[kind]
    expected = merged(wanted)
    with PretendDevice():
        plan = MergePlan(wanted, opened(wanted), read=PretendRows(AWAY))
        for name, tensor in plan.tensors.items():
            found = tensor.merged()
            assert found.device.type == ("cpu" if tensor.copied else AWAY.type)
            torch.testing.assert_close(found.cpu(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.fixture
def prefetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge on the CPU as on an accelerator, in small blocks."""
    monkeypatch.setattr("unspoiled.merging.stream.rows_on", lambda _: DeviceRows(torch.device("cpu")))
    monkeypatch.setattr("unspoiled.merging.stream.free_memory", lambda _: 2**30)
    for block in ("_device.BLOCK", "_blocks.BLOCK", "_blocks._BLOCK"):
        monkeypatch.setattr(f"unspoiled.merging.{block}", 500)


@pytest.mark.parametrize("method", ["linear", "dare_ties", "ties", "slerp"])
@pytest.mark.parametrize("threads", [None, 3])
@pytest.mark.usefixtures("prefetching")
def test_reading_ahead_changes_nothing(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, threads: int | None
) -> None:
    """Blocks come whole and in their order, also where a tensor is read twice, or given up in the middle."""
    wanted = {
        "linear": recipe("linear", {str(bunch.base): 0.3, str(bunch.full): 0.4}, dtype="bfloat16"),
        "slerp": Recipe(
            merge_method="slerp",
            base_model=str(bunch.base),
            models=(ModelEntry(model=str(bunch.full)),),
            parameters={"t": 0.3},
        ),
    }.get(method) or sparse_recipe(bunch, method, dtype="bfloat16")
    merge_to_directory(wanted, opened(wanted), tmp_path / "ahead", device="cuda", threads=threads)
    monkeypatch.undo()
    monkeypatch.setattr("unspoiled.merging._blocks._BLOCK", 500)
    merge_to_directory(wanted, opened(wanted), tmp_path / "plain")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("ahead", "plain"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], values) for name, values in expected.items())


@dataclass(frozen=True)
class Stream:
    """A CUDA stream that notes what happens; there is an event for each recording."""

    name: str
    notes: list[str]

    def record_event(self) -> str:
        self.notes.append(f"{self.name} is recorded")
        return self.name

    def wait_event(self, event: str) -> None:
        self.notes.append(f"{self.name} waits for {event}")


def test_a_block_is_used_when_it_is_there_and_kept_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a merge on a GPU would read rows that are still on their way, or those of a later block in their place."""
    notes: list[str] = []
    copies, work = Stream("copies", notes), Stream("work", notes)
    kept: list[Tensor] = []
    base, rows, adapted = torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)
    lora = LowRankDelta(torch.ones(2, 1), torch.ones(1, 3), 1.0)
    block = Block(base, [DenseDelta(rows, base), lora, AdaptedTensor(adapted, lora), rows])
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "Stream", lambda _: copies)
        patched.setattr(torch.cuda, "stream", lambda stream: nullcontext(notes.append(f"{stream.name} is chosen")))
        patched.setattr(torch.cuda, "current_stream", lambda _: work)
        patched.setattr(Tensor, "record_stream", lambda tensor, stream: kept.append(tensor) if stream is work else None)
        reader = DeviceRows(torch.device("cuda", 0))
        (found,) = reader.ahead(lambda _start, _stop: block, [(0, 2)])
    assert found is block
    assert notes == ["copies is chosen", "copies is recorded", "work waits for copies"]
    assert {id(tensor) for tensor in kept} == {id(one) for one in (base, rows, adapted, lora.a, lora.b)}


@pytest.mark.usefixtures("prefetching")
def test_a_failure_while_reading_ahead_is_the_merges(bunch: Bunch, tmp_path: Path) -> None:
    wanted = sparse_recipe(bunch)
    models = opened(wanted)
    read = ModelSource.read_rows
    calls = iter(range(10_000))

    def fails_late(self: ModelSource, *arguments: Any, **options: Any) -> Tensor:
        if next(calls) == 60:
            raise OSError("the disk is gone")
        return read(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ModelSource, "read_rows", fails_late)
        with pytest.raises(OSError, match="the disk is gone"):
            merge_to_directory(wanted, models, tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("prefetching")
def test_a_block_that_the_device_has_no_room_for(bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspoiled.merging.stream.free_memory", lambda _: 2**14)
    wanted = sparse_recipe(bunch)
    with pytest.raises(ResourceError, match=r"takes .* MiB, more than the .* MiB free on cpu\. Choose another GPU, or"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out", device="cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "mps", ""])
def test_a_device_of_no_such_name(name: str) -> None:
    with pytest.raises(ConfigError, match="it must be cpu, cuda or cuda:N"):
        open_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_a_machine_without_cuda_says_what_to_do(bunch: Bunch, tmp_path: Path) -> None:
    wanted = tmp_path / "recipe.yaml"
    wanted.write_text(sparse_recipe(bunch).to_yaml(), encoding="utf-8")
    done = unspoiled("merge", wanted, tmp_path / "out", "--device", "cuda:1", "--quiet")
    assert done.code == ResourceError.exit_code
    assert "device is 'cuda:1'" in done.err
    assert "--device cpu" in done.err
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ResourceError, match="torch finds 2 CUDA"):
        open_device("cuda:2")


@pytest.mark.parametrize("before", [True, False])
def test_tf32_is_off_while_merging_and_left_as_it_was(before: bool) -> None:
    products = torch.backends.cuda.matmul
    own = products.allow_tf32
    try:
        products.allow_tf32 = before
        with full_float32():
            assert not products.allow_tf32
        assert products.allow_tf32 == before
    finally:
        products.allow_tf32 = own


@needs_cuda
@pytest.mark.parametrize("kind", ["task vectors", "weights", "another vocabulary", "an adapted base"])
def test_a_merge_on_cuda_writes_what_the_cpu_writes(
    bunch: Bunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Small blocks: a buffer that is given out again too early would show."""
    for block in ("_device.BLOCK", "_blocks.BLOCK", "_blocks._BLOCK"):
        monkeypatch.setattr(f"unspoiled.merging.{block}", 500)
    wanted = recipes(bunch)[kind]
    merge_to_directory(wanted, opened(wanted), tmp_path / "cpu")
    expected = load_file(tmp_path / "cpu" / "model.safetensors")
    for threads in (1, 3):
        out = tmp_path / f"cuda{threads}"
        merge_to_directory(wanted, opened(wanted), out, device="cuda", threads=threads)
        found = load_file(out / "model.safetensors")
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)
