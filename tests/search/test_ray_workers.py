"""Ray workers on a real cluster of several nodes: what one process finds, whatever dies underway."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_evaluator import Bowl, Listed, Slow, Wander, essence, study

from unspoiled.errors import SearchError
from unspoiled.search import InProcess, RayWorkers, Trial, sqlite_url

pytest.importorskip("ray")
# said where there are GPUs: workers that reserve none see none, which is what we want
pytestmark = pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning")

GENOMES = [[i / 9, (i * 4 % 9) / 9] for i in range(9)]


class Nodes:
    """A cluster on this machine: a head and two more nodes, of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        head = {**self._small, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.others: list[Any] = []
        self.have(2)
        self.address = self.cluster.address

    def have(self, others: int) -> None:
        while len(self.others) < others:
            self.others.append(self.cluster.add_node(**self._small))

    def lose(self, node: Any) -> None:
        self.others.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = dict(os.environ)
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [before.get("PYTHONPATH")])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # otherwise Ray writes a token into the home directory
    found = Nodes()
    yield found
    found.cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def cluster(nodes: Nodes) -> Nodes:
    nodes.have(2)
    return nodes


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "study.db")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    url = sqlite_url(tmp_path_factory.mktemp("alone") / "study.db")
    return study(url).run(Listed.of_genomes(GENOMES), InProcess(Bowl()))


def in_order(trials: list[Trial]) -> list[Trial]:
    return essence(sorted(trials, key=lambda trial: trial.proposal))


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_node_is_lost_in_mid_search_and_nothing_else(
    cluster: Nodes, url: str, marks: Path, alone: list[Trial]
) -> None:
    gate = marks.with_name("gate")

    def lose_one() -> None:
        while sum(mark.stat().st_size > 0 for mark in marks.iterdir()) < 3:
            time.sleep(0.05)
        at_work = [int(mark.read_text().split()[0]) for mark in marks.iterdir()]  # every worker, on one trial each
        cluster.lose(cluster.others[0])
        while all(map(is_running, at_work)):
            time.sleep(0.05)
        gate.touch()

    killer = threading.Thread(target=lose_one, daemon=True)
    killer.start()
    with RayWorkers(Slow(marks, gate=gate), workers=3, address=cluster.address) as workers:
        assert workers.slots == 3
        found = study(url).run(Listed.of_genomes(GENOMES), workers)
    killer.join()
    assert in_order(found) == in_order(alone), "each trial once, and what one process finds"
    attempts = [path.name.split(".")[0] for path in marks.iterdir()]
    assert len(attempts) == len(GENOMES) + 1, "the trial under way on the lost node, and no other, was tried again"
    names = {trial.evaluation.worker for trial in found if trial.evaluation}
    assert 2 <= len(names) <= 3
    assert study(url).run(Listed.of_genomes(GENOMES), InProcess(_Untouched())) == found


class _Untouched:
    def evaluate(self, proposal: object) -> None:
        raise AssertionError("a recorded trial was tried again")


def test_a_killed_worker_is_replaced_and_its_trial_tried_again(cluster: Nodes, url: str, marks: Path) -> None:
    strategy = Wander(12, ahead=6, seed=1)
    with RayWorkers(Slow(marks, deadly={5: 1}), workers=2, address=cluster.address) as workers:
        found = study(url).run(strategy, workers)
    assert sorted(trial.proposal for trial in found) == list(range(12))
    assert all(trial.losses for trial in found)
    assert len(list(marks.glob("5.*"))) == 2
    assert study(url).run(Wander(12, ahead=6, seed=1), InProcess(_Untouched())) == found, "whatever the order was"


def test_a_trial_that_kills_every_worker_failed(cluster: Nodes, url: str, marks: Path) -> None:
    with RayWorkers(Slow(marks, deadly={5: 99}), workers=2, address=cluster.address, attempts=2) as workers:
        found = study(url).run(Listed.of_genomes(GENOMES[:8]), workers)
    assert [trial.proposal for trial in found if trial.losses is None] == [5]
    assert len(found) == 8
    assert len(list(marks.glob("5.*"))) == 2


