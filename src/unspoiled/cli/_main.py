"""The commands: argument parsing and printing, nothing else."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unspoiled import __version__
from unspoiled.cli._audit import audit
from unspoiled.cli._evaluate import evaluate
from unspoiled.cli._guards import guards
from unspoiled.cli._push import push
from unspoiled.cli._reports import compare, report
from unspoiled.cli._size import size
from unspoiled.cli._stages import QUIET, check, generate, run, search, shown
from unspoiled.errors import ResourceError, UnspoiledError

if TYPE_CHECKING:
    from unspoiled.config import Dtype
    from unspoiled.inference import StatisticsKind

_DTYPE = click.Choice(["float32", "bfloat16", "float16"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="unspoiled")
def cli() -> None:
    """Merge fine-tuned language models into one that keeps each expert's skill and refuses what it should.

    Start with `unspoiled init run.yaml`, edit it, then `unspoiled run run.yaml`.
    """


for _command in (run, check, generate, search, evaluate, audit, report, compare, push, guards):
    cli.add_command(_command)


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--dtype", type=_DTYPE, help="Of the weights written. Default: the recipe's, else the base's.")
@click.option("--shard-size", type=size, metavar="SIZE", default="5GB", show_default=True, help="Largest weight file.")
@click.option(
    "--memory", type=size, metavar="SIZE", default="2GiB", show_default=True, help="What tensors at work may take."
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Tensors at work at a time. Default: one a processor; one on a GPU."
)
@click.option("--device", default="cpu", show_default=True, help="Where to merge: cpu, cuda or cuda:N.")
@QUIET
def merge(
    recipe: Path,
    out: Path,
    dtype: Dtype | None,
    shard_size: int,
    memory: int,
    threads: int | None,
    device: str,
    quiet: bool,
) -> None:
    """Merge by a mergekit RECIPE (YAML) into the directory OUT.

    Relative model paths are relative to the recipe's directory. A file of several
    recipes, separated by ---, is merged stage by stage.
    """
    from unspoiled.cli._console import ConsoleWatcher
    from unspoiled.config import read_recipes
    from unspoiled.merging import merge_stages

    *earlier, last = read_recipes(recipe)
    if dtype is not None:
        last = last.model_copy(update={"out_dtype": dtype})
    watcher = ConsoleWatcher(quiet=quiet)
    watcher.begin("merge")
    try:
        with _all_or_nothing("lower --memory or --threads"):
            notes = merge_stages(
                [*earlier, last],
                recipe.resolve().parent,
                out,
                shard_size=shard_size,
                memory=memory,
                threads=threads,
                device=device,
                progress=lambda stage, done, total: watcher.advance(
                    "MB" if stage == "merge" else f"{stage}, MB", *_megabytes(done, total)
                ),
            )
    finally:
        watcher.close()
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(shown(out))


@cli.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--dtype", type=_DTYPE, help="Default: the checkpoint's.")
@QUIET
def materialize(model: str, out: Path, dtype: Dtype | None, quiet: bool) -> None:
    """Write MODEL (`checkpoint+adapter`) as a full checkpoint into the directory OUT."""
    from unspoiled.merging import materialize as write

    with _all_or_nothing("close other programs"):
        _with_progress("materialize", quiet, lambda report: write(model, out, dtype=dtype, progress=report))
    click.echo(shown(out))


@cli.command(name="extract-lora")
@click.argument("model")
@click.argument("base")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--rank", type=click.IntRange(min=1), required=True, help="Rank of the adapter.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only tensors of such names, as '*.self_attn.*'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No tensors of such names.")
@click.option("--dtype", type=_DTYPE, default="float32", show_default=True)
@click.option(
    "--ignore-other-tensors",
    is_flag=True,
    help="Leave out what differs and can't be in a LoRA: norms, biases, tied or resized embeddings.",
)
@QUIET
def extract_lora(
    model: str,
    base: str,
    out: Path,
    rank: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dtype: Dtype,
    ignore_other_tensors: bool,
    quiet: bool,
) -> None:
    """Write what MODEL adds to BASE as a PEFT LoRA adapter into the directory OUT."""
    from unspoiled.cli._extraction import print_extraction
    from unspoiled.merging import Extraction
    from unspoiled.merging import extract_lora as extract

    found: list[Extraction] = []
    with _all_or_nothing("close other programs"):
        _with_progress(
            "extract",
            quiet,
            lambda report: found.append(
                extract(
                    model,
                    base,
                    out,
                    rank=rank,
                    include=include,
                    exclude=exclude,
                    dtype=dtype,
                    ignore_other_tensors=ignore_other_tensors,
                    progress=report,
                )
            ),
        )
    if not quiet:
        print_extraction(found[0])
    click.echo(shown(out))


@cli.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kind", type=click.Choice(["fisher", "input_gram", "importance"]), required=True)
@click.option("--base", help="The base of the expert, which `importance` scores too.")
@click.option("--device", default="cpu", show_default=True, help="A torch device.")
@QUIET
def statistics(
    model: str, data: Path, out: Path, kind: StatisticsKind, base: str | None, device: str, quiet: bool
) -> None:
    """Collect what a merge needs to know of MODEL's DATA into the file OUT.

    DATA is JSONL with a prompt and a response in each row. The kinds are for the
    methods fisher, regmean (input_gram) and led (importance).
    """
    from unspoiled.inference import write_model_statistics as write

    _with_progress(
        "statistics",
        quiet,
        lambda report: write(model, data, out, kind=kind, base=base, device=device, progress=report),
        unit="rows",
    )
    click.echo(shown(out))


@cli.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="run.yaml")
def init(path: Path) -> None:
    """Write a commented starter config to PATH, and its JSON schema beside it."""
    from unspoiled.config import write_starter

    for written in write_starter(path):
        click.echo(shown(written))


def main() -> None:
    """Run the command line; exit codes are in `unspoiled.errors`, 130 for Ctrl-C."""
    try:
        cli.main(standalone_mode=False)
    except UnspoiledError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = " What is done is kept: free some space and run the same command again." if full else ""
        click.echo(f"Error: {error.filename or 'a file'}: {error.strerror or error}.{advice}", err=True)
        sys.exit(ResourceError.exit_code if full else 1)
    except (KeyboardInterrupt, click.Abort):  # Abort is a RuntimeError: before those
        click.echo("\nStopped. What is done is kept: run the same command again to continue.", err=True)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        click.echo(
            f"Error: memory ran out ({str(error).partition('. ')[0] or 'MemoryError'}). What is done is kept: lower "
            "runtime.batch_size or the numbers of tokens, or choose a larger device, and run the same command again.",
            err=True,
        )
        sys.exit(ResourceError.exit_code)


@contextmanager
def _all_or_nothing(relief: str) -> Iterator[None]:
    """Say what an interrupted command left that writes its product whole or not at all: nothing to continue from.

    Args:
        relief: What to do where memory ran out.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing was written.", err=True)
        sys.exit(130)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ResourceError(
            f"{error.filename or 'a file'}: {error.strerror}. Nothing was written: free some space and run the same "
            "command again."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ResourceError(
            f"memory ran out ({str(error).partition('. ')[0] or 'MemoryError'}). Nothing was written: {relief}, and "
            "run the same command again."
        ) from error


def _megabytes(done: int, total: int) -> tuple[int, int]:
    """Return how far a work of `total` bytes is, in whole MB, that are all done only when it is."""
    whole = -(-total // 10**6)
    return (whole if done >= total else done // 10**6), whole


def _is_out_of_memory(error: Exception) -> bool:
    """Tell, without a wait for torch to be imported: its error is a RuntimeError, and on the CPU a plain one."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def _with_progress(
    stage: str, quiet: bool, work: Callable[[Callable[[int, int], None]], None], *, unit: str = "tensors"
) -> None:
    from unspoiled.cli._console import ConsoleWatcher

    watcher = ConsoleWatcher(quiet=quiet)
    watcher.begin(stage)
    try:
        work(lambda done, total: watcher.advance(unit, done, total))
    finally:
        watcher.close()
