"""Shapley values by their axioms, and by the definition worked through every order of joining."""

import itertools
import math
import random
from collections.abc import Mapping

import pytest

from unspoiled.audit import shapley
from unspoiled.audit._shapley import Game, exact, sampled

PLAYERS = ["ann", "bob", "cat", "dan"]


def random_game(players: list[str], seed: int) -> Game:
    rng = random.Random(seed)
    values = {
        frozenset(members): {"safety": rng.gauss(0, 1), "benign": rng.gauss(0, 3)}
        for size in range(len(players) + 1)
        for members in itertools.combinations(players, size)
    }
    return lambda members: values[members]


def by_every_order(players: list[str], game: Game, term: str) -> dict[str, float]:
    """Return the mean over all orders of what each player adds: the definition, word for word."""
    added: dict[str, list[float]] = {player: [] for player in players}
    for order in itertools.permutations(players):
        for place, player in enumerate(order):
            before = game(frozenset(order[:place]))
            added[player].append(game(frozenset(order[: place + 1]))[term] - before[term])
    return {player: math.fsum(own) / len(own) for player, own in added.items()}


@pytest.mark.parametrize("term", ["safety", "benign"])
def test_it_is_the_mean_over_all_orders_of_joining(term: str) -> None:
    game = random_game(PLAYERS, 3)
    found = shapley(PLAYERS, game, orders=4)
    assert {player: own[term].value for player, own in found.items()} == pytest.approx(
        by_every_order(PLAYERS, game, term)
    )
    assert all(own[term].error is None for own in found.values()), "nothing was sampled"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_values_share_out_the_whole(count: int) -> None:
    players = [f"expert {i}" for i in range(count)]
    game = random_game(players, count)
    found = exact(players, game)
    for term in ("safety", "benign"):
        whole = game(frozenset(players))[term] - game(frozenset())[term]
        assert math.fsum(own[term].value for own in found.values()) == pytest.approx(whole)


def test_who_is_alike_gets_the_same_and_who_does_nothing_gets_nothing() -> None:
    def game(members: frozenset[str]) -> Mapping[str, float]:
        """Harm comes of any of the twins, once; `null` is never of any consequence."""
        return {"safety": 2.0 * ("twin" in members or "other twin" in members) + ("lone" in members)}

    found = exact(["twin", "lone", "other twin", "null"], game)
    assert {name: own["safety"].value for name, own in found.items()} == pytest.approx(
        {"twin": 1.0, "other twin": 1.0, "lone": 1.0, "null": 0.0}
    )


def test_sampled_values_share_out_the_whole_too_and_lie_within_their_errors() -> None:
    players = [f"expert {i}" for i in range(6)]
    game = random_game(players, 1)
    truth = by_every_order(players, game, "safety")
    found = sampled(players, game, orders=400, seed=5)
    whole = game(frozenset(players))["safety"] - game(frozenset())["safety"]
    assert math.fsum(own["safety"].value for own in found.values()) == pytest.approx(whole)
    for player, own in found.items():
        error = own["safety"].error
        assert error is not None
        assert 0.0 < error < 0.2
        assert abs(own["safety"].value - truth[player]) < 4 * error
    assert found == sampled(players, game, orders=400, seed=5), "a function of the seed"
    assert found != sampled(players, game, orders=400, seed=6)


def test_an_additive_game_has_no_sampling_error() -> None:
    worth = {f"expert {i}": float(i) for i in range(9)}
    found = shapley(list(worth), lambda members: {"safety": math.fsum(worth[m] for m in members)}, orders=4)
    assert {name: own["safety"].value for name, own in found.items()} == pytest.approx(worth)
    assert [own["safety"].error for own in found.values()] == pytest.approx([0.0] * 9)


def test_pairs_of_orders_cancel_what_depends_on_joining_early() -> None:
    """In the game |S|², an order and its reverse give every player the mean of both places: the exact value."""
    players = [f"expert {i}" for i in range(9)]
    found = sampled(players, lambda members: {"safety": float(len(members) ** 2)}, orders=4)
    assert [own["safety"].value for own in found.values()] == pytest.approx([9.0] * 9)


@pytest.mark.parametrize("orders", [2, 5])
def test_too_few_or_unpaired_orders_are_refused(orders: int) -> None:
    with pytest.raises(ValueError, match="orders is"):
        sampled(PLAYERS, random_game(PLAYERS, 0), orders=orders)
