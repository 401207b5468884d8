"""Merge bunches of 135M and 1.1B parameters: against a raw copy of the same bytes, and against mergekit.

    python benchmarks/merge.py [--sizes 135m,1.1b] [--methods ties,sce] [--identity] [--write]

For each method, on random checkpoints (a base and three experts), in turns so that all meet the same machine:

- raw copy: read every input of the merge through one reused buffer and write as many bytes as the output has, with
  fsync as our merge does; timed inside its process, from the first open to the end of fsync;
- ours: `unspoiled merge`, the whole process;
- beyond: that less the whole process of the same recipe on checkpoints with nothing in them, so what remains is due to
  the size of the models: reading, merging, writing;
- mergekit: `mergekit-yaml` on the same recipe, the whole process, in an environment of its own.

Times are the best of `--repeat` (mergekit: of `--mergekit-repeat`), with the inputs in the page cache and earlier
writes on the disk. Private memory is anonymous and shared memory, read every 10 ms; resident memory has mapped files
too. `above idle` is private memory less that of an idle interpreter that has imported torch, against `--memory`.
`threads` says whether the weights are equal byte by byte at the numbers of threads of `--identity`.
Exits 1 if a target is missed or one of our merges fails. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from measured_process import CommandError, Usage, measure, memory_of
from merge_recipes import inputs, write_recipe
from merge_results import TARGETS, Grid, Row, memory_grid, start_grid, time_grid
from mergekit_environment import DEFAULT, mergekit_command, mergekit_python
from random_bunch import SIZES, TINY, write_random_bunch

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "merge.md"
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Setting:
    """How everything is run.

    Attributes:
        work: The directory of the bunches and outputs.
        options: What `unspoiled merge` gets besides recipe and output.
        repeat: Times that the raw copy and our merges run.
        mergekit: The path of `mergekit-yaml`; None to leave it out.
        mergekit_repeat: Times that mergekit runs.
        interpreter: Private memory of an idle interpreter with torch, in bytes.
        limit: `--memory` in bytes.
        threads: The numbers of threads whose outputs are compared.
    """

    work: Path
    options: tuple[str, ...]
    repeat: int
    mergekit: Path | None
    mergekit_repeat: int
    interpreter: int
    limit: int
    threads: tuple[int, ...]


def main() -> None:
    """Parse the arguments, make the bunches, measure, print, write."""
    arguments = _arguments()
    python = None if arguments.without_mergekit else mergekit_python(arguments.mergekit)
    options: tuple[str, ...] = ("--memory", arguments.memory)
    if arguments.threads:
        options += ("--threads", str(arguments.threads))
    with _work_directory(arguments.at, arguments.keep) as work:
        setting = Setting(
            work=work,
            options=options,
            repeat=arguments.repeat,
            mergekit=None if python is None else Path(mergekit_command(python, "mergekit-yaml")),
            mergekit_repeat=arguments.mergekit_repeat,
            interpreter=_interpreter(work),
            limit=_bytes(arguments.memory),
            threads=arguments.identity,
        )
        write_random_bunch(work / "tiny", TINY)
        for size in arguments.sizes:
            if not (work / size).exists():
                _say(f"writing the {size} bunch")
            write_random_bunch(work / size, SIZES[size])
        start_up = _start_up(setting)
        their_methods = arguments.mergekit_methods or arguments.methods
        machine = _machine(python)
        rows: list[Row] = []
        for size, method in product(arguments.sizes, arguments.methods):
            rows.append(_row(setting if method in their_methods else replace(setting, mergekit=None), method, size))
            if arguments.write:  # after each row, so that a run that is stopped leaves what it has measured
                _write(_grids(start_up, rows), rows, machine, start_up, arguments)
    grids = _grids(start_up, rows)
    _print(grids, rows, machine)
    sys.exit(not all(grid.holds for grid in grids))


def _grids(start_up: dict[str, float], rows: Sequence[Row]) -> list[Grid]:
    sizes = dict.fromkeys(row.size for row in rows)
    return [
        start_grid(start_up),
        *(grid for size in sizes for grid in (time_grid(rows, size), memory_grid(rows, size))),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    some = _list_of(TARGETS, "method")
    parser.add_argument("--methods", type=some, default=list(TARGETS), help="(default: all)")
    parser.add_argument("--sizes", type=_list_of(SIZES, "size"), default=list(SIZES), help="(default: all)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of the raw copy and of ours, the best counts")
    parser.add_argument("--threads", type=int, help="tensors in flight in our merges (default: the tool's)")
    parser.add_argument("--memory", default="1GiB", help="what our merges may take (default: 1GiB)")
    parser.add_argument(
        "--identity",
        type=_numbers,
        nargs="?",
        const=(1, 2, 4),
        default=(),
        metavar="1,2,4",
        help="also compare the bytes of the outputs of these numbers of threads",
    )
    parser.add_argument("--mergekit", type=Path, default=DEFAULT, help="the directory of mergekit's environment")
    parser.add_argument("--without-mergekit", action="store_true")
    parser.add_argument("--mergekit-methods", type=some, help="those that mergekit runs too (default: all)")
    parser.add_argument("--mergekit-repeat", type=int, default=1)
    parser.add_argument("--at", type=Path, default=Path(), help="where the work directory is made (default: here)")
    parser.add_argument("--keep", action="store_true", help="keep the bunches, 10 GB, and use those of an earlier run")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and its .json into docs/benchmarks")
    arguments = parser.parse_args()
    if not re.fullmatch(rf"[0-9.]+({'|'.join(UNITS)})", arguments.memory):
        parser.error(f"--memory {arguments.memory!r} is not a number with one of {', '.join(filter(None, UNITS))}")
    return arguments


def _list_of(known: Sequence[str] | dict[str, Any], kind: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {kind} {unknown[0]!r} here; there are {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4") from None


@contextmanager
def _work_directory(at: Path, keep: bool) -> Iterator[Path]:
    """Give a directory on the disk of `at`, with a name of its own where it is to be kept."""
    if keep:
        work = at.resolve() / "merge-benchmark"
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory(dir=at, prefix="merge-benchmark-") as directory:
        yield Path(directory).resolve()


def _row(setting: Setting, method: str, size: str) -> Row:
    """Measure one method on one bunch."""
    bunch, tiny = setting.work / size, setting.work / "tiny"
    recipe = write_recipe(bunch, method).name
    write_recipe(tiny, method)
    files = [bunch / name / "model.safetensors" for name in inputs(method)]
    raw, start_up, ours, theirs = [], [], [], []
    failures: dict[str, str] = {}
    identical = True
    _raw_copy(bunch, files)  # brings the inputs into the page cache
    for _ in range(setting.repeat):
        raw.append(_raw_copy(bunch, files))
        if "ours" not in failures:
            try:
                start_up.append(_merged(_our_command(recipe, setting.options), tiny).seconds)
                ours.append(_merged(_our_command(recipe, setting.options), bunch))
            except CommandError as error:
                failures["ours"] = str(error)
    for _ in range(setting.mergekit_repeat if setting.mergekit else 0):
        try:
            theirs.append(_merged(_their_command(setting.mergekit, recipe), bunch))
        except CommandError as error:
            failures["mergekit"] = str(error)
            break
    if setting.threads and "ours" not in failures:
        try:
            identical = _identical(setting, recipe, bunch)
        except CommandError as error:
            failures["ours"] = str(error)
    for tool, failure in failures.items():
        _say(f"{size} {method}, {tool}: {failure}")
    row = Row(
        method=method,
        size=size,
        inputs=len(files),
        raw=tuple(raw),
        start_up=tuple(start_up),
        ours=() if "ours" in failures else tuple(ours),
        mergekit=tuple(theirs),
        interpreter=setting.interpreter,
        limit=setting.limit,
        threads=() if "ours" in failures else setting.threads,
        identical=identical,
        failures=tuple(failures),
    )
    _say(f"{size} {method}: raw copy {_times(raw)}, ours {_times([usage.seconds for usage in ours])}, "
         f"mergekit {_times([usage.seconds for usage in theirs])}")  # fmt: skip
    return row


def _our_command(recipe: str, options: Sequence[str]) -> list[str | Path]:
    return [sys.executable, "-m", "unspoiled", "merge", recipe, "out", "--quiet", *options]


def _their_command(program: Path | None, recipe: str) -> list[str | Path]:
    assert program is not None
    return [program, recipe, "out", "--quiet", "--no-write-model-card"]  # the card asks the hub for every name


def _merged(command: Sequence[str | Path], bunch: Path) -> Usage:
    """Run a merge in the bunch's directory into `out`, which is removed again."""
    _settle(bunch)
    try:
        return measure(command, cwd=bunch, environment=_environment(ours=command[0] == sys.executable))
    finally:
        _settle(bunch)


