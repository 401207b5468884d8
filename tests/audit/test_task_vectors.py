"""Task vectors by the tensors themselves; adapters and full checkpoints alike; a planted outlier."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import Bunch, tiny_base, tiny_expert
from unspoiled.audit import TaskVectors, task_vectors
from unspoiled.audit._layers import Layers
from unspoiled.audit._task_vectors import outliers
from unspoiled.checkpoints import ModelRef, ModelSource, open_model
from unspoiled.errors import CheckpointError
from unspoiled.merging import materialize


def opened(path: Path | str) -> ModelSource:
    return open_model(ModelRef.parse(str(path)))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in load_file(path / "model.safetensors").items()}


@pytest.fixture(scope="module")
def four_layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    root = tmp_path_factory.mktemp("four_layers")
    base = tiny_base(root / "base", layers=4, tie=False)
    experts = {name: tiny_expert(base, root / name, seed) for seed, name in enumerate(["safe", "skilled"], start=1)}
    return base, experts


@pytest.fixture(scope="module")
def found(four_layers: tuple[Path, dict[str, Path]]) -> TaskVectors:
    base, experts = four_layers
    return task_vectors(opened(base), {name: opened(path) for name, path in experts.items()}, "safe")


def test_norms_and_cosines_are_those_of_the_flattened_difference(
    four_layers: tuple[Path, dict[str, Path]], found: TaskVectors
) -> None:
    base, experts = four_layers
    start = weights(base)
    taus = {name: {k: t - start[k] for k, t in weights(path).items()} for name, path in experts.items()}
    whole = {name: torch.cat([tau[k].flatten() for k in sorted(tau)]) for name, tau in taus.items()}
    assert found.norms == pytest.approx({name: float(tau.norm()) for name, tau in whole.items()}, rel=1e-6)
    cosine = float(torch.cosine_similarity(whole["safe"], whole["skilled"], dim=0))
    assert found.cosines["skilled"]["safe"] == pytest.approx(cosine, abs=1e-7)
    assert found.cosines["safe"]["safe"] == pytest.approx(1.0)

    def part(tensors: dict[str, torch.Tensor], belongs: str) -> torch.Tensor:
        return torch.cat([tensor.flatten() for k, tensor in sorted(tensors.items()) if belongs in k])

    for label, belongs in (("layer 2", ".layers.2."), ("embeddings", "embed_tokens")):
        place = found.layers.index(label)
        ratio = float(part(taus["skilled"], belongs).norm() / part(start, belongs).norm())
        assert found.relative_norms["skilled"][place] == pytest.approx(ratio, rel=1e-6)
        angle = torch.cosine_similarity(part(taus["skilled"], belongs), part(taus["safe"], belongs), dim=0)
        assert found.safety_cosines["skilled"][place] == pytest.approx(float(angle), abs=1e-7)
    squares = [r**2 for r in found.relative_norms["skilled"]]
    assert len(squares) == 6, "embeddings, four layers, and the final norm with the head"
    head = {k: t for k, t in taus["skilled"].items() if k in ("lm_head.weight", "model.norm.weight")}
    below = {k: start[k] for k in head}
    assert found.relative_norms["skilled"][-1] == pytest.approx(
        math.sqrt(sum(float(t.square().sum()) for t in head.values()))
        / math.sqrt(sum(float(t.square().sum()) for t in below.values())),
        rel=1e-6,
    )


def test_an_adapter_and_its_full_checkpoint_have_the_same_task_vector(bunch: Bunch, tmp_path: Path) -> None:
    as_adapter = f"{bunch.base}+{bunch.aligned}"
    materialize(as_adapter, tmp_path / "full", dtype="float32")
    names = {"aligned": as_adapter, "written": str(tmp_path / "full"), "skilled": f"{bunch.base}+{bunch.skilled}"}
    found = task_vectors(opened(bunch.base), {name: opened(path) for name, path in names.items()}, "skilled")
    assert found.norms["aligned"] == pytest.approx(found.norms["written"], rel=1e-5)
    assert found.relative_norms["aligned"] == pytest.approx(found.relative_norms["written"], rel=1e-5, abs=1e-8)
    assert found.cosines["aligned"]["written"] == pytest.approx(1.0, abs=1e-6)
    assert found.cosines["aligned"]["skilled"] == pytest.approx(found.cosines["written"]["skilled"], abs=1e-6)
    assert found.safety_cosines["aligned"][0] is None, "no adapter changes the embeddings"
    assert found.relative_norms["aligned"][0] == 0.0
    expected = [value for value in found.safety_cosines["aligned"] if value is not None]
    assert [v for v in found.safety_cosines["written"] if v is not None] == pytest.approx(expected, abs=1e-6)


def test_an_expert_that_is_the_base_has_a_zero_task_vector(bunch: Bunch) -> None:
    found = task_vectors(opened(bunch.base), {"full": opened(bunch.full), "same": opened(bunch.base)}, "full")
    assert found.norms["same"] == 0.0
    assert found.cosines["same"] == {"full": 0.0, "same": 0.0}
    assert found.safety_cosines["same"] == [None] * len(found.layers)


def test_experts_that_all_are_the_base_have_zero_task_vectors(bunch: Bunch) -> None:
    found = task_vectors(opened(bunch.base), {"one": opened(bunch.base), "other": opened(bunch.base)}, "one")
    assert found.layers == task_vectors(opened(bunch.base), {"full": opened(bunch.full)}, "full").layers
    assert found.norms == {"one": 0.0, "other": 0.0}
    assert found.relative_norms["one"] == [0.0] * len(found.layers)
    assert found.cosines["one"] == {"one": 0.0, "other": 0.0}
    assert found.safety_cosines["one"] == [None] * len(found.layers)
    assert not found.outliers


def test_a_layer_that_moved_ten_times_as_far_is_an_outlier_and_nothing_else_is(
    four_layers: tuple[Path, dict[str, Path]], found: TaskVectors, tmp_path: Path
) -> None:
    assert not found.outliers, "noise alike in every layer"
    base, experts = four_layers
    start, tensors = load_file(base / "model.safetensors"), load_file(experts["skilled"] / "model.safetensors")
    for name in tensors:
        if ".layers.2." in name:
            tensors[name] = start[name] + 10 * (tensors[name] - start[name])
    (tmp_path / "far").mkdir()
    for path in experts["skilled"].iterdir():
        if path.suffix == ".json":
            (tmp_path / "far" / path.name).write_bytes(path.read_bytes())
    save_file(tensors, tmp_path / "far" / "model.safetensors", metadata={"format": "pt"})
    far = task_vectors(opened(base), {"far": opened(tmp_path / "far"), "safe": opened(experts["safe"])}, "safe")
    (outlier,) = far.outliers
    assert (outlier.expert, outlier.layer) == ("far", "layer 2")
    assert outlier.score > 3.5
    place = far.layers.index("layer 2")
    assert outlier.relative_norm == pytest.approx(far.relative_norms["far"][place])
    assert far.relative_norms["far"][place] == pytest.approx(10 * found.relative_norms["skilled"][place], rel=1e-3)


def test_an_outliers_score_by_hand() -> None:
    """Logarithms 0, 1, 2, 3 and 10: median 2, MAD 1: the last is (10 − 2) / 1.4826 off, the first −2 / 1.4826."""
    labels = [*(f"layer {i}" for i in range(5)), "head"]
    (found,) = outliers({"a": [math.exp(x) for x in (0.0, 1.0, 2.0, 3.0, 10.0, 100.0)]}, labels)
    assert (found.layer, found.score) == ("layer 4", pytest.approx(8 / 1.4826))
    assert found.relative_norm == pytest.approx(math.exp(10.0))


def test_a_layer_that_hardly_moved_is_an_outlier_of_negative_score() -> None:
    labels = [f"layer {i}" for i in range(6)]
    (found,) = outliers({"a": [0.1] * 5 + [0.01]}, labels)
    assert (found.layer, found.score) == ("layer 5", pytest.approx(math.log(0.1) / 0.05))


def test_equal_layers_and_few_layers_have_no_outliers() -> None:
    labels = [f"layer {i}" for i in range(6)]
    equal = [0.1, 0.1 * (1 + 1e-6), 0.1, 0.1, 0.1, 0.118]
    assert not outliers({"a": equal, "two": [0.1, 5.0, 0.0, 0.0, 0.0, 0.0]}, labels)
    assert [one.layer for one in outliers({"a": [*equal[:5], 0.13]}, labels)] == ["layer 5"]


def test_a_damaged_expert_is_named(four_layers: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, experts = four_layers
    tensors = load_file(experts["skilled"] / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    (tmp_path / "damaged").mkdir()
    for path in experts["skilled"].iterdir():
        if path.suffix == ".json":
            (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes())
    save_file(tensors, tmp_path / "damaged" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"damaged.*layers\.1\.mlp|layers\.1\.mlp.*damaged"):
        task_vectors(opened(base), {"damaged": opened(tmp_path / "damaged")}, "damaged")


def test_the_parts_of_a_model_of_several_stacks() -> None:
    names = [
        "visual.blocks.0.attn.q.weight",
        "visual.embeddings.position.weight",
        "lm_head.weight",
        "model.norm.weight",
    ]
    names += [f"model.layers.{i}.mlp.up_proj.weight" for i in (10, 2, 0)]
    layers = Layers(names)
    assert layers.labels == ["embeddings", "layer 0", "layer 2", "layer 10", "visual.blocks 0", "head"]
    assert layers.of("model.layers.10.mlp.up_proj.weight") == "layer 10"
    assert layers.of("visual.embeddings.position.weight") == "embeddings"
    assert layers.of("model.norm.weight") == "head"
