"""Methods that keep or restore safety: RESTA, SafeMERGE, MergeAlign, interpolation."""

import pytest
import torch
from cut_blocks import merged_by_rows, merged_whole, random_models
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging.methods.safemerge import alignment

BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
EXPERT = BASE + torch.tensor([[1.0, 0.0], [0.0, 2.0]])
ALIGNED = BASE + torch.tensor([[0.0, 4.0], [0.0, 0.0]])
UNALIGNED = BASE + torch.tensor([[0.0, 0.0], [-4.0, 0.0]])

PLAIN = {"gamma": 1.0, "seed": 0}


def resta(tensors: list[Tensor], safety: list[int], *, base: Tensor = BASE, **coefficients: object) -> Tensor:
    count = len(tensors)
    given = {"weight": [1.0] * count, "density": [1.0] * count, **PLAIN, **coefficients}
    return merged_whole("resta", base, tensors, safety=safety, **given)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (1.0, [[2.0, 6.0], [7.0, 6.0]]),  # expert + aligned − unaligned
        (0.5, [[2.0, 4.0], [5.0, 6.0]]),
        (0.0, [[2.0, 2.0], [3.0, 6.0]]),  # the expert
    ],
)
def test_resta_by_hand(gamma: float, expected: list[list[float]]) -> None:
    result = resta([EXPERT, ALIGNED, UNALIGNED], [0, 1, -1], gamma=gamma)
    assert torch.equal(result, torch.tensor(expected))


def test_the_base_of_resta_may_be_the_aligned_or_the_unaligned_model() -> None:
    """θ_expert + γ (aligned − unaligned) is one formula, whichever of the models the task vectors are taken from."""
    wanted = EXPERT + 0.5 * (ALIGNED - UNALIGNED)
    assert torch.equal(resta([EXPERT, UNALIGNED], [0, -1], base=ALIGNED, gamma=0.5), wanted)
    assert torch.equal(resta([ALIGNED, EXPERT], [1, 0], base=UNALIGNED, gamma=0.5), wanted)


def test_resta_drops_and_divides_the_experts_task_vector_alone() -> None:
    base, tensors = random_models(3, 100, 100)
    wanted_rest = 0.5 * (tensors[1] - tensors[2])
    result = resta(tensors, [0, 1, -1], base=base, gamma=0.5, density=[0.7, 0.1, 0.1])
    kept = (result - base - wanted_rest) / (tensors[0] - base)
    dropped = kept.abs() < 1e-2
    assert 0.27 < dropped.float().mean() < 0.33
    torch.testing.assert_close(kept[~dropped].median(), torch.tensor(1 / 0.7), rtol=1e-3, atol=0)


@pytest.mark.parametrize("safety", [[0, 0], [1, 1], [-1, -1]])
def test_resta_says_which_role_is_missing(safety: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"`safety: 1`.*`safety: -1`.*have the roles"):
        resta([EXPERT, ALIGNED], safety)


def test_resta_does_not_depend_on_how_the_tensor_is_cut() -> None:
    base, tensors = random_models(3, 30, 20)
    coefficients = {"weight": [1.0] * 3, "density": [0.5] * 3, "safety": [0, 1, -1], "gamma": 0.5, "seed": 3}
    whole = merged_whole("resta", base, tensors, **coefficients)
    assert torch.equal(merged_by_rows("resta", base, tensors, 7, **coefficients), whole)


def _cosine_reference(update: Tensor, direction: Tensor) -> float:
    """SafeLoRA's measure as it is written: the projection matrix, then the cosine of the flattened matrices."""
    update, direction = update.double(), direction.double()
    projected = direction @ direction.T / direction.norm() @ update
    return torch.nn.functional.cosine_similarity(projected.reshape(1, -1), update.reshape(1, -1)).item()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_alignment_is_safeloras_cosine(shape: tuple[int, int]) -> None:
    base, (update, direction) = random_models(2, *shape)
    assert alignment(update - base, direction - base) == pytest.approx(
        _cosine_reference(update - base, direction - base), abs=1e-6
    )


def test_alignment_at_its_ends() -> None:
    update, other = torch.zeros(3, 4), torch.zeros(3, 4)
    update[0], other[1] = 1.0, 2.0
    assert alignment(update, update) == pytest.approx(1.0)  # of rank one: the projection is exact
    assert alignment(update, other) == 0.0
    assert alignment(update, torch.zeros(3, 4)) == 0.0
    assert alignment(torch.zeros(3, 4), other) == 1.0  # nothing was changed, so nothing left the direction


def test_safemerge_mixes_the_layers_below_the_threshold_only() -> None:
    base, tensors = random_models(3, 8, 6)
    expert, safe, unaligned = tensors
    cosine = alignment(expert - base, base - unaligned)
    for tau, wanted in [(cosine - 0.01, expert), (cosine + 0.01, 0.75 * expert + 0.25 * safe)]:
        result = merged_whole("safemerge", base, tensors, safety=[0, 1, -1], tau=tau, alpha=0.75)
        torch.testing.assert_close(result, wanted)
    shuffled = [unaligned, expert, safe]
    again = merged_whole("safemerge", base, shuffled, safety=[-1, 0, 1], tau=cosine + 0.01, alpha=0.75)
    torch.testing.assert_close(again, 0.75 * expert + 0.25 * safe)


def test_safemerge_leaves_vectors_to_the_expert() -> None:
    base, tensors = random_models(3, 1, 6)
    result = merged_whole("safemerge", base, tensors, safety=[0, 1, -1], tau=1.0, alpha=0.5)
    torch.testing.assert_close(result, tensors[0])


@pytest.mark.parametrize("safety", [[0, 0, 1], [1, 1, -1], [0, 1, 1], [0, 0, -1]])
def test_safemerge_needs_one_model_of_each_role(safety: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"safemerge merges 1 .* \(`safety: -?[01]`\), and the recipe's models"):
        merged_whole("safemerge", BASE, [EXPERT, ALIGNED, UNALIGNED], safety=safety, tau=0.5, alpha=0.5)


def test_mergealign_by_hand() -> None:
    quarter = merged_whole("mergealign", BASE, [ALIGNED, EXPERT], safety=[1, 0], t=0.25)
    assert torch.equal(quarter, torch.tensor([[1.75, 3.0], [3.0, 5.5]]))  # 3/4 of the expert's, 1/4 of the aligned
    assert torch.equal(merged_whole("mergealign", BASE, [ALIGNED, EXPERT], safety=[1, 0], t=0.0), EXPERT)
    assert torch.equal(merged_whole("mergealign", BASE, [ALIGNED, EXPERT], safety=[1, 0], t=1.0), ALIGNED)


def test_mergealign_needs_to_know_which_model_is_aligned() -> None:
    with pytest.raises(ConfigError, match=r"mergealign merges 1 task expert \(`safety: 0`\)"):
        merged_whole("mergealign", BASE, [ALIGNED, EXPERT], safety=[0, 0], t=0.5)


def test_interpolation_by_hand() -> None:
    assert torch.equal(merged_whole("interpolation", BASE, [EXPERT], alpha=0.0), BASE)
    assert torch.equal(merged_whole("interpolation", BASE, [EXPERT], alpha=1.0), EXPERT)
    assert torch.equal(merged_whole("interpolation", BASE, [EXPERT], alpha=0.5), (BASE + EXPERT) / 2)
    assert torch.equal(merged_whole("interpolation", BASE, [EXPERT], alpha=1.5), torch.tensor([[2.5, 2.0], [3.0, 7.0]]))
