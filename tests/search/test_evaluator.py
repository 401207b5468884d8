"""Trying proposals on a live model: losses, gradients of genomes, and races that never stop the best."""

import itertools
import math
from typing import Any

import pytest
import torch

from tiny import Bunch
from unspoiled.checkpoints import ModelRef, open_model
from unspoiled.data import Row, Split
from unspoiled.inference import Exchange, LiveBunch, Prompt, TransformersBackend
from unspoiled.merging import Models
from unspoiled.objective import Constrained, Losses, LossRows, WeightedSum
from unspoiled.search import (
    Evaluation,
    GradientRequest,
    LiveEvaluator,
    Proposal,
    Range,
    Rival,
    SearchSpace,
    module_kinds,
)
from unspoiled.search._evaluator import _sure

WORDS = ["bread", "water", "salt", "yeast", "42", "7", "help", "harm", "people", "flour", "wait", "mix"]


def rows(split: Split, per_set: int) -> LossRows:
    found = []
    for kind in ("safety", "expert", "benign"):
        for i in range(per_set):
            group = f"domain {i % 2}" if kind == "expert" else "any"
            prompt = f"{kind} {split}: {WORDS[i % 12]} and {WORDS[(5 * i + 1) % 12]} {i}?"
            response = " ".join(WORDS[(i * k) % 12] for k in range(1, 3 + i % 5))
            found.append(Row(f"{kind}{i}", kind, group, prompt, response, "a", "b", split))  # type: ignore[arg-type]
    return LossRows(tuple(found))


DATA = {"search": rows("search", 16), "selection": rows("selection", 4)}
GOAL = WeightedSum(0.7, 0.4)


@pytest.fixture(scope="module")
def live(bunch: Bunch) -> LiveBunch:
    sources = [open_model(ModelRef.parse(text)) for text in strings(bunch)]
    models = Models({str(source.ref): source for source in sources})
    return LiveBunch(models, sources[0], merged_template=bunch.base, dtype=torch.float32)


def strings(bunch: Bunch) -> list[str]:
    return [str(bunch.base), f"{bunch.base}+{bunch.aligned}", f"{bunch.base}+{bunch.skilled}"]


def space_of(bunch: Bunch, live: LiveBunch, method: str = "task_arithmetic", **options: object) -> SearchSpace:
    base, *experts = strings(bunch)
    return SearchSpace(
        method=method,
        base=base,
        experts=dict(zip(("aligned", "skilled"), experts, strict=True)),
        layers=2,
        ranges={"weight": Range(0.0, 1.5, 0.5)},
        granularity="module",
        kinds=module_kinds([name for name in live.live.models.output.shapes if "layers" in name]),
        dtype="float32",
        **options,  # type: ignore[arg-type]
    )


def proposal(space: SearchSpace, genome: list[float], number: int = 0, **options: object) -> Proposal:
    return Proposal(number, space.recipe(genome), space.named(genome), **options)  # type: ignore[arg-type]


