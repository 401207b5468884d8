"""Where a search's trials are tried: in this process, or by workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from unspoiled.config import RunConfig
from unspoiled.data import Split
from unspoiled.objective import Goal, LossRows
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._device import on_gpu
from unspoiled.pipeline._opening import open_live
from unspoiled.search import Executor, InProcess, LiveEvaluator, RayWorkers


class Executors:
    """The executors of one search, made when first needed and ended with it.

    Args:
        bunch: The models.
        rows: The rows of both splits.
    """

    def __init__(self, bunch: Bunch, rows: Mapping[Split, LossRows]) -> None:
        self._bunch = bunch
        self._rows = rows
        self._workers: Executor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def local(self, goal: Goal | None) -> Executor:
        """Return the one that tries proposals on this process's model."""
        return InProcess(LiveEvaluator(self._bunch.live, self._rows, goal))

    def of_workers(self, goal: Goal) -> Executor:
        """Return the one that the config asks for; of workers, always the same."""
        runtime = self._bunch.config.runtime
        if not runtime.workers:
            return self.local(goal)
        if self._workers is None:
            make = partial(open_evaluator, self._bunch.config, self._rows, goal)
            workers = RayWorkers(
                make,
                workers=runtime.workers,
                address=runtime.ray_address,
                gpus=float(on_gpu(self._bunch.config.runtime)),
            )
            self._workers = self._stack.enter_context(workers)
        return self._workers


def open_evaluator(config: RunConfig, rows: Mapping[Split, LossRows], goal: Goal) -> LiveEvaluator:
    """Open a bunch anew, in a worker, and return what tries proposals on it.

    Paths of models must be the same on every machine; data travel with the call.
    """
    return LiveEvaluator(open_live(config), rows, goal)
