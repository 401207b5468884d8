"""The commands that do a run, or the stages of one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from unspoiled.audit import Audit
    from unspoiled.pipeline import RunOutcome, Stage

_WIDEST_TABLE = 1000  # columns
_STAGES = ("generate", "search", "merge", "evaluate", "audit", "report")  # those of the pipeline, which loads torch

QUIET = click.option("--quiet", is_flag=True, help="Print no progress.")
CONFIG = click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the config: search.trials=20.",
)
FRESH = click.option("--fresh", is_flag=True, help="Discard what the run directory holds and start anew.")
_WORKERS = click.option(
    "--workers", type=click.IntRange(min=0), metavar="N", help="Search by N Ray workers, each with its own model."
)
_RAY = click.option("--ray-address", metavar="ADDRESS", help="The Ray cluster to search on: auto, or ray://HOST:PORT.")


@click.command()
@CONFIG
@SET
@FRESH
@click.option("--until", type=click.Choice(_STAGES), default=_STAGES[-1], help="The last stage to do. Default: all.")
@_WORKERS
@_RAY
@QUIET
def run(
    config: Path,
    overrides: tuple[str, ...],
    fresh: bool,
    until: Stage,
    workers: int | None,
    ray_address: str | None,
    quiet: bool,
) -> None:
    """Do everything: generate, search, merge, evaluate, audit, report.

    What an earlier run of the same config has done is kept.
    """
    runtime = _runtime(workers, ray_address)
    outcome = run_until(config, overrides, until, fresh, quiet, runtime=runtime)
    if outcome.searches:
        _print_searches(outcome, quiet)
    if outcome.results is not None:
        _print_results(outcome)
    if outcome.audit is not None:
        print_findings(outcome.audit)
    if (merged := outcome.directory / "merged").exists():
        click.echo(f"Merged checkpoint: {shown(merged)}")
    if outcome.report is not None:
        click.echo(f"Report: {shown(outcome.report)}")


@click.command()
@CONFIG
@SET
@click.option("--config-only", is_flag=True, help="Open no model and no data, and use no network.")
def check(config: Path, overrides: tuple[str, ...], config_only: bool) -> None:
    """Check a config, its models and its data, and say what a run would need."""
    from unspoiled.config import read_run_config
    from unspoiled.pipeline import check_config, open_bunch

    read = read_run_config(config, overrides=overrides)
    if config_only:
        check_config(read)
        click.echo("No problem found in the config. Its models and data were not opened.")
        return
    bunch = open_bunch(read)
    for warning in bunch.report.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{len(bunch.experts)} experts on one base, {bunch.report.summary}.")
    click.echo(f"{bunch.space.size} coefficients: {bunch.space.method} by {bunch.space.granularity}.")
    click.echo("No problem found.")


@click.command()
@CONFIG
@SET
@FRESH
@QUIET
def generate(config: Path, overrides: tuple[str, ...], fresh: bool, quiet: bool) -> None:
    """Generate D_safety, D_expert and D_benign, and print where they are."""
    from unspoiled.report import yields_table

    outcome = run_until(config, overrides, "generate", fresh, quiet)
    if not quiet:
        print_table(yields_table(outcome.yields), stderr=True)
    click.echo(shown(outcome.directory / "data"))


@click.command()
@CONFIG
@SET
@FRESH
@click.option(
    "--continue",
    "more",
    type=click.IntRange(min=1),
    metavar="N",
    help="Go on: N more trials, or steps, of each strategy that has a budget.",
)
@click.option("--study", metavar="NAME|URL", help="The study's name, or the URL of its database.")
@_WORKERS
@_RAY
@QUIET
def search(
    config: Path,
    overrides: tuple[str, ...],
    fresh: bool,
    more: int | None,
    study: str | None,
    workers: int | None,
    ray_address: str | None,
    quiet: bool,
) -> None:
    """Search the coefficients, and print the best recipe (generates first what is missing).

    A study goes on where it stopped. It is refused if what is searched for has
    changed: give another --study, or --fresh.
    """
    runtime = _runtime(workers, ray_address)
    if study is not None:
        runtime["storage" if "://" in study else "study"] = study
    outcome = run_until(config, overrides, "search", fresh, quiet, runtime=runtime, more=more or 0)
    _print_searches(outcome, quiet)
    click.echo(f"# best on the selection split: {outcome.winner}")
    click.echo((outcome.directory / "recipe.yaml").read_text(encoding="utf-8"), nl=False)


def shown(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _runtime(workers: int | None, ray_address: str | None) -> dict[str, Any]:
    """Return what flags say of the machine; one worker is enough to search on a cluster that is named."""
    if workers is None and ray_address is not None:
        workers = 1
    return {k: v for k, v in (("workers", workers), ("ray_address", ray_address)) if v is not None}


def run_until(
    config: Path,
    overrides: tuple[str, ...],
    until: Stage,
    fresh: bool,
    quiet: bool,
    *,
    runtime: dict[str, Any] | None = None,
    more: int = 0,
) -> RunOutcome:
    """Do the stages of a run up to one, with progress on stderr.

    Args:
        config: The config's path.
        overrides: Values in place of the config's, as KEY=VALUE.
        until: The last stage.
        fresh: Discard what the run directory holds.
        quiet: Print no progress.
        runtime: What flags say of the machine.
        more: Trials or steps beyond the budget.
    """
    from unspoiled.cli._console import ConsoleWatcher
    from unspoiled.config import read_run_config
    from unspoiled.pipeline import run as run_pipeline

    watcher = ConsoleWatcher(quiet=quiet)
    command = shlex.join(["unspoiled", "run", str(config), *(arg for o in overrides for arg in ("--set", o))])
    try:
        return run_pipeline(
            read_run_config(config, overrides=overrides).on_machine(**runtime or {}),
            until=until,
            fresh=fresh,
            more=more,
            command=command,
            watcher=watcher,
        )
    finally:
        watcher.close()


def _print_searches(outcome: RunOutcome, quiet: bool) -> None:
    from unspoiled.report import search_table

    if not quiet:
        print_table(search_table(outcome.searches), stderr=True)


def _print_results(outcome: RunOutcome) -> None:
    from unspoiled.report import optimism_table, results_table

    assert outcome.results is not None
    print_table(results_table(outcome.results, outcome.winner))
    if outcome.results.optimism:
        click.echo()
        print_table(optimism_table(outcome.results.optimism))


def print_findings(audit: Audit) -> None:
    """Print what an audit found, in sentences of lines that fit 80 columns."""
    from unspoiled.report import audit_findings

    for sentence in audit_findings(audit):
        click.echo(click.wrap_text(sentence, 80))


def print_table(table: Table, *, stderr: bool = False) -> None:
    """Print a table, wider than the terminal if it must be: cutting lines would cut numbers."""
    from rich.console import Console

    console = Console(highlight=False, stderr=stderr)
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST_TABLE)).maximum
    console.width = max(console.width, needed)  # a narrow terminal wraps lines; cutting them would cut numbers
    console.print(table)
