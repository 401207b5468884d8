"""Shapley values of a game: how much each player adds to the value, averaged over the orders of joining.

Source: L. S. Shapley, A Value for n-Person Games, Contributions to the Theory of Games II (1953) 307-317. Sampling by
orders: Castro, Gómez and Tejada, Computers & Operations Research 36 (2009) 1726-1730; each order is drawn with its
reverse, which has the same distribution and evens out who joins early (antithetic pairs, as in Mitchell et al., JMLR 23
(2022)).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from unspoiled.audit._record import ShapleyValue

Game = Callable[[frozenset[str]], Mapping[str, float]]
"""The value of a coalition of players, by term: several games of one set of players at once."""

MOST_EXACT = 8
"""Up to so many players every coalition is computed: 2⁸ = 256."""


def shapley(
    players: Sequence[str], game: Game, *, orders: int, seed: int = 0, most_exact: int = MOST_EXACT
) -> dict[str, dict[str, ShapleyValue]]:
    """Return each player's Shapley value by term: of all orders if the players are few, else of sampled ones.

    Args:
        players: At least one, each once.
        game: Gives every coalition the same terms; is asked for a coalition several times.
        orders: How many orders to sample where there are more than `most_exact` players: even, at least 4.
        seed: Of the sampling.
        most_exact: The most players of whom all coalitions are computed.
    """
    return exact(players, game) if len(players) <= most_exact else sampled(players, game, orders=orders, seed=seed)


def exact(players: Sequence[str], game: Game) -> dict[str, dict[str, ShapleyValue]]:
    """Return φᵢ = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ {i}) − v(S)), over all coalitions S."""
    found: dict[str, dict[str, ShapleyValue]] = {}
    for player in players:
        parts: dict[str, list[float]] = {}
        others = [other for other in players if other != player]
        for size in range(len(players)):
            share = float(Fraction(1, len(players) * math.comb(len(others), size)))
            for members in itertools.combinations(others, size):
                without, within = game(frozenset(members)), game(frozenset({*members, player}))
                for term in without:
                    parts.setdefault(term, []).append(share * (within[term] - without[term]))
        found[player] = {term: ShapleyValue(value=math.fsum(own), error=None) for term, own in parts.items()}
    return found


def sampled(players: Sequence[str], game: Game, *, orders: int, seed: int = 0) -> dict[str, dict[str, ShapleyValue]]:
    """Return the mean of what each player adds over sampled orders, with the standard error over pairs of them.

    Raises:
        ValueError: `orders` is odd, or below 4.
    """
    if orders < 4 or orders % 2:
        raise ValueError(f"orders is {orders!r}: orders come in pairs, and a standard error needs two; give 4 or more.")
    rng = random.Random(seed)
    means: dict[str, dict[str, list[float]]] = {player: {} for player in players}
    for _ in range(orders // 2):
        order = list(players)
        rng.shuffle(order)
        forth, back = _added(order, game), _added(order[::-1], game)
        for player in players:
            for term, value in forth[player].items():
                means[player].setdefault(term, []).append((value + back[player][term]) / 2)
    return {player: {term: _mean(values) for term, values in own.items()} for player, own in means.items()}


def _added(order: Sequence[str], game: Game) -> dict[str, dict[str, float]]:
    """Return what each player adds when they join in this order."""
    found = {}
    before = game(frozenset())
    for place, player in enumerate(order, start=1):
        now = game(frozenset(order[:place]))
        found[player] = {term: now[term] - before[term] for term in now}
        before = now
    return found


def _mean(values: Sequence[float]) -> ShapleyValue:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return ShapleyValue(value=mean, error=math.sqrt(variance / len(values)))
