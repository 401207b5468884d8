"""`unspoiled guards`: which guards there are, and how often one agrees with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unspoiled.cli._stages import QUIET

if TYPE_CHECKING:
    from rich.table import Table

    from unspoiled.evaluate import Agreement, GuardAgreement, Rate
    from unspoiled.guards import Guard, Verdict

_WIDTH = 80  # columns
_LONGEST_CATEGORY = 40


@click.group(invoke_without_command=True)
@click.pass_context
def guards(context: click.Context) -> None:
    """List the guards, or test one on labelled responses."""
    if context.invoked_subcommand is None:
        _print_families()


@guards.command()
@click.argument("guard")
@click.argument("labelled", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", metavar="MODEL", help="PATH, HUB/ID[@REVISION] or BASE+ADAPTER. Default: the family's hub id.")
@click.option("--threshold", type=click.FloatRange(0, 1), metavar="P", help="Unsafe from this p_unsafe. Default: 0.5.")
@click.option(
    "--category", "categories", multiple=True, metavar="NAME", help="Judge by this category; may be repeated."
)
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), help="The policy judge's text.")
@click.option("--device", default="cpu", show_default=True, help="A torch device.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="bfloat16", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@QUIET
def test(
    guard: str,
    labelled: Path,
    model: str | None,
    threshold: float | None,
    categories: tuple[str, ...],
    policy: Path | None,
    device: str,
    dtype: str,
    batch_size: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure GUARD on LABELLED responses, with 95% intervals.

    LABELLED is JSONL with a prompt, a response and a label (safe or unsafe) in each
    row, or refusal (true or false), and a category if there is one.
    """
    from unspoiled.evaluate import guard_agreement, read_labelled
    from unspoiled.guards import open_guard

    rows = read_labelled(labelled)
    opened = open_guard(
        guard,
        model,
        categories=categories,
        threshold=threshold,
        policy=policy,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )
    verdicts = _judge(opened, [(row.prompt, row.response) for row in rows], quiet)
    cut = int(getattr(opened, "cut", 0))
    found = guard_agreement(rows, verdicts, fingerprint=opened.fingerprint, cut=cut)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        _print_agreement(found)


def _judge(guard: Guard, pairs: list[tuple[str, str]], quiet: bool) -> list[Verdict]:
    from unspoiled.cli._console import ConsoleWatcher

    watcher = ConsoleWatcher(quiet=quiet)
    watcher.begin("guard")
    try:
        return guard.judge(pairs, progress=lambda done, total: watcher.advance("responses", done, total))
    finally:
        watcher.close()


def _print_families() -> None:
    from rich.console import Console
    from rich.text import Text

    from unspoiled.guards import all_families
    from unspoiled.report import plain_table

    table = plain_table()
    table.add_column("guard", no_wrap=True)
    table.add_column("judges", no_wrap=True)
    table.add_column("reports")
    table.add_column("default model", no_wrap=True)
    for family in all_families():
        reports = "\n".join("p" if report == "probability" else report for report in family.reports) or "–"
        table.add_row(*map(Text, (family.name, family.judges, reports, family.default_model or "–")))
    table.caption = "p: the probability of unsafe, which --threshold is for"
    table.caption_justify = "left"
    Console(width=_WIDTH, highlight=False).print(table)


def _print_agreement(found: GuardAgreement) -> None:
    from rich.console import Console
    from rich.text import Text

    from unspoiled.report import plain_table

    console = Console(width=_WIDTH, highlight=False)
    table = plain_table()
    table.add_column("", no_wrap=True)
    for target in found.agreement:
        table.add_column(target, justify="right", no_wrap=True)
    columns = list(found.agreement.values())
    for name, field in [
        ("precision", "precision"),
        ("recall", "recall"),
        ("false positives", "false_positives"),
        ("accuracy", "accuracy"),
    ]:
        table.add_row(name, *(_shown(getattr(column, field)) for column in columns))
    if any(column.auroc is not None for column in columns):
        table.add_row("AUROC", *("–" if column.auroc is None else f"{column.auroc:.3f}" for column in columns))
    table.add_row("rows, positive", *(f"{column.labelled}, {column.positive}" for column in columns))
    console.print(Text(f"{found.guard}, {found.rows} rows"), soft_wrap=True)
    console.print(table)
    for target, column in found.agreement.items():
        if column.by_category:
            console.print(_category_table(target, column))
    console.print(f"unreadable verdicts {_shown(found.unreadable)}; cut to fit {found.cut}; 95% intervals")


def _category_table(target: str, column: Agreement) -> Table:
    from rich.text import Text

    from unspoiled.report import plain_table

    table = plain_table()
    table.add_column(Text(f"{target}, by category"), no_wrap=True, max_width=_LONGEST_CATEGORY)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    for name, rate in column.by_category.items():
        table.add_row(Text(name), _shown(rate), str(rate.n))
    return table


def _shown(rate: Rate | None) -> str:
    """Write a rate with its interval in per cent: 87% 82–91."""
    if rate is None:
        return "–"
    return f"{100 * rate.rate:.0f}% {100 * rate.low:.0f}–{100 * rate.high:.0f}"
