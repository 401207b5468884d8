"""The commands that show what was found: the report of a run, and several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from unspoiled.cli._stages import CONFIG, QUIET, SET, run_until, shown


@click.command()
@CONFIG
@SET
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "md"]),
    default="html",
    show_default=True,
    help="md prints the report in short, for a README.",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write every figure into DIR too, as SVG and as PNG.",
)
@QUIET
def report(
    config: Path, overrides: tuple[str, ...], kind: Literal["html", "md"], figures: Path | None, quiet: bool
) -> None:
    """Write the HTML report, and print its path (does first what is missing)."""
    from unspoiled.report import render_markdown, write_figures

    outcome = run_until(config, overrides, "report", False, quiet)
    assert outcome.report is not None
    assert outcome.shown is not None
    if figures is not None:
        for path in write_figures(outcome.shown, figures):
            click.echo(shown(path), err=True)
    click.echo(render_markdown(outcome.shown).rstrip("\n") if kind == "md" else shown(outcome.report))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False), metavar="RUN RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="comparison.html",
    show_default=True,
    help="Where the page goes.",
)
def compare(runs: tuple[Path, ...], out: Path) -> None:
    """Put several runs on one HTML page, and print its path.

    RUN is the directory of a run that was evaluated.
    """
    from unspoiled.files import write_atomic
    from unspoiled.pipeline import read_runs
    from unspoiled.report import render_runs

    if not out.resolve().parent.is_dir():
        raise click.UsageError(f"--out {str(out)!r}: there is no directory {str(out.resolve().parent)!r}.")
    given = list(dict.fromkeys(runs))
    if len(given) < 2:
        raise click.UsageError("give the directories of two runs or more: unspoiled compare RUN RUN...")
    write_atomic(out, render_runs(read_runs(given)))
    click.echo(shown(out))