def _settle(bunch: Path) -> None:
    """Leave no output, and no writes that the next measurement would wait for."""
    shutil.rmtree(bunch / "out", ignore_errors=True)
    os.sync()


def _environment(*, ours: bool) -> dict[str, str]:
    variables = dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
    if not ours:  # mergekit has packages of its own
        variables.pop("PYTHONPATH", None)
    return variables


def _raw_copy(bunch: Path, files: Sequence[Path]) -> float:
    out = bunch / "raw-copy"
    os.sync()
    try:
        return float(measure([sys.executable, Path(__file__).with_name("raw_copy.py"), out, *files], cwd=bunch).output)
    finally:
        out.unlink(missing_ok=True)


def _identical(setting: Setting, recipe: str, bunch: Path) -> bool:
    """Merge with every number of threads, and compare the hashes of the weights."""
    hashes = set()
    for threads in setting.threads:
        _settle(bunch)
        command = _our_command(recipe, (*setting.options, "--threads", str(threads)))  # the last one counts
        measure(command, cwd=bunch, environment=_environment(ours=True))
        digest = hashlib.sha256()
        for path in sorted((bunch / "out").glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        hashes.add(digest.hexdigest())
    _settle(bunch)
    return len(hashes) == 1


def _start_up(setting: Setting) -> dict[str, float]:
    """Return the seconds of each tool's `--help`, the best of the repeats."""
    commands: dict[str, list[str | Path]] = {"unspoiled --help": [sys.executable, "-m", "unspoiled", "--help"]}
    if setting.mergekit is not None:
        commands["mergekit-yaml --help"] = [setting.mergekit, "--help"]
    return {
        name: min(
            measure(command, cwd=setting.work, environment=_environment(ours=name.startswith("unspoiled"))).seconds
            for _ in range(setting.repeat)
        )
        for name, command in commands.items()
    }


def _interpreter(work: Path) -> int:
    """Return the private memory of an interpreter that has imported torch and does nothing, in bytes."""
    code = "import torch; print(open('/proc/self/status').read())"
    fields = memory_of(measure([sys.executable, "-c", code], cwd=work).output)
    return fields["RssAnon"] + fields["RssShmem"]


def _bytes(text: str) -> int:
    number = text.rstrip("".join(UNITS))
    return int(float(number) * UNITS[text.removeprefix(number)])


def _machine(python: Path | None) -> str:
    """Describe what it ran on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = memory_of(Path("/proc/meminfo").read_text())["MemTotal"] / 2**30
    parts = [
        f"{len(os.sched_getaffinity(0))} processors ({model.group(1) if model else platform.machine()})",
        f"{memory:.0f} GiB of memory",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
    ]
    if python is not None:
        asked = (
            "from importlib.metadata import version as v; print(f\"mergekit {v('mergekit')} on torch {v('torch')}\")"
        )
        parts.append(subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip())
    return ", ".join(parts)


def _print(grids: Sequence[Grid], rows: Sequence[Row], machine: str) -> None:
    console = Console(highlight=False)
    for grid in grids:
        console.print(grid.rich())
    console.print(f"An idle interpreter with torch: {rows[0].interpreter / 2**30:.2f} GiB private.")
    console.print(machine)


def _write(
    grids: Sequence[Grid],
    rows: Sequence[Row],
    machine: str,
    start_up: dict[str, float],
    arguments: argparse.Namespace,
) -> None:
    command = f"python benchmarks/merge.py --repeat {arguments.repeat} --memory {arguments.memory}"
    if arguments.threads:
        command += f" --threads {arguments.threads}"
    if arguments.identity:
        command += f" --identity {','.join(map(str, arguments.identity))}"
    if arguments.without_mergekit:
        command += " --without-mergekit"
    elif arguments.mergekit_repeat > 1:
        command += f" --mergekit-repeat {arguments.mergekit_repeat}"
    for option, names, every in (
        ("methods", arguments.methods, TARGETS),
        ("sizes", arguments.sizes, SIZES),
        ("mergekit-methods", arguments.mergekit_methods, TARGETS),
    ):
        if names and names != list(every):
            command += f" --{option} {','.join(names)}"
    assert __doc__ is not None
    how = __doc__.split("\n\n", 2)[2].replace("Exits 1 if a target is missed or one of our merges fails. ", "")
    parts = [
        "# Speed and memory of merging",
        f"`{command} --write` made this page on {machine}.",
        how.strip(),
        "A ratio with a target is followed by it; a missed one is bold.",
        *(grid.markdown() for grid in grids),
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    record = {"command": command, "machine": machine, "start_up": start_up, "rows": [_recorded(row) for row in rows]}
    PAGE.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _recorded(row: Row) -> dict[str, Any]:
    """Return a row for the record, without what the processes printed."""
    fields = asdict(row)
    for usage in [*fields["ours"], *fields["mergekit"]]:
        del usage["output"]
    return fields


def _times(seconds: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in seconds) or "–"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
