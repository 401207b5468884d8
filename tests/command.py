"""The command line as tests call it: in this process, or in one of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def unspoiled(*arguments: str | Path) -> Finished:
    """Run a command in this process, where a warning is an error."""
    from unspoiled.cli import main

    out, err, code = StringIO(), StringIO(), 0
    argv = ["unspoiled", *map(str, arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


def unspoiled_process(*arguments: str | Path, cwd: Path) -> Finished:
    """Run a command in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "unspoiled", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment(),
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process of its own, and see to its end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits it if it is ignored, as
    process = subprocess.Popen(  # it is where a script runs the tests in the background
        [sys.executable, "-m", "unspoiled", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def environment() -> dict[str, str]:
    """Return this process's environment, one thread as it has, with the package's path."""
    import unspoiled

    source = str(Path(unspoiled.__file__).parents[1])
    path = os.pathsep.join([source, str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
