"""One command from a bunch of experts to a measured merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from unspoiled.audit import Audit
from unspoiled.config import RunConfig, as_plain
from unspoiled.evaluate import Results
from unspoiled.pipeline._audit import audit
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._evaluate import evaluate, write_merged
from unspoiled.pipeline._generate import generate, tallies
from unspoiled.pipeline._opening import open_bunch
from unspoiled.pipeline._progress import Unwatched, Watcher
from unspoiled.pipeline._report import report, report_inputs, search_rows
from unspoiled.pipeline._search import search
from unspoiled.pipeline._trackers import Trackers
from unspoiled.report import ReportInputs, SearchRow

Stage = Literal["generate", "search", "merge", "evaluate", "audit", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class RunOutcome:
    """What a run came to.

    Args:
        directory: The run directory.
        results: What was measured; None if the run stopped before.
        winner: The strategy whose merge was written; None if the run stopped before.
        report: The report's path; None if the run stopped before.
        searches: What each strategy of the search did; empty if the run stopped before.
        yields: What became of the questions, by data set and reason.
        audit: Who spoils the merges; None if the run stopped before, or the config wants none.
        shown: What the report shows; None if the run stopped before.
    """

    directory: Path
    results: Results | None = None
    winner: str | None = None
    report: Path | None = None
    searches: Sequence[SearchRow] = ()
    yields: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    audit: Audit | None = None
    shown: ReportInputs | None = None


def open_run(bunch: Bunch, *, fresh: bool = False) -> RunDirectory:
    """Return the run directory of a bunch's config, to be entered as a context manager.

    What the machine is (`runtime`) and where the directory lies are not part of a run's identity; nor is how it is
    audited, since nothing before depends on that, but for the trigger suites, whose prompts are held out.
    """
    identity = {key: value for key, value in as_plain(bunch.config).items() if key not in {"runtime", "output"}}
    identity["audit"] = {"triggers": identity["audit"]["triggers"]}
    return RunDirectory(bunch.config.output_directory, config=identity, inputs=bunch.fingerprints(), fresh=fresh)


def run(
    config: RunConfig,
    *,
    until: Stage = "report",
    fresh: bool = False,
    more: int = 0,
    command: str = "unspoiled run",
    watcher: Watcher | None = None,
) -> RunOutcome:
    """Take a bunch of experts to one measured merge; what is there already is kept.

    Args:
        config: The run's config.
        until: The last stage to do.
        fresh: Discard an earlier run in the same directory.
        more: Raise the budget of the search by so many trials or steps of each strategy beyond what was done.
        command: What the report tells a reader to type.
        watcher: Is told how it goes.

    Raises:
        UnspoiledError: See the stages; the run directory then holds every finished step.
    """
    watcher = watcher or Unwatched()
    watcher.begin("preflight")
    bunch = open_bunch(config)
    watcher.note(bunch.report.summary)
    for warning in bunch.report.warnings:
        watcher.note(f"warning: {warning}")
    last = STAGES.index(until)
    directory = config.output_directory
    with open_run(bunch, fresh=fresh) as opened, Trackers(config.runtime.trackers, directory) as trackers:
        rows = generate(bunch, opened, watcher)
        if last < STAGES.index("search"):
            return RunOutcome(directory, yields={title: t.total for title, t in tallies(bunch, opened).items()})
        found = search(bunch, opened, rows, watcher, more=more, on_trial=trackers.trial)
        searches = search_rows(found)
        if last < STAGES.index("merge"):
            return RunOutcome(directory, winner=found.winner, searches=searches)
        write_merged(bunch, opened, found, watcher)
        if last < STAGES.index("evaluate"):
            return RunOutcome(directory, winner=found.winner, searches=searches)
        before = opened.steps_made
        results = evaluate(bunch, opened, rows, found, watcher)
        if opened.steps_made > before:
            trackers.results(results)
        if last < STAGES.index("audit"):
            return RunOutcome(directory, results, found.winner, searches=searches)
        audited = audit(bunch, opened, found, results, rows, watcher)
        if last < STAGES.index("report"):
            return RunOutcome(directory, results, found.winner, searches=searches, audit=audited)
        shown = report_inputs(bunch, opened, found, results, audited, command)
        page = report(opened, shown, watcher)
        return RunOutcome(directory, results, found.winner, page, searches, audit=audited, shown=shown)
