"""The replay of measured times against many workers, by its laws."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from worker_simulation import (
    WORKERS,
    Scaling,
    TrialTime,
    scale_generations,
    scale_gradient,
    scale_population,
    stops_scaling,
)

EVEN = [TrialTime(merge=1.0, loss=9.0)]
UNEVEN = [TrialTime(merge=1.0, loss=loss) for loss in (2.0, 9.0, 30.0)]


def by_workers(table: list[Scaling]) -> dict[int, Scaling]:
    return {row.workers: row for row in table}


def test_a_generation_gains_nothing_from_more_workers_than_members() -> None:
    found = by_workers(scale_generations(EVEN, population=7, generations=3, seed=0))
    assert found[1].seconds == pytest.approx(3 * 7 * 10)
    assert found[4].seconds == pytest.approx(3 * 2 * 10)  # four, then three
    assert found[8].seconds == found[256].seconds == pytest.approx(3 * 10)
    assert found[8].busy == pytest.approx(7 / 8)
    assert stops_scaling(list(found.values())) == 8


@pytest.mark.parametrize("times", [EVEN, UNEVEN])
def test_no_search_is_sped_up_beyond_its_workers(times: list[TrialTime]) -> None:
    tables = [
        scale_generations(times, population=19, generations=5, seed=1),
        scale_gradient(times, rows=24, least_rows=3, steps=20, told=0.1, seed=1),
    ]
    for row in (row for table in tables for row in table):
        assert 0 < row.speedup <= row.workers * (1 + 1e-9)
        assert 0 < row.busy <= 1 + 1e-9


def test_shards_share_the_loss_and_not_the_merge() -> None:
    found = by_workers(scale_gradient(EVEN, rows=24, least_rows=3, steps=10, told=0.5, seed=0))
    assert found[1].seconds == pytest.approx(10 * (1 + 9 + 0.5))
    assert found[8].seconds == pytest.approx(10 * (1 + 9 / 8 + 0.5))
    assert found[256].seconds == found[8].seconds  # a shard has a row of every set: 24 / 3 shards at most


def test_a_larger_population_needs_fewer_generations_and_more_trials() -> None:
    found = by_workers(scale_population(EVEN, coefficients=3, target=0.01, seed=0))
    assert set(found) == set(WORKERS)
    assert found[256].seconds < found[1].seconds
    assert found[256].trials > found[1].trials
    assert math.isclose(found[256].seconds, found[256].trials / 256 * 10)  # every worker has one trial of a generation
