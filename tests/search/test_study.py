"""A study is the search's memory: killed anywhere, the search goes on as if nothing had happened."""

import math
import random
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from scripted_evaluator import (
    Bowl,
    Killed,
    Listed,
    OutOfOrder,
    Wander,
    evaluation,
    study,
    two_weights,
)

from unspoiled.config import parse_recipe
from unspoiled.errors import SearchError
from unspoiled.objective import Constrained, WeightedSum
from unspoiled.pipeline._summary import summarise
from unspoiled.search import (
    Evaluation,
    GradientRequest,
    InProcess,
    Proposal,
    Study,
    Trial,
    best_trials,
    sqlite_url,
)

J = WeightedSum(alpha=0.3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "study.db")


# --- continuing -------------------------------------------------------------------------------------------


def test_a_finished_search_is_replayed_without_touching_the_model(url: str) -> None:
    first = study(url).run(Wander(12), InProcess(Bowl()))
    assert len(first) == 12
    bowl, seen = Bowl(), list[Trial]()
    assert study(url).run(Wander(12), InProcess(bowl), progress=seen.append) == first == seen
    assert bowl.tried == []


def test_what_is_read_back_is_what_was_found_to_the_last_bit(url: str) -> None:
    request = GradientRequest(two_weights(), {"safety": 1.0, "expert": 0.1 + 0.2})
    found = study(url).run(Wander(6, gradient=request, rows=(2, 0, 1), split="selection"), InProcess(Bowl()))
    assert study(url).trials == found
    assert found[0].evaluation is not None
    assert found[0].evaluation.gradient is not None
    assert found[0].gradient_weights == {"safety": 1.0, "expert": 0.30000000000000004}


@pytest.mark.parametrize("finished", [0, 1, 5, 11])
def test_a_longer_search_goes_on_where_a_shorter_one_ended(url: str, tmp_path: Path, finished: int) -> None:
    whole = study(sqlite_url(tmp_path / "whole.db")).run(Wander(12), InProcess(Bowl()))
    study(url).run(Wander(finished), InProcess(Bowl()))
    bowl = Bowl()
    assert study(url).run(Wander(12), InProcess(bowl)) == whole
    assert len(bowl.tried) == 12 - finished


def test_a_shorter_search_than_the_recorded_one_ends_early(url: str) -> None:
    whole = study(url).run(Wander(12), InProcess(Bowl()))
    bowl = Bowl()
    assert study(url).run(Wander(5), InProcess(bowl)) == whole[:5]
    assert bowl.tried == []


@pytest.mark.parametrize("seed", range(5))
def test_an_asynchronous_search_comes_back_to_the_state_it_was_killed_in(url: str, seed: int) -> None:
    """Wander's proposals depend on the order of every ask and tell, so any other replay would be refused."""
    chance = random.Random(seed)
    executor = OutOfOrder(Bowl(), 4, seed=seed, dies_after=chance.randrange(17))
    with pytest.raises(Killed):
        study(url).run(Wander(20, ahead=9), executor)
    executor = OutOfOrder(Bowl(), chance.choice([1, 3, 7]), seed=seed + 100, dies_after=2)
    with pytest.raises(Killed):  # once more, with other workers and another order of ending
        study(url).run(Wander(20, ahead=9), executor)
    before = study(url).trials
    bowl = Bowl()
    ended = study(url).run(Wander(20, ahead=9), OutOfOrder(bowl, 2, seed=seed))
    assert ended[: len(before)] == before
    assert len(bowl.tried) == 20 - len(before), "a recorded trial was tried again"
    assert sorted(trial.number for trial in ended) == list(range(20))
    assert study(url).run(Wander(20, ahead=9), InProcess(Bowl())) == ended


def test_a_trial_that_was_under_way_is_tried_again_under_its_own_number(url: str) -> None:
    with pytest.raises(Killed):
        study(url).run(Wander(8, ahead=4), OutOfOrder(Bowl(), 4, dies_after=0))
    stored = optuna.load_study(study_name="unspoiled", storage=url)
    assert [trial.state.name for trial in stored.trials] == ["RUNNING"] * 4
    assert study(url).trials == []
    study(url).run(Wander(8, ahead=4), OutOfOrder(Bowl(), 2))
    assert [trial.state.name for trial in stored.trials] == ["COMPLETE"] * 8


