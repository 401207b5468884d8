"""Methods that decide entry by entry which experts count: PEFT's TIES, Consensus, PCB."""

import pytest
import torch
from cut_blocks import merged_by_rows, merged_whole, random_models
from peft.utils.merge_utils import ties as peft_ties
from torch import Tensor

ZERO = torch.zeros(2, 2)
FIRST = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
SECOND = torch.tensor([[2.0, 1.0], [-1.0, 0.0]])
THIRD = torch.tensor([[-4.0, 0.5], [-1.0, 2.0]])
ALL = [FIRST, SECOND, THIRD]

DEFAULTS = {
    "ties_peft": lambda n: {"weight": [1.0] * n, "density": [0.5] * n, "frequency": False},
    "consensus": lambda n: {"weight": [1.0] * n, "mask_lambda": [0.4] * n, "k": 2, "lambda_": 1.0},
    "pcb": lambda n: {"weight": [1.0] * n, "density": 0.3, "lambda_": 1.0},
}


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        # sums -1, -0.5, 1, 2: the third expert alone, the first alone, the first alone, the third alone
        (False, [[-4.0, -2.0], [3.0, 2.0]]),
        # two of three are positive, positive, negative; the mean of those
        (True, [[1.5, 0.75], [-1.0, 2.0]]),
    ],
)
def test_peft_election_by_hand(frequency: bool, expected: list[list[float]]) -> None:
    result = merged_whole("ties_peft", ZERO, ALL, weight=[1.0] * 3, density=[1.0] * 3, frequency=frequency)
    assert torch.equal(result, torch.tensor(expected))


def test_peft_weights_do_not_vote_and_do_not_divide() -> None:
    """With weight 3 the second expert would outvote the third; here it just counts threefold where it agrees."""
    result = merged_whole("ties_peft", ZERO, ALL, weight=[1.0, 3.0, 0.5], density=[1.0] * 3, frequency=True)
    assert torch.equal(result, torch.tensor([[(1 + 6) / 2, (3 + 0.25) / 2], [(-3 - 0.5) / 2, 1.0]]))


@pytest.mark.parametrize("frequency", [False, True])
@pytest.mark.parametrize("density", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [0.3, 2.0, -0.7]])
def test_peft_itself_is_the_oracle(frequency: bool, density: float, weight: list[float]) -> None:
    base, tensors = random_models(3, 23, 17)
    deltas = [tensor - base for tensor in tensors]
    wanted = peft_ties(deltas, torch.tensor(weight), density, "frequency" if frequency else "total")
    result = merged_whole("ties_peft", base, tensors, weight=weight, density=[density] * 3, frequency=frequency)
    torch.testing.assert_close(result, base + wanted, rtol=1e-6, atol=1e-6)


def test_consensus_by_hand() -> None:
    """The sum is [[-1, -0.5], [1, 2]].

    Its distances from the experts, [[2, 1.5], [2, 2]], [[3, 1.5], [2, 2]], [[3, 1], [2, 0]], are compared with the
    experts' own magnitudes. At λᵢ = 0.7 those of the experts that use an entry are
    [[no, yes], [yes, no]], [[no, no], [no, no]] and [[yes, no], [no, yes]].
    """
    once = merged_whole("consensus", ZERO, ALL, weight=[1.0] * 3, mask_lambda=[0.7] * 3, k=1, lambda_=1.0)
    assert torch.equal(once, torch.tensor([[-1.0, -0.5], [1.0, 2.0]]))
    twice = merged_whole("consensus", ZERO, ALL, weight=[1.0] * 3, mask_lambda=[0.7] * 3, k=2, lambda_=1.0)
    assert torch.equal(twice, ZERO)
    # at 0.5 the second expert's 1.0 reaches 0.5 · 1.5 and 0.5 · 2, its 2.0 reaches 0.5 · 3, and the third's 0.5
    # and 1.0 reach 0.5 · 1 and 0.5 · 2; of the lower right entry only the third expert has something
    looser = merged_whole("consensus", ZERO, ALL, weight=[1.0] * 3, mask_lambda=[0.5] * 3, k=2, lambda_=2.0)
    assert torch.equal(looser, torch.tensor([[-2.0, -1.0], [2.0, 0.0]]))


