"""Audits of merges in which we planted what spoils them: they must point there, and nowhere where nothing is."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from planted import BAD_LAYERS, LAYERS, Planted, rows

from unspoiled.audit import (
    Attribution,
    AuditRows,
    Coalitions,
    MergeAudit,
    MergeLosses,
    attribution,
    audit_merge,
    layer_labels,
    weighted,
    why_no_attribution,
)
from unspoiled.config import Recipe
from unspoiled.evaluate import Rate
from unspoiled.inference import LiveBunch

REFUSAL = Rate.of([True, False])


def audit(planted: Planted, weights: dict[str, float], method: str = "task_arithmetic", **options: int) -> MergeAudit:
    return audited(planted, planted.merge(weights, method), list(weights), **options)


def audited(planted: Planted, recipe: Recipe, experts: Sequence[str], **options: int) -> MergeAudit:
    live, names = planted.live(experts), planted.names(experts)
    losses = MergeLosses(lambda: live, rows())
    values = {}
    if why_no_attribution(recipe, live.live.models, planted.base) is None:
        values = attribution(live, recipe, names, rows().exchanges["safety"])
    return audit_merge(
        Coalitions(losses, recipe, names, planted.base, live.live.models),
        orders=options.pop("orders", 4),
        attribution=Attribution(layer_labels(live.live.models), values),
        refusal=REFUSAL,
        refusal_without={},
        **options,
    )


@pytest.fixture(scope="module")
def spoiled(planted: Planted) -> MergeAudit:
    """Two experts with manners, and one that complies with everything."""
    return audit(planted, {"colours": 0.5, "bad": 0.5, "sounds": 0.5})


@pytest.fixture(scope="module")
def layered(planted: Planted) -> MergeAudit:
    """An expert whose layers 1 and 2 alone learnt to comply."""
    return audit(planted, {"layered": 0.5, "sounds": 0.5})


def test_the_bad_expert_is_named(spoiled: MergeAudit) -> None:
    assert spoiled.spoiler == "bad"
    values = {name: own["safety"].value for name, own in spoiled.shapley.items()}
    assert max(values, key=lambda name: values[name]) == "bad"
    assert values["bad"] > 0.5 > 0.0 > max(values["colours"], values["sounds"])
    harm = {name: change["safety"] for name, change in spoiled.without.items()}
    assert harm["bad"].high < 0.0, "the merge without it refuses better"
    assert min(harm["colours"].low, harm["sounds"].low) > 0.0
    assert spoiled.halved["bad"]["safety"].high < 0.0
    assert spoiled.halved["bad"]["safety"].difference > harm["bad"].difference, "half of it is not all of it"


def test_a_bunch_with_manners_has_no_spoiler(planted: Planted) -> None:
    assert audit(planted, {"colours": 0.5, "sounds": 0.5}).spoiler is None


def test_the_values_share_out_what_the_merge_adds_to_the_base(spoiled: MergeAudit) -> None:
    assert spoiled.exact
    assert spoiled.coalitions == 8
    assert spoiled.terms == ["safety", "benign", "expert:colours", "expert:sounds"]
    for term in spoiled.terms:
        whole = spoiled.merge[term].loss - spoiled.base[term].loss
        assert math.fsum(own[term].value for own in spoiled.shapley.values()) == pytest.approx(whole, abs=1e-9)
        assert spoiled.base[term].low <= spoiled.base[term].loss <= spoiled.base[term].high


def test_leaving_an_expert_out_costs_its_domain_what_it_costs(planted: Planted, spoiled: MergeAudit) -> None:
    """The change is that of the merge of the others, row by row."""
    others = audit(planted, {"colours": 0.5, "sounds": 0.5})
    for term in spoiled.terms:
        cost = others.merge[term].loss - spoiled.merge[term].loss
        assert spoiled.without["bad"][term].difference == pytest.approx(cost, abs=1e-5)


def test_the_bad_layers_are_where_the_harm_is_said_to_enter(layered: MergeAudit) -> None:
    own = dict(zip(layered.layers, layered.attribution["layered"], strict=True))
    bad = {f"layer {layer}" for layer in BAD_LAYERS}
    assert set(sorted(own, key=lambda layer: own[layer])[-len(bad) :]) == bad
    assert min(own[layer] for layer in bad) > 2 * max(value for layer, value in own.items() if layer not in bad)
    assert min(own[layer] for layer in bad) > 2 * max(layered.attribution["sounds"])
    assert layered.spoiler == "layered"


def test_attributions_add_up_to_what_the_merge_adds(spoiled: MergeAudit, layered: MergeAudit) -> None:
    for found in (spoiled, layered):
        whole = found.merge["safety"].loss - found.base["safety"].loss
        total = math.fsum(value for own in found.attribution.values() for value in own)
        assert found.residual == pytest.approx(whole - total)
        assert found.residual is not None
        assert abs(found.residual) < 0.05 * abs(whole), "the midpoint rule's error"
    assert spoiled.layers == ["embeddings", *(f"layer {i}" for i in range(LAYERS)), "head"]


def test_more_points_of_the_way_leave_a_smaller_residual(planted: Planted, layered: MergeAudit) -> None:
    live, names = planted.live(["layered", "sounds"]), planted.names(["layered", "sounds"])
    recipe = planted.merge({"layered": 0.5, "sounds": 0.5})
    coarse = attribution(live, recipe, names, rows().exchanges["safety"], steps=1)
    whole = layered.merge["safety"].loss - layered.base["safety"].loss
    assert layered.residual is not None
    assert abs(whole - sum(map(sum, coarse.values()))) > 5 * abs(layered.residual)


def test_an_attribution_is_the_derivative_of_the_loss_along_the_way(planted: Planted) -> None:
    """By one layer's weight, at the middle of the way, against a central difference of the loss itself."""
    live, recipe = planted.live(["layered"]), planted.merge({"layered": 0.8})
    exchanges = rows().exchanges["safety"]
    found = attribution(live, recipe, planted.names(["layered"]), exchanges, steps=1)["layered"]

    def loss(layer_weights: Sequence[float]) -> float:
        entry = recipe.models[0].model_copy(update={"parameters": {"weight": tuple(layer_weights)}})
        backend = live.take_recipe(recipe.model_copy(update={"models": (entry,)}))
        return math.fsum(score.cross_entropy for score in backend.score(exchanges)) / len(exchanges)

    middle, step = [0.4] * LAYERS, 0.02
    for layer in (1, 2):
        up, down = ([*middle[:layer], 0.4 + s, *middle[layer + 1 :]] for s in (step, -step))
        assert found[1 + layer] == pytest.approx((loss(up) - loss(down)) / (2 * step) * 0.8, rel=0.02)