def test_an_error_in_a_trial_leaves_it_to_be_tried_again(url: str) -> None:
    class Broken(Bowl):
        def evaluate(self, proposal: Proposal) -> Evaluation | None:
            if proposal.number == 3:
                raise KeyError("model.norm")
            return super().evaluate(proposal)

    with pytest.raises(KeyError, match=r"model\.norm"):
        study(url).run(Wander(6), InProcess(Broken()))
    bowl = Bowl()
    study(url).run(Wander(6), InProcess(bowl))
    assert len(bowl.tried) == 3


def test_strategies_share_a_study_and_find_their_own_trials_again(url: str) -> None:
    bowl = Bowl()

    def everything(trials: int) -> list[list[Trial]]:
        opened = study(url)
        return [
            opened.run(strategy, InProcess(bowl))
            for strategy in (Wander(trials, name="one"), Listed.of_genomes([[0.1, 0.2]]), Wander(4, name="two", seed=5))
        ]

    first = everything(3)
    assert everything(3) == first
    assert len(bowl.tried) == 8
    longer = everything(5)
    assert [trial.number for trial in longer[0]] == [0, 1, 2, 8, 9]
    assert longer[1:] == first[1:]
    assert [trial.number for trial in study(url).trials] == list(range(10)), "in the order in which they ended"


def test_another_search_in_the_same_study_is_refused(url: str) -> None:
    study(url).run(Wander(6, seed=1), InProcess(Bowl()))
    bowl = Bowl()
    for other in (Wander(6, seed=2), Wander(6, seed=1, rows=(0, 1)), Wander(6, seed=1, split="selection")):
        with pytest.raises(SearchError, match=r"trial 0 of the recorded search \(wander\) has .* --fresh"):
            study(url).run(other, InProcess(bowl))
    with pytest.raises(SearchError, match=r"has split 'search', but the search now proposes 'selection'"):
        study(url).run(Wander(6, seed=1, split="selection"), InProcess(bowl))
    assert bowl.tried == []


def test_a_second_process_takes_over_and_the_first_writes_nothing_more(url: str) -> None:
    class Overtaken(Bowl):
        def evaluate(self, proposal: Proposal) -> Evaluation | None:
            if proposal.number == 4:
                taken.append(study(url).run(Wander(10), InProcess(Bowl())))
            return super().evaluate(proposal)

    taken: list[list[Trial]] = []
    with pytest.raises(SearchError, match=r"process \d+ on .* has taken over the study 'unspoiled' in sqlite:"):
        study(url).run(Wander(10), InProcess(Overtaken()))
    assert study(url).trials == taken[0]
    assert [trial.number for trial in taken[0]] == list(range(10))


# --- the objective ----------------------------------------------------------------------------------------


def test_a_changed_objective_is_refused_with_the_difference(url: str) -> None:
    study(url, data={"D_safety": "aa"}, guard="rules").run(Wander(2), InProcess(Bowl()))
    study(url, guard="rules", data={"D_safety": "aa"})  # the order of keys says nothing
    with pytest.raises(SearchError) as caught:
        Study(
            url,
            terms=["safety", "expert"],
            objective={"goal": {"alpha": 1.0}, "data": {"D_safety": "aa", "D_benign": "bb"}},
        )
    assert str(caught.value).splitlines() == [
        f"the study 'unspoiled' in {url} was begun with another objective (recorded -> now):",
        '  losses: ["safety", "expert", "benign"] -> ["safety", "expert"]',
        "  goal.alpha: 0.3 -> 1.0",
        '  data.D_benign: nothing -> "bb"',
        '  guard: "rules" -> nothing',
        "Its trials don't compare with new ones. Go back to the recorded objective, give this search a name of its own "
        "(--study NAME, or --set runtime.study=NAME in a database of your own), or start anew with --fresh, which "
        "discards no database but the run directory's.",
    ]
    assert study(url, "other", guard="llama").trials == [], "another name in the same database"


def test_a_study_that_was_killed_before_its_objective_was_written_is_ours(url: str) -> None:
    optuna.create_study(storage=url, study_name="unspoiled", directions=["minimize"] * 3)
    assert len(study(url).run(Wander(2), InProcess(Bowl()))) == 2


