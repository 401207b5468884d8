"""What a config may search: every method that takes so many experts, by the parameters that can move."""

from pathlib import Path

import pytest

from trained import TrainedBunch
from unspoiled.config import read_run_config
from unspoiled.errors import PreflightError
from unspoiled.pipeline import Bunch, open_bunch

TWO = "bunch.experts={aligned: {model: ROOT/aligned}, colours: {model: ROOT/base+ROOT/colours, domain: colours}}"
ONE_DOMAIN = "domains={colours: {examples: ROOT/colours-examples.jsonl, test: ROOT/colours-test.jsonl}}"


def opened(trained: TrainedBunch, directory: Path, *overrides: str) -> Bunch:
    (directory / "run.yaml").write_text(trained.config)
    given = [override.replace("ROOT", str(trained.root)) for override in overrides]
    return open_bunch(read_run_config(directory / "run.yaml", overrides=given))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("{method: tise}", "Did you mean 'ties'?"),
        ("{method: slerp, parameters: {t: [0, 1]}}", "merges 2 models, and the bunch has 3 experts"),
        ("{method: nuslerp}", "merges 2 models, and the bunch has 3 experts"),
        ("{method: fisher}", "needs statistics of every expert's data (fisher)"),
        ("{parameters: {wight: [0, 1]}}", "no parameter 'wight'"),
        ("{method: ties, parameters: {weight: [0, 1], density: [0, 2]}, strategies: [evolve]}", "density"),
        (
            "{method: della, parameters: {weight: [0, 1], density: [0.1, 0.8]}, strategies: [evolve]}",
            "search.parameters.density reaches 0.1, where no merge can be made: della: density 0.1 ± epsilon 0.15",
        ),
        ("{method: della, fixed: {density: 0.9}}", "density 0.9 ± epsilon 0.15 leaves the range"),
        ("{method: ties, fixed: {density: 3}}", "is 3.0: it must lie between 0.0 and 1.0"),
    ],
)
def test_what_can_not_be_searched_is_refused_before_any_work(
    trained: TrainedBunch, tmp_path: Path, search: str, message: str
) -> None:
    with pytest.raises(PreflightError) as caught:
        opened(trained, tmp_path, f"search={search}")
    assert message in str(caught.value)


def test_a_method_for_two_models_walks_from_the_first_expert_to_the_second(
    trained: TrainedBunch, tmp_path: Path
) -> None:
    space = opened(trained, tmp_path, TWO, ONE_DOMAIN, "search={method: slerp, parameters: {t: [0, 1]}}").space
    recipe = space.recipe(space.start)
    assert recipe.base_model == f"{trained.root}/aligned"
    assert [entry.model for entry in recipe.models] == [f"{trained.root}/base+{trained.root}/colours"]
    assert recipe.parameters == {"t": 0.5}


def test_searches_start_from_equal_weights_and_a_methods_own_defaults(trained: TrainedBunch, tmp_path: Path) -> None:
    search = "search={method: ties, parameters: {weight: [0, 1.5], density: [0.1, 1]}, strategies: [evolve]}"
    space = opened(trained, tmp_path, search).space
    assert space.ranges["weight"].start == pytest.approx(1 / 3)
    assert 0.1 < space.ranges["density"].start < 1.0


def test_module_kinds_are_of_the_tensors_that_some_expert_changes(trained: TrainedBunch, tmp_path: Path) -> None:
    adapters = TWO.replace("ROOT/aligned}", "ROOT/base+ROOT/sounds}")
    space = opened(trained, tmp_path, adapters, ONE_DOMAIN, "search.granularity=module").space
    assert list(space.kinds) == ["attention", "mlp"], "adapters have neither norms nor embeddings"
    full = opened(trained, tmp_path, "search.granularity=module").space
    assert list(full.kinds) == ["norms", "attention", "mlp", "embeddings"]
