"""Merge in processes that are killed, the N-th before its N-th step that changes the disk, until one isn't.

`python merge_until_killed.py RECIPE OUT FIRST EVERY` kills at step FIRST, FIRST + EVERY, and so on. After each
process it prints `killed STATE` or `ended STATE`: what OUT is then, `absent`, `incomplete`, or the SHA-256 in its
manifest of the weights there; and whether what lies there is what the manifest says.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import unspoiled.cli._console
import unspoiled.merging  # noqa: F401
from unspoiled.checkpoints import read_manifest, verify_manifest
from unspoiled.cli import main
from unspoiled.errors import CheckpointError

STEPS = (
    [(os, name) for name in ("fsync", "posix_fallocate", "pwrite", "unlink", "rmdir", "rename", "replace")]
    + [(Path, name) for name in ("mkdir", "rename", "unlink", "write_text", "replace")]
)  # fmt: skip


def deadly(left: list[int], function: Any) -> Any:
    def step(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0 and threading.get_ident():
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return function(*arguments, **options)

    return step


def merge_and_die(recipe: str, out: str, step: int) -> bool:
    """Tell whether the process was killed."""
    if (child := os.fork()) == 0:
        left = [step]
        for owner, name in STEPS:
            setattr(owner, name, deadly(left, getattr(owner, name)))
        sys.argv = ["unspoiled", "merge", recipe, out, "--quiet", "--threads", "1", "--shard-size", "60KB"]
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        main()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def state(out: Path) -> str:
    if not out.exists():
        return "absent"
    try:
        verify_manifest(out)
    except CheckpointError:
        return "incomplete"
    return next(record.sha256 for name, record in read_manifest(out).files.items() if name.endswith(".safetensors"))


if __name__ == "__main__":
    recipe, out, first, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    step = first
    while merge_and_die(recipe, str(out), step):
        print("killed", state(out), len(list(out.parent.glob(f".{out.name}.*"))), flush=True)
        step += every
    print("ended", state(out), len(list(out.parent.glob(f".{out.name}.*"))), step)
    shutil.rmtree(out)