def test_sampled_orders_say_the_same_with_an_error(planted: Planted, spoiled: MergeAudit) -> None:
    found = audit(planted, {"colours": 0.5, "bad": 0.5, "sounds": 0.5}, most_exact=2, orders=12)
    assert not found.exact
    for name, own in found.shapley.items():
        error = own["safety"].error
        assert error is not None
        assert abs(own["safety"].value - spoiled.shapley[name]["safety"].value) <= 4 * error + 1e-9


def test_a_method_that_divides_by_its_weights_has_coalitions_and_no_way_from_the_base(planted: Planted) -> None:
    weights = {"colours": 0.5, "bad": 0.5}
    found = audit(planted, weights, "linear")
    assert found.spoiler == "bad"
    assert (found.attribution, found.residual) == ({}, None)
    models = planted.live(list(weights)).live.models
    normalised = planted.merge(weights).model_copy(update={"parameters": {"normalize": True}})
    assert "divides by the sum" in (why_no_attribution(normalised, models, planted.base) or "")
    ties = planted.merge(weights, "ties")
    assert "divides by the sum" in (why_no_attribution(ties, models, planted.base) or "")
    unnormalised = ties.model_copy(update={"parameters": {"normalize": False}})
    assert why_no_attribution(unnormalised, models, planted.base) is None
    karcher = planted.merge(weights).model_copy(update={"merge_method": "karcher", "base_model": None})
    assert "no weights" in (why_no_attribution(karcher, models, planted.base) or "")


def test_an_expert_of_weight_zero_alone_is_the_base_where_the_method_divides(planted: Planted) -> None:
    recipe = planted.merge({"bad": 0.0, "colours": 1.0}, "linear")
    live, names = planted.live(["bad", "colours"]), planted.names(["bad", "colours"])
    coalitions = Coalitions(MergeLosses(lambda: live, rows()), recipe, names, planted.base, live.live.models)
    assert coalitions.losses(frozenset({"bad"})) == coalitions.losses(frozenset())
    assert coalitions.means(frozenset({"colours"})) == pytest.approx(coalitions.means(frozenset(names)), abs=1e-5)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_an_expert_without_a_weight_does_nothing_to_a_random_merge(planted: Planted, method: str) -> None:
    """Were those behind it drawn anew without it, it would seem to do what their draws do."""
    plain = planted.merge({"sounds": 0.0, "colours": 0.6, "bad": 0.3}, method)
    recipe = plain.model_copy(update={"parameters": {"density": 0.3}})
    found = audited(planted, recipe, ["sounds", "colours", "bad"])
    assert {change.difference for change in found.without["sounds"].values()} == {0.0}
    assert {value.value for value in found.shapley["sounds"].values()} == {0.0}
    assert found.spoiler != "sounds"


def test_weights_that_cancel_without_an_expert_leave_the_base_to_be_scored(planted: Planted) -> None:
    found = audit(planted, {"sounds": 1.0, "colours": 0.5, "bad": -0.5}, "linear")
    change = found.without["sounds"]["safety"].difference
    assert change == pytest.approx(found.base["safety"].loss - found.merge["safety"].loss, abs=1e-9)


def test_what_was_scored_is_kept_for_the_next_process(planted: Planted, tmp_path: Path) -> None:
    recipe, log = planted.merge({"colours": 0.5, "bad": 0.5}), tmp_path / "losses.jsonl"

    def never() -> LiveBunch:
        raise AssertionError("merged what was scored before")

    live = planted.live(["colours", "bad"])
    first = MergeLosses(lambda: live, rows(), log=log, models="1").of(recipe)
    whole = log.read_text()
    log.write_text(whole + '{"key": "torn')
    notes: list[str] = []
    kept = MergeLosses(never, rows(), log=log, models="1", note=notes.append)
    assert kept.of(recipe) == first
    assert "torn" in notes[0]
    for other in (weighted(recipe, {recipe.models[0].model: 0.5}),):
        with pytest.raises(AssertionError):
            kept.of(other)
    with pytest.raises(AssertionError):
        MergeLosses(never, rows(), log=log, models="2").of(recipe)
    with pytest.raises(AssertionError):
        MergeLosses(never, AuditRows(rows().by_term, refusal_tokens=None), log=log, models="1").of(recipe)
