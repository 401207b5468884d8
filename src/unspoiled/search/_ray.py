"""Trying proposals on many processes and machines: Ray actors, each with its own live model."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

from unspoiled.errors import SearchError
from unspoiled.search._strategy import Evaluation, Evaluator, Proposal

_LOOK_SECONDS = 1.0  # how often it looks whether there is still hope of a worker
_OBJECT_STORE_BYTES = 100 * 2**20  # proposals and losses are small; Ray would take a third of the memory


class RayWorkers:
    """Works on as many proposals at once as there are workers; each worker is a process with a live model of its own.

    A worker that is lost (its process was killed, its machine went away) is replaced as soon as some machine has
    room, and its proposal is tried again by another. A proposal whose worker was lost `attempts` times has failed,
    like one that doesn't fit in memory.

    Nothing is copied between machines but recipes and losses: every worker reads the bunch itself. Files are mapped,
    so that the workers of one machine read them from its disk once; a model named by a hub id is downloaded once per
    machine, as the hub's cache locks each file.

    Args:
        make: Builds a worker's evaluator, once, in its process; picklable. Paths in it must be good on all machines.
        workers: How many workers to have, at least 1.
        address: Ray's address of a running cluster (`auto` finds the one of this machine); None starts Ray on this
            machine alone, and ends it on `close`.
        cpus: CPU cores for each worker, which are its threads, too.
        gpus: GPUs for each worker; it sees no others.
        attempts: How often a proposal is tried before it counts as failed, if its worker is lost each time.
        patience: Seconds to wait for a machine with room when there is no worker left.

    Raises:
        SearchError: Ray is not installed, the cluster isn't there, or it has no machine with room for a worker.
    """

    def __init__(
        self,
        make: Callable[[], Evaluator],
        *,
        workers: int,
        address: str | None = None,
        cpus: int = 1,
        gpus: float = 0.0,
        attempts: int = 3,
        patience: float = 300.0,
    ) -> None:
        self._ray = _import_ray()
        self._needs = {"CPU": float(cpus), "GPU": float(gpus)}
        self._attempts = attempts
        self._patience = patience
        self._connected_here = not self._ray.is_initialized()
        if self._connected_here:
            self._connect(address, workers)
        self._workers: list[_Worker] = []
        self._queue: deque[Proposal] = deque()
        self._lost: dict[int, int] = {}  # by proposal: how many workers it has cost
        self._done: deque[tuple[Proposal, Evaluation | None]] = deque()
        self._worked = False
        self._hopeless_since: float | None = None
        self._unready = 0  # workers lost one after the other before they were ready
        room = self._room()
        if not room:
            machines = self._machines()
            self.close()
            raise SearchError(
                f"no machine of the Ray cluster has room for a worker, which needs {self._wanted()}. The machines "
                f"have {machines}. Give each worker less, or add a machine."
            )
        self._make = self._ray.put(make)
        for index in range(workers):
            self._start(counted=index < room)

    @property
    def slots(self) -> int:
        """How many workers there are, or are about to be, for the machines that there are; at least 1."""
        return max(1, sum(worker.counted for worker in self._workers))

    def submit(self, proposal: Proposal) -> None:
        """Give a proposal to an idle worker, or to the first that will be."""
        self._lost.pop(proposal.number, None)  # another strategy's of the same number may have cost some
        self._queue.append(proposal)
        self._assign()

    def finished(self) -> tuple[Proposal, Evaluation | None]:
        """Wait for whichever proposal ends first, and return it with what came of it.

        Raises:
            SearchError: No worker is left and no machine has had room for one in time, or workers are lost one after
                the other.
            Exception: What an evaluator raised, as it is; its cause shows the worker's own traceback.
        """
        if not (self._queue or self._done or any(worker.proposal for worker in self._workers)):
            raise RuntimeError("no proposal was submitted")
        while not self._done:
            self._assign()
            waited_for = {worker.awaits: worker for worker in self._workers if worker.awaits is not None}
            ready, _ = self._ray.wait(list(waited_for), num_returns=1, timeout=_LOOK_SECONDS)
            for reference in ready:
                self._take(waited_for[reference])
            self._require_hope()
        return self._done.popleft()

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        for worker in self._workers:
            self._kill(worker)
        self._workers = []
        if self._connected_here and self._ray.is_initialized():
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, address: str | None, workers: int) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options |= {
                "address": "local",
                "num_cpus": int(workers * self._needs["CPU"]),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        else:
            options["address"] = address
        try:
            _require_listener(address)
            self._ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            raise SearchError(
                f"there is no Ray cluster at {address!r} ({str(error).strip().splitlines()[0]}). Start it with "
                "`ray start --head` on one machine and `ray start --address HEAD:6379` on the others; all need the "
                "same versions of Python, Ray and unspoiled."
            ) from error

    def _start(self, *, counted: bool) -> None:
        """Ask Ray for a worker; it comes when a machine has room."""
        threads = str(int(self._needs["CPU"]))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        actor = (
            self._ray.remote(_Actor)
            .options(
                num_cpus=self._needs["CPU"],
                num_gpus=self._needs["GPU"],
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": variables | {"TOKENIZERS_PARALLELISM": "false"}},
            )
            .remote(int(self._needs["CPU"]))
        )
        self._workers.append(_Worker(actor, counted=counted, awaits=actor.place.remote()))

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.stage == "idle" and self._queue:
                worker.proposal = self._queue.popleft()
                worker.stage = "busy"
                worker.awaits = worker.actor.evaluate.remote(worker.proposal)

    def _take(self, worker: _Worker) -> None:
        """Take what a worker has got ready: its place, its evaluator, or what came of a proposal."""
        exceptions = self._ray.exceptions
        try:
            found = self._ray.get(worker.awaits)
        except exceptions.RayTaskError as error:
            with contextlib.suppress(ValueError):
                self._workers.remove(worker)
            self._kill(worker)
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except exceptions.RayError as error:
            self._lose(worker, error)
            return
        match worker.stage:
            case "placing":
                worker.name, worker.counted, worker.stage = found, True, "preparing"
                worker.awaits = worker.actor.prepare.remote(self._make)
            case "preparing":
                worker.stage, worker.awaits = "idle", None
                self._unready = 0
            case _:
                assert worker.proposal is not None
                evaluation = None if found is None else replace(found, worker=worker.name)
                self._done.append((worker.proposal, evaluation))
                self._worked = True
                worker.proposal, worker.stage, worker.awaits = None, "idle", None

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Replace a lost worker, and let another try its proposal, before all that wait."""
        self._workers.remove(worker)
        self._kill(worker)  # it may only be out of reach
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if worker.stage == "preparing":
            self._unready += 1
            if self._unready >= self._attempts:
                raise SearchError(
                    f"{self._unready} workers were lost one after the other while they loaded the models, the last "
                    f"on {worker.name} ({reason}). Most likely the memory is too small for so many: use fewer "
                    "--workers. What is recorded stays; the same command continues."
                ) from error
        if (proposal := worker.proposal) is not None:
            self._lost[proposal.number] = self._lost.get(proposal.number, 0) + 1
            if self._lost[proposal.number] < self._attempts:
                self._queue.appendleft(proposal)
            elif self._worked:
                self._done.append((proposal, None))
            else:
                raise SearchError(
                    f"the first trial cost {self._attempts} workers, the last on {worker.name} ({reason}), and no "
                    "other has succeeded. Most likely the memory is too small for so many: use fewer --workers."
                ) from error
        self._start(counted=False)

    def _require_hope(self) -> None:
        """Give up after a while in which there was no worker, and no machine for one."""
        if any(worker.stage != "placing" for worker in self._workers) or self._done:
            self._hopeless_since = None
            return
        now = time.monotonic()
        self._hopeless_since = self._hopeless_since or now
        if now - self._hopeless_since > self._patience:
            raise SearchError(
                f"no worker is left, and no machine has had room for one (it needs {self._wanted()}) in "
                f"{self._patience:.0f} seconds. The machines have {self._machines()}. What is recorded stays; start "
                "machines, and the same command continues."
            )

    def _kill(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):  # it is gone, or Ray is
            self._ray.kill(worker.actor)

    def _alive(self) -> Iterator[dict[str, float]]:
        for node in self._ray.nodes():
            if node["Alive"]:
                yield node["Resources"]

    def _room(self) -> int:
        """Return how many workers fit on the machines, were they empty."""
        needs = {name: count for name, count in self._needs.items() if count > 0}
        return sum(
            int(min(resources.get(name, 0.0) / count for name, count in needs.items())) for resources in self._alive()
        )

    def _wanted(self) -> str:
        return _amounts(self._needs)

    def _machines(self) -> str:
        return "; ".join(_amounts(resources) for resources in self._alive()) or "nothing: there are none"