def genome_of(space: SearchSpace, seed: int) -> list[float]:
    return (torch.rand(space.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.2).tolist()


def test_losses_are_those_of_scoring_the_merge_row_by_row(bunch: Bunch, live: LiveBunch) -> None:
    space = space_of(bunch, live)
    wanted = proposal(space, genome_of(space, 1))
    found = LiveEvaluator(live, DATA, None).evaluate(wanted)
    assert found is not None
    backend = live.take_recipe(wanted.recipe)
    alone = [
        backend.score([Exchange(Prompt(row.prompt), row.response)])[0].cross_entropy for row in DATA["search"].rows
    ]
    assert found.cross_entropies == pytest.approx(alone, rel=1e-5)
    assert found.losses == DATA["search"].losses(found.cross_entropies)
    assert found.rows == tuple(range(48))
    assert found.tokens == backend.tokens(DATA["search"].exchanges)


def test_rows_of_the_split_that_was_asked_for_are_scored(bunch: Bunch, live: LiveBunch) -> None:
    space = space_of(bunch, live)
    evaluator = LiveEvaluator(live, DATA, None)
    whole = evaluator.evaluate(proposal(space, genome_of(space, 1), split="selection"))
    part = evaluator.evaluate(proposal(space, genome_of(space, 1), split="selection", rows=(0, 5, 9)))
    assert whole is not None
    assert part is not None
    assert part.cross_entropies == pytest.approx([whole.cross_entropies[i] for i in (0, 5, 9)], rel=1e-5)
    assert part.tokens < whole.tokens


@pytest.mark.parametrize(("method", "fixed"), [("task_arithmetic", {}), ("ties", {"density": 0.6})])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_gradient_is_the_finite_difference_of_the_losses(
    bunch: Bunch, live: LiveBunch, method: str, fixed: dict[str, float], checkpoint: bool
) -> None:
    space = space_of(bunch, live, method, fixed=fixed)
    evaluator = LiveEvaluator(live, DATA, GOAL, checkpoint=checkpoint)
    genome, subset = genome_of(space, 2), DATA["search"].minibatch(0, 6)
    request = GradientRequest(space, GOAL.weights)
    found = evaluator.evaluate(proposal(space, genome, rows=subset, gradient=request))
    assert found is not None
    assert found.gradient is not None
    assert len(found.gradient) == space.size

    def value(place: int, step: float) -> float:
        moved = [x + step * (i == place) for i, x in enumerate(genome)]
        other = evaluator.evaluate(proposal(space, moved, rows=subset))
        assert other is not None
        return GOAL.score(other.losses).value

    step = 2e-3
    for place in range(0, space.size, 3):
        difference = (value(place, step) - value(place, -step)) / (2 * step)
        assert found.gradient[place] == pytest.approx(difference, rel=0.05, abs=2e-3), space.labels[place]
    plain = evaluator.evaluate(proposal(space, genome, rows=subset))
    assert plain is not None
    assert found.tokens == (4 if checkpoint else 3) * plain.tokens
    assert found.losses.expert == pytest.approx(plain.losses.expert, rel=1e-5)


def raced(evaluator: LiveEvaluator, space: SearchSpace, genome: list[float], rival: Rival) -> Evaluation:
    found = evaluator.evaluate(proposal(space, genome, rival=rival))
    assert found is not None
    return found


@pytest.mark.parametrize("goal", [GOAL, Constrained({"safety": 6.0, "benign": 6.0})], ids=["weighted", "limits"])
def test_a_race_stops_what_is_hopeless_and_never_the_best(
    bunch: Bunch, live: LiveBunch, goal: WeightedSum | Constrained
) -> None:
    space = space_of(bunch, live)
    evaluator = LiveEvaluator(live, DATA, goal)
    genomes = [genome_of(space, seed) for seed in range(8)] + [[0.0] * space.size, [1.5] * space.size]
    whole = [evaluator.evaluate(proposal(space, genome)) for genome in genomes]
    scores = [goal.score(found.losses) for found in whole if found is not None]
    assert len(scores) == len(genomes)
    order = sorted(range(len(genomes)), key=scores.__getitem__)
    stopped = 0
    for place in order[::3]:
        found = whole[place]
        assert found is not None
        rival = Rival(found.cross_entropies, scores[place])
        for i, genome in enumerate(genomes):
            result = raced(evaluator, space, genome, rival)
            if result.stopped:
                stopped += 1
                assert scores[i] > scores[place], "it was better than its rival"
                assert len(result.rows) < 48
                assert result.tokens < found.tokens
                assert len(result.cross_entropies) == len(result.rows)
            else:
                assert goal.score(result.losses).value == pytest.approx(scores[i].value, rel=1e-5)
    assert not raced(evaluator, space, genomes[order[0]], rival).stopped
    assert stopped > 0 or isinstance(goal, Constrained)


def test_few_rows_need_a_clearer_difference_than_many() -> None:
    """Student's t has heavier tails than the normal distribution: tables of its 99.865% quantile."""
    assert _sure(3) == pytest.approx(9.22, rel=0.08)
    assert _sure(9) == pytest.approx(4.09, rel=0.01)
    assert _sure(100) == pytest.approx(3.08, rel=0.005)


def test_a_stopped_trials_losses_are_the_rivals_plus_the_mean_difference(bunch: Bunch, live: LiveBunch) -> None:
    space = space_of(bunch, live)
    evaluator = LiveEvaluator(live, DATA, GOAL)
    best = tuple(0.0 for _ in DATA["search"].rows)  # a rival that nothing comes near
    found = raced(evaluator, space, genome_of(space, 3), Rival(best, GOAL.score(DATA["search"].losses(best))))
    assert found.stopped
    assert set(found.rows) >= set(DATA["search"].nested(0.125))
    own = DATA["search"].losses(found.cross_entropies, found.rows)
    assert found.losses.safety == pytest.approx(own.safety)
    assert found.losses.expert == pytest.approx(own.expert)


def test_a_proposal_that_does_not_fit_or_is_not_finite_has_failed(
    bunch: Bunch, live: LiveBunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of(bunch, live)
    evaluator = LiveEvaluator(live, DATA, GOAL)
    wanted = proposal(space, genome_of(space, 1))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(live, "take_recipe", full)
        assert evaluator.evaluate(wanted) is None
    nan = Losses(math.nan, 1.0, {}, 1.0, (1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(LossRows, "losses", lambda *_: nan)
        assert evaluator.evaluate(wanted) is None
    assert evaluator.evaluate(wanted) is not None


def test_a_proposal_that_its_method_refuses_to_merge_has_failed_and_the_search_goes_on(
    bunch: Bunch, live: LiveBunch
) -> None:
    space = space_of(bunch, live, "linear")  # divides by the sum of the weights
    evaluator = LiveEvaluator(live, DATA, GOAL)
    assert evaluator.evaluate(proposal(space, [0.0] * space.size)) is None
    assert evaluator.evaluate(proposal(space, genome_of(space, 1))) is not None


def test_a_race_costs_what_its_looks_compute_anew(bunch: Bunch, live: LiveBunch) -> None:
    space = space_of(bunch, live)
    evaluator = LiveEvaluator(live, DATA, GOAL)
    whole = evaluator.evaluate(proposal(space, genome_of(space, 1)))
    assert whole is not None
    to_the_end = raced(evaluator, space, genome_of(space, 1), Rival(whole.cross_entropies, GOAL.score(whole.losses)))
    assert not to_the_end.stopped
    looks = [set(DATA["search"].nested(share)) for share in (0.125, 0.25, 0.5, 1.0)]
    parts = [looks[0], *(late - early for early, late in itertools.pairwise(looks))]
    backend = live.take_recipe(space.recipe(genome_of(space, 1)))
    exchanges = DATA["search"].exchanges
    assert to_the_end.tokens == sum(backend.tokens([exchanges[i] for i in sorted(part)]) for part in parts)
    assert to_the_end.tokens > whole.tokens, "what prompts begin with is computed once per look"


def test_a_gradient_that_does_not_fit_is_found_once_more_without_keeping_activations(
    bunch: Bunch, live: LiveBunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of(bunch, live)
    wanted = proposal(space, genome_of(space, 2), gradient=GradientRequest(space, GOAL.weights))
    expected = LiveEvaluator(live, DATA, GOAL, checkpoint=True).evaluate(wanted)
    assert expected is not None
    whole = TransformersBackend.backward
    tried = []

    def small(self: TransformersBackend, *given: Any, checkpoint: bool) -> Any:
        tried.append(checkpoint)
        found = whole(self, *given, checkpoint=checkpoint)  # gradients are there when memory runs out
        if not checkpoint:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(TransformersBackend, "backward", small)
    evaluator = LiveEvaluator(live, DATA, GOAL)
    for _ in range(2):
        found = evaluator.evaluate(wanted)
        assert found is not None
        assert (found.gradient, found.tokens) == (expected.gradient, expected.tokens)
    assert tried == [False, True, True]
