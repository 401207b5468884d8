"""`unspoiled push`: a finished run on the hub, after asking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unspoiled.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from unspoiled.pipeline import Push


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Let everybody see it. Default: private.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be uploaded and deleted, and change nothing.")
@click.option("--unmeasured", is_flag=True, help="Upload also what nothing was measured on.")
@click.option("--replace", is_flag=True, help="Put it in the place of files that unspoiled did not push.")
def push(run: Path, repository: str, public: bool, yes: bool, dry_run: bool, unmeasured: bool, replace: bool) -> None:
    """Upload the merged checkpoint of RUN, its card and results, to OWNER/NAME on the hub.

    The repository is private unless you say otherwise, and nothing is sent before
    you agree. A checkpoint that was pushed there before is replaced whole.
    """
    from unspoiled.pipeline import look_at_hub, plan_push
    from unspoiled.pipeline import push as upload

    planned = plan_push(run, repository, private=not public, unmeasured=unmeasured)
    try:
        planned = look_at_hub(planned, replacing=replace)
    except (ConfigError, ServerError) as error:
        if not dry_run:
            raise
        click.echo(f"note: whether {repository} holds what would be replaced was not looked up: {error}", err=True)
    _print(planned, stderr=not dry_run)
    if dry_run:
        return
    if not yes and not _agreed(planned):
        click.echo("Nothing was uploaded.", err=True)
        raise SystemExit(1)
    click.echo(upload(planned))


def _agreed(planned: Push) -> bool:
    seen_by = "only its owner can see" if planned.private else "EVERYBODY can see"
    deleting = f", and delete {_files(len(planned.deleted))} there" if planned.deleted else ""
    try:
        return click.confirm(f"Upload to {planned.repository}, which {seen_by}{deleting}?", default=False, err=True)
    except click.Abort:
        raise ConfigError("nobody answered, and nothing was uploaded: give --yes where nobody can.") from None


def _print(planned: Push, *, stderr: bool) -> None:
    from rich.filesize import decimal

    sizes = planned.sizes
    width = max(map(len, [*sizes, *planned.deleted]))
    kind = "private" if planned.private else "public"
    click.echo(f"{planned.repository} ({kind}): {_files(len(sizes))}, {decimal(sum(sizes.values()))}", err=stderr)
    for name, size in sizes.items():
        click.echo(f"  {name:<{width}}  {decimal(size):>9}", err=stderr)
    for name in planned.deleted:
        click.echo(f"  {name:<{width}}  deleted there", err=stderr)
    for note in planned.notes:
        click.echo(f"note: {note}", err=stderr)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