def test_a_study_of_someone_else_is_not_written_to(url: str) -> None:
    theirs = optuna.create_study(storage=url, study_name="unspoiled")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(SearchError, match=r"goal: nothing -> "):
        study(url)
    assert len(theirs.trials) == 2


# --- trials -----------------------------------------------------------------------------------------------


class Told:
    """Finds what it is told to."""

    def __init__(self, *found: Evaluation | None) -> None:
        self._found = list(found)

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        return self._found.pop(0)


def listed(count: int, **options: object) -> Listed:
    return Listed.of_genomes([[i / 8, 0.5] for i in range(count)], **options)


def test_a_trial_without_a_finite_loss_failed_and_is_never_zero(url: str) -> None:
    found = (evaluation(2.0), evaluation(math.nan), None, evaluation(1.0), evaluation(1.0, gradient=(math.inf,)))
    trials = study(url).run(listed(5), InProcess(Told(*found)))
    assert [trial.losses is None for trial in trials] == [False, True, True, False, True]
    assert [trial.number for trial in best_trials(trials, J, 5)] == [3, 0]
    stored = optuna.load_study(study_name="unspoiled", storage=url).trials
    assert [trial.state.name for trial in stored] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert stored[1].values is None
    assert study(url).trials == trials, "a failure is still one after a restart"


def test_a_search_in_which_all_failed_has_no_best(url: str) -> None:
    trials = study(url).run(listed(2), InProcess(Told(None, None)))
    with pytest.raises(SearchError, match=r"no trial of the search can be chosen"):
        best_trials(trials, J, 1)