def test_workers_that_all_die_end_the_search(cluster: Nodes, url: str, marks: Path) -> None:
    with (
        RayWorkers(Slow(marks, deadly={0: 9}), workers=1, address=cluster.address, attempts=2) as workers,
        pytest.raises(SearchError, match=r"the first trial cost 2 workers, the last on .*: use fewer --workers"),
    ):
        study(url).run(Listed.of_genomes(GENOMES), workers)


def test_what_an_evaluator_raises_is_raised_as_it_is(cluster: Nodes, url: str, marks: Path) -> None:
    with (
        RayWorkers(Slow(marks, broken=2), workers=1, address=cluster.address) as workers,
        pytest.raises(ValueError, match=r"^no such layer$") as caught,
    ):
        study(url).run(Listed.of_genomes(GENOMES), workers)
    assert "scripted_evaluator.py" in str(caught.value.__cause__), "the worker's own traceback"
    assert len(study(url).trials) == 2


def refuse() -> Bowl:
    raise SearchError("D_safety is empty on this machine")


def test_what_building_an_evaluator_raises_is_raised_as_it_is(cluster: Nodes, url: str) -> None:
    with (
        RayWorkers(refuse, workers=2, address=cluster.address) as workers,
        pytest.raises(SearchError, match=r"^D_safety is empty on this machine$"),
    ):
        study(url).run(Listed.of_genomes(GENOMES), workers)


def die() -> Bowl:
    os._exit(9)


def test_workers_that_die_while_they_load_end_the_search(cluster: Nodes, url: str) -> None:
    with (
        RayWorkers(die, workers=1, address=cluster.address, attempts=2) as workers,
        pytest.raises(SearchError, match=r"2 workers were lost one after the other while they loaded the models"),
    ):
        study(url).run(Listed.of_genomes(GENOMES), workers)


def test_a_worker_too_many_waits_for_a_machine(cluster: Nodes, url: str, marks: Path, alone: list[Trial]) -> None:
    with RayWorkers(Slow(marks), workers=5, address=cluster.address) as workers:
        assert workers.slots == 3, "three CPUs"
        found = study(url).run(Listed.of_genomes(GENOMES), workers)
    assert in_order(found) == in_order(alone)


def test_without_any_machine_for_a_worker_it_waits_and_then_ends(cluster: Nodes, url: str, marks: Path) -> None:
    listed = Listed.of_genomes(GENOMES)
    with (
        RayWorkers(Slow(marks), workers=3, address=cluster.address) as all_there_is,
        RayWorkers(Slow(marks), workers=1, address=cluster.address, patience=2) as workers,
    ):
        assert all_there_is.slots == 3
        with pytest.raises(
            SearchError, match=r"no worker is left, .* 1 CPU cores\) in 2 seconds.*same command continues"
        ):
            study(url).run(listed, workers)


def test_each_worker_keeps_to_its_threads(cluster: Nodes, url: str, marks: Path) -> None:
    with RayWorkers(Slow(marks), workers=1, address=cluster.address) as workers:
        study(url).run(Listed.of_genomes(GENOMES[:1]), workers)
    (mark,) = marks.iterdir()
    assert mark.read_text().split()[1] == "1"


def test_a_cluster_without_room_is_refused_before_any_work(cluster: Nodes) -> None:
    with pytest.raises(SearchError, match=r"room for a worker, which needs 1 CPU cores and 1 GPUs\. The machines have"):
        RayWorkers(Bowl, workers=1, address=cluster.address, gpus=1)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(SearchError, match=r"there is no Ray cluster at 'localhost:1' .*`ray start --head`"):
        RayWorkers(Bowl, workers=1, address="localhost:1")


def test_without_an_address_ray_is_started_here_and_ended(
    nodes: Nodes, url: str, marks: Path, alone: list[Trial]
) -> None:
    import ray

    with RayWorkers(Slow(marks, together=2), workers=2) as workers:
        assert [node["Resources"]["CPU"] for node in ray.nodes()] == [2.0]
        found = study(url).run(Listed.of_genomes(GENOMES), workers)
    assert in_order(found) == in_order(alone)
    assert not ray.is_initialized()
