"""The loss of many architectures against plain transformers, one sequence at a time."""

from typing import Any

import pytest
import torch
from loss_models import MODELS, PACKED, PADDED, ROWS, WINDOW, WINDOWED, made, scored_alone

from unspoiled.inference import _loss as loss_module
from unspoiled.inference._batch import make_batch
from unspoiled.inference._loss import ResponseLoss
from unspoiled.inference._packed import ATTENTION


def packed_rows(loss: ResponseLoss) -> set[int]:
    return {row for packed, rows in loss._plan(ROWS) for row in rows if packed}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens_per_batch", [60, 100_000])
def test_scores_are_those_of_each_sequence_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, tokens_per_batch: int
) -> None:
    """In one batch and in several; prompts and beginnings shared or not; rows in either order."""
    monkeypatch.setattr(loss_module, "_TOKENS_PER_BATCH", tokens_per_batch)
    model = made(name)
    expected = scored_alone(model)
    loss = ResponseLoss(model)
    scores = loss.log_likelihoods(ROWS)
    assert scores == pytest.approx(expected, rel=1e-5)
    assert loss.log_likelihoods(ROWS) == scores, "two runs give the same bits"
    assert loss.log_likelihoods(ROWS[::-1])[::-1] == pytest.approx(scores, rel=1e-5)
    assert [loss.log_likelihoods([row])[0] for row in ROWS] == pytest.approx(expected, rel=1e-5)
    assert scores[5] == pytest.approx(scores[8], rel=1e-6), "duplicates"
    assert scored_alone(model) == pytest.approx(expected, rel=1e-6), "the model computes what it did"


@pytest.mark.parametrize("name", PACKED)
def test_what_can_be_packed_is(name: str) -> None:
    loss = ResponseLoss(made(name))
    whole = {row for row, (prompt, response) in enumerate(ROWS) if len(prompt + response) - 1 <= loss._batch_limit}
    assert packed_rows(loss) == whole
    assert loss._head is not None
    assert len(whole) == len(ROWS) or name == "phi3 with long positions"


@pytest.mark.parametrize("name", WINDOWED)
def test_rows_longer_than_a_window_are_padded(name: str) -> None:
    short = {row for row, (prompt, response) in enumerate(ROWS) if len(prompt + response) - 1 <= WINDOW}
    assert packed_rows(ResponseLoss(made(name))) == short
    assert 0 < len(short) < len(ROWS), "the test's premise"


@pytest.mark.parametrize("name", PADDED)
def test_what_can_not_be_packed_is_padded(name: str) -> None:
    """And is left with the attention that it had; its logits come in chunks all the same.

    Not OPT's: it calls what is inside its body, so that the head alone can't be had.
    """
    model = made(name)
    before = model.config._attn_implementation
    loss = ResponseLoss(model)
    assert packed_rows(loss) == set()
    assert (loss._head is None) == name.startswith("opt")
    assert model.config._attn_implementation == before


def test_a_layer_that_looks_across_sequences_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture nobody foresaw: each token gets some of the one before it in the row."""
    model = made("llama")
    layer = model.model.layers[1].mlp
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda states: forward(states + 0.1 * states.roll(1, dims=1)))
    expected = scored_alone(model)
    loss = ResponseLoss(model)
    assert loss.log_likelihoods(ROWS[:2]) != pytest.approx(expected[:2]), (
        "padding looks round the end; packing would too"
    )
    assert packed_rows(loss) == set()


def test_a_head_that_can_not_be_called_alone_gets_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that depend on more than the last states: still right, though not in chunks."""
    model = made("llama")
    forward = model.forward

    def shifted(input_ids: Any, **kwargs: Any) -> Any:
        output = forward(input_ids=input_ids, **kwargs)
        output.logits = output.logits + torch.linspace(0, 3, output.logits.shape[-1])
        return output

    monkeypatch.setattr(model, "forward", shifted)
    expected = scored_alone(model)
    loss = ResponseLoss(model)
    assert loss.log_likelihoods(ROWS) == pytest.approx(expected, rel=1e-5)
    assert loss._head is None
    assert packed_rows(loss) == set()


def test_broken_weights_settle_nothing() -> None:
    """A merge with NaN scores NaN; the next one is packed again."""
    model = made("llama")
    weight = model.model.norm.weight.data
    kept = weight.clone()
    loss = ResponseLoss(model)
    weight.fill_(float("nan"))
    assert torch.tensor(loss.log_likelihoods(ROWS)).isnan().all()
    weight.copy_(kept)
    assert loss.log_likelihoods(ROWS) == pytest.approx(scored_alone(model), rel=1e-5)
    assert packed_rows(loss) == set(range(len(ROWS)))


def test_generation_does_not_notice_the_attention_that_packs() -> None:
    model = made("mistral")
    ids = torch.tensor([ROWS[2][0], ROWS[2][0][::-1]])
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    before = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    ResponseLoss(model).log_likelihoods(ROWS)
    assert model.config._attn_implementation == ATTENTION
    assert torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_packs_too(dtype: torch.dtype) -> None:
    """Within the rounding of its own type: bfloat16 has 8 bits."""
    model = made("llama")
    expected = scored_alone(model)
    loss = ResponseLoss(model.to(dtype))
    assert loss.log_likelihoods(ROWS) == pytest.approx(expected, rel=0.05)
    assert packed_rows(loss) == set(range(len(ROWS)))


def test_the_account_of_tokens() -> None:
    """By hand: what is in the row of each pack, or rows times the longest with padding."""
    for name in ("llama", "mamba"):
        loss = ResponseLoss(made(name))
        plan = loss._plan(ROWS)
        assert loss.tokens(ROWS) == sum(
            make_batch(ROWS, rows, packed, torch.device("cpu")).ids.numel() for packed, rows in plan
        )
    loss = ResponseLoss(made("llama"))
    assert loss.tokens([((5, 6, 7, 8, 9), (1, 2)), ((5, 6, 7, 8, 9), (3, 2, 2)), ((5, 6, 7), (2,))]) == 5 + 1 + 2 + 3
    assert loss.tokens([]) == 0