@dataclass(eq=False)
class _Worker:
    """A worker as the search sees it.

    Attributes:
        actor: Ray's handle.
        counted: Whether it counts as a slot: there is a machine for it.
        awaits: What is waited for; None if it is idle.
        stage: It first has to get a place, then builds its evaluator, and is then idle or busy.
        proposal: What it is busy with.
        name: Its host and process.
    """

    actor: Any
    counted: bool
    awaits: Any
    stage: Literal["placing", "preparing", "idle", "busy"] = "placing"
    proposal: Proposal | None = None
    name: str = field(default="")


class _Actor:
    """A worker as its own process sees it."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._evaluator: Evaluator | None = None

    def place(self) -> str:
        """Return the host and the process that this is."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def prepare(self, make: Callable[[], Evaluator]) -> None:
        """Build the evaluator."""
        import torch

        torch.set_num_threads(self._threads)  # of its share of the machine: workers that take all cores each crawl
        self._evaluator = make()

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        """Return what came of a proposal."""
        assert self._evaluator is not None
        return self._evaluator.evaluate(proposal)


def _require_listener(address: str | None) -> None:
    """Raise `OSError` if nothing listens at HOST:PORT; Ray itself would try for minutes, and then end the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _amounts(resources: dict[str, float]) -> str:
    shown = {"CPU": "CPU cores", "GPU": "GPUs"}
    return " and ".join(f"{resources[key]:g} {word}" for key, word in shown.items() if resources.get(key)) or "nothing"


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SearchError("several workers need Ray, which is not installed: pip install 'unspoiled[ray]'") from error
    return ray
