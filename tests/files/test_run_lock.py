"""One process per run directory, proved with real processes."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unspoiled.errors import RunDirectoryError
from unspoiled.files import RunLock

HOLDER = """
import sys
from pathlib import Path
from unspoiled.files import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()  # until it is killed or the test ends
"""


def hold(directory: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_refused_with_the_pid_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "run.lock").write_text("12345678901234567890\n")  # a killed process left a longer PID
    with hold(directory) as process:
        with pytest.raises(RunDirectoryError, match=re.escape(f"{directory} is in use by process {process.pid}.")):
            RunLock(directory).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with RunLock(directory):
        pass


def test_the_lock_is_free_after_the_block_and_after_an_error_in_it(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunDirectoryError):
        RunLock(tmp_path).__enter__()
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    with RunLock(tmp_path):
        pass