def test_consensus_without_a_threshold_is_task_arithmetic() -> None:
    base, tensors = random_models(3, 8, 5)
    result = merged_whole("consensus", base, tensors, weight=[0.5, 1.0, 2.0], mask_lambda=[0.4] * 3, k=0, lambda_=0.7)
    wanted = base + 0.7 * sum(w * (tensor - base) for w, tensor in zip([0.5, 1.0, 2.0], tensors, strict=True))
    torch.testing.assert_close(result, wanted)


def test_consensus_of_more_experts_than_there_are_is_the_base() -> None:
    base, tensors = random_models(3, 8, 5)
    result = merged_whole("consensus", base, tensors, weight=[1.0] * 3, mask_lambda=[0.4] * 3, k=4, lambda_=1.0)
    assert torch.equal(result, base)


def _pcb_reference(base: Tensor, tensors: list[Tensor], density: float, weight: list[float]) -> Tensor:
    """The paper's equations as they stand, in float64, with softmax and sort over the flattened tensor."""
    deltas = torch.stack([(tensor - base).double().flatten() for tensor in tensors])
    count, size = deltas.shape

    def norm(values: Tensor) -> Tensor:
        return (values - values.min()) / (values.max() - values.min())

    shares = []
    for one in deltas:
        intra = torch.softmax(count * norm(one * one), dim=0)
        inter = sum(torch.softmax(norm(one * other), dim=0) for other in deltas)
        score = intra * inter
        threshold = score.sort().values[size - int(density * size)]
        shares.append(norm(score * (score >= threshold)))
    share = torch.stack(shares)
    weighted = (share * deltas * torch.tensor(weight).double()[:, None]).sum(0)
    return base.double() + torch.where(share.sum(0) > 0, weighted / share.sum(0).clamp(min=1e-300), 0).view(base.shape)


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_pcb_is_the_papers_formula(density: float) -> None:
    base, tensors = random_models(3, 19, 20)
    weight = [1.0, 0.5, 1.5]
    result = merged_whole("pcb", base, tensors, weight=weight, density=density, lambda_=1.0)
    torch.testing.assert_close(result.double(), _pcb_reference(base, tensors, density, weight), rtol=1e-4, atol=1e-5)


def test_pcb_scales_with_the_task_vectors() -> None:
    """Scaling every task vector scales the merged one, for the shares are normalised."""
    base, tensors = random_models(3, 16, 16)
    scaled = [base + 4 * (tensor - base) for tensor in tensors]
    coefficients = DEFAULTS["pcb"](3)
    change = merged_whole("pcb", base, tensors, **coefficients) - base
    torch.testing.assert_close(
        merged_whole("pcb", base, scaled, **coefficients) - base, 4 * change, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_order_of_experts_does_not_matter(name: str) -> None:
    base, tensors = random_models(4, 12, 11)
    forward = merged_whole(name, base, tensors, **DEFAULTS[name](4))
    torch.testing.assert_close(merged_whole(name, base, tensors[::-1], **DEFAULTS[name](4)), forward)


@pytest.mark.parametrize("name", DEFAULTS)
def test_experts_that_changed_nothing_give_the_base(name: str) -> None:
    base, _ = random_models(0, 6, 7)
    assert torch.equal(merged_whole(name, base, [base.clone()] * 3, **DEFAULTS[name](3)), base)


@pytest.mark.parametrize("name", ["ties_peft", "pcb"])
def test_averages_of_equal_experts_are_the_expert(name: str) -> None:
    base, (tensor,) = random_models(1, 6, 7)
    coefficients = DEFAULTS[name](3) | {"density": 1.0 if name == "pcb" else [1.0] * 3}
    result = merged_whole(name, base, [tensor] * 3, **coefficients)
    if name == "pcb":  # the least of the scores has the share 0 in every expert
        assert torch.count_nonzero((result - tensor).abs() > 1e-5) == 1
    else:
        torch.testing.assert_close(result, tensor)


@pytest.mark.parametrize("name", DEFAULTS)
def test_how_the_tensor_is_cut_does_not_matter(name: str) -> None:
    base, tensors = random_models(3, 40, 30)
    whole = merged_whole(name, base, tensors, **DEFAULTS[name](3))
    for rows in (1, 7):
        cut = merged_by_rows(name, base, tensors, rows, **DEFAULTS[name](3))
        torch.testing.assert_close(cut, whole, rtol=1e-6, atol=1e-6)
