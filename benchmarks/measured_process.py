"""Run a command and say how long it took and how much memory it held, for the benchmarks.

Linux only: the memory is read from `/proc/PID/status`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY = 0.01  # seconds between two looks; one costs about 30 µs, so the command is hardly slowed
_LOOKS_PER_TREE = 20  # a look for new child processes costs more, and they live longer
_SHOWN = 2000  # characters of a failed command's output


@dataclass(frozen=True)
class Usage:
    """What a process and its children took.

    Attributes:
        seconds: From before the process started until it had ended.
        private: Largest sum of anonymous and shared memory that was seen, in bytes; files that are mapped or cached
            don't count. Read every 10 ms, so a shorter peak can be missed.
        resident: Largest resident memory in bytes, mapped files included. Exact for a process without children.
        output: What it printed.
    """

    seconds: float
    private: int
    resident: int
    output: str


class CommandError(Exception):
    """A command that was to be measured failed; the message ends in what it printed last."""


def measure(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end and return what it took.

    Args:
        command: The program and its arguments.
        cwd: The directory that it runs in.
        environment: Its environment; this process's by default.

    Raises:
        CommandError: It exited with another status than 0.
    """
    with tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        watch = _Watch(process.pid)
        watch.start()
        try:
            process.wait()
            seconds = time.perf_counter() - start
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            watch.stop()
        printed.seek(0)
        output = printed.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise CommandError(f"{Path(command[0]).name} exited with {process.returncode}:\n{output[-_SHOWN:]}")
    return Usage(seconds, watch.private, watch.resident, output)


def memory_of(status: str) -> dict[str, int]:
    """Return the memory fields of the text of a `/proc/PID/status`, in bytes: VmRSS, VmHWM, RssAnon, RssShmem ..."""
    fields = (line.split() for line in status.splitlines() if line.endswith(" kB"))
    return {name.removesuffix(":"): int(value) * 1024 for name, value, _ in fields}


class _Watch(threading.Thread):
    """Looks at a process tree's memory until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.private = 0
        self.resident = 0
        self._pid = pid
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        looks, pids = 0, [self._pid]
        while not self._stopped.is_set():
            if looks % _LOOKS_PER_TREE == 0:
                pids = _tree(self._pid)
            looks += 1
            held = [memory_of(_read(f"/proc/{pid}/status")) for pid in pids]
            now = sum(fields.get("VmRSS", 0) for fields in held)
            peaks = [fields.get("VmHWM", 0) for fields in held]  # kept by the kernel: none is missed between two looks
            self.resident = max(self.resident, now, *peaks)
            self.private = max(self.private, sum(f.get("RssAnon", 0) + f.get("RssShmem", 0) for f in held))
            self._stopped.wait(_EVERY)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # grows meanwhile
        try:
            tasks = os.listdir(f"/proc/{parent}/task")  # noqa: PTH208 (called often)
        except OSError:
            continue
        for task in tasks:
            found.extend(int(child) for child in _read(f"/proc/{parent}/task/{task}/children").split())
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # the process has ended
        return ""