def test_only_whole_trials_of_candidates_are_chosen(url: str) -> None:
    space = two_weights()
    genomes = [(i / 8, 0.5) for i in range(5)]
    options: list[dict[str, object]] = [{}, {"candidate": False}, {"rows": (0, 1)}, {}, {}]
    proposals = [
        Proposal(i, space.recipe(g), space.named(g), **o)  # type: ignore[arg-type]
        for i, (g, o) in enumerate(zip(genomes, options, strict=True))
    ]
    raced = replace(evaluation(0.2), stopped=True, rows=(0, 2), cross_entropies=(0.2, 0.1))
    found = (evaluation(3.0), evaluation(0.1), evaluation(0.1), raced, evaluation(2.0))
    trials = study(url).run(Listed(proposals), InProcess(Told(*found)))
    assert [trial.number for trial in best_trials(trials, J, 9)] == [4, 0]
    stored = optuna.load_study(study_name="unspoiled", storage=url)
    assert [t.state.name for t in stored.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert {trial.number for trial in stored.best_trials} == {1}, "what is estimated is not on the dashboard's front"
    assert study(url).trials == trials


def test_the_best_keeps_the_limits_first_and_equals_keep_their_order(url: str) -> None:
    found = (evaluation(0.6, 0.1), evaluation(0.4, 0.9), evaluation(0.3, 0.8), evaluation(0.2, 0.8))
    trials = study(url).run(listed(4), InProcess(Told(*found)))
    goal = Constrained({"safety": 0.5})
    assert [trial.number for trial in best_trials(trials, goal, 3)] == [2, 3, 1]


def test_a_recipe_tried_twice_takes_one_finalists_place(url: str) -> None:
    again = Listed.of_genomes([[0.1, 0.5], [0.1, 0.5], [0.2, 0.5], [0.1, 0.5]])
    trials = study(url).run(again, InProcess(Told(evaluation(1.0), evaluation(1.0), evaluation(2.0), evaluation(1.0))))
    assert [trial.number for trial in best_trials(trials, J, 2)] == [0, 2]


def test_racing_saves_what_scoring_all_rows_in_every_trial_would_have_taken_more(url: str) -> None:
    """Four trials of 300 tokens, one stopped after 60; two races to the end cost 20 more: 1 − 1000/1200 is saved."""
    half = evaluation(3.0, stopped=True, rows=(0, 2), cross_entropies=(3.0, 0.1), tokens=60)
    found = (evaluation(1.0), half, evaluation(2.0, tokens=320), evaluation(2.0, tokens=320))
    trials = study(url).run(listed(4), InProcess(Told(*found)))
    assert summarise("listed", trials, {"search": J, "selection": J}).saved == pytest.approx(1 - 1000 / 1200)


def test_optuna_reads_the_study_as_its_own(url: str) -> None:
    trials = study(url).run(Wander(6), InProcess(Bowl()))
    stored = optuna.load_study(study_name="unspoiled", storage=url)
    assert [direction.name for direction in stored.directions] == ["MINIMIZE"] * 3
    assert stored.metric_names == ["CE_safety", "CE_expert", "CE_benign"]
    for ours, theirs in zip(trials, stored.trials, strict=True):
        assert ours.evaluation is not None
        losses = ours.evaluation.losses
        assert theirs.values == [losses.safety, losses.expert, losses.benign]
        assert theirs.params == ours.coefficients
        assert theirs.user_attrs["strategy"] == "wander"
        assert theirs.user_attrs["losses"]["domains"] == {"math": losses.expert}
        assert theirs.user_attrs["tokens"] == 300
        assert theirs.user_attrs["seconds"] == {"merge": 0.25, "loss": 1.5}
        assert parse_recipe(theirs.user_attrs["recipe"], "dashboard") == ours.recipe, "fit for a recipe file"


def test_the_rates_of_a_finalist_are_kept_with_the_study(url: str) -> None:
    first, second = study(url).run(Wander(2), InProcess(Bowl()))
    study(url).record_rates(second, {"refusal": 0.1 + 0.2, "accuracy": 0.5})
    assert study(url).rates(second) == {"refusal": 0.30000000000000004, "accuracy": 0.5}
    assert study(url).rates(first) == {}
    shown = optuna.load_study(study_name="unspoiled", storage=url).user_attrs
    assert shown["rates of trial 1"]["accuracy"] == 0.5


def test_a_large_genome_is_recorded_and_not_plotted(url: str) -> None:
    space = replace(two_weights(), granularity="layer", layers=40)
    genome = [i / 80 for i in range(80)]
    strategy = Listed([Proposal(0, space.recipe(genome), space.named(genome))])
    trials = study(url).run(strategy, InProcess(Told(evaluation(1.0))))
    assert study(url).trials == trials
    assert trials[0].coefficients == space.named(genome)
    stored = optuna.load_study(study_name="unspoiled", storage=url)
    assert stored.trials[0].params == {}


# --- storage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a {gap}", "what?x=1", "100%20", "a#b", "c@d:e", "ü 日本"])
def test_a_study_lies_in_the_directory_named_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    found = study(sqlite_url(folder / "study.db")).run(Wander(2), InProcess(Bowl()))
    assert [path.name for path in folder.iterdir()] == ["study.db"], "one file that can be copied"
    assert study(sqlite_url(folder / "study.db")).trials == found
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_damaged_file_is_named(tmp_path: Path, url: str) -> None:
    (tmp_path / "study.db").write_text("not a database at all, " * 100)
    with pytest.raises(SearchError, match=r"study\.db can't be read or written \(file is not a database\)"):
        study(url)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"no/study\.db can't be read or written \(unable to open database file\)"):
        study(sqlite_url(tmp_path / "no" / "study.db"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("postgresql+nodriver://me:secret@db/search", "is no URL of a database"),
        ("mysql+pymysql://me:secret@db/search", "`pip install pymysql`"),
        ("postgresql://me:secret@db:port/search", "is no URL of a database"),
        ("study.db", "is no URL of a database"),
    ],
)
def test_a_storage_that_can_not_be_opened_is_named_without_its_password(wrong: str, message: str) -> None:
    with pytest.raises(SearchError, match=message) as caught:
        study(wrong)
    assert "secret" not in str(caught.value)


def test_a_study_deleted_while_it_is_searched_ends_with_a_word(url: str) -> None:
    class Deleting(Bowl):
        def evaluate(self, proposal: Proposal) -> Evaluation | None:
            if proposal.number == 2:
                optuna.delete_study(study_name="unspoiled", storage=url)  # the dashboard has a button for it
            return super().evaluate(proposal)

    with pytest.raises(SearchError, match=r"lacks a record that was there before"):
        study(url).run(Wander(6), InProcess(Deleting()))


def test_an_objective_must_be_json(url: str) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        study(url, limit=math.nan)
