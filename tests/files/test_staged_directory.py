"""Directories published by rename, with processes killed at every step of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unspoiled.errors import RunDirectoryError
from unspoiled.files import MANIFEST_NAME, staged_directory

# A process that kills itself before its N-th call of a function that changes the disk.
VICTIM = """
import os, shutil, signal, sys
from pathlib import Path
from unspoiled import files

left = int(sys.argv[2])

def deadly(function):
    def wrapped(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **kwargs)
    return wrapped

for owner, name in ((os, "fsync"), (os, "unlink"), (os, "rmdir"), (Path, "mkdir"), (Path, "rename"),
                    (Path, "unlink"), (Path, "write_text")):
    setattr(owner, name, deadly(getattr(owner, name)))
with files.staged_directory(Path(sys.argv[1])) as staging:
    (staging / "weights").write_text("new" * 1000)
    (staging / "sub").mkdir()
    (staging / "sub" / "more").write_text("new")
    (staging / files.MANIFEST_NAME).write_text("new")
"""

NEW = {"weights": "new" * 1000, "sub/more": "new", MANIFEST_NAME: "new"}
OLD = {"weights": "old", MANIFEST_NAME: "old"}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def content(directory: Path) -> dict[str, str] | None:
    if not directory.exists():
        return None
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def make(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def publish_and_die(destination: Path, step: int) -> bool:
    """Run a process that is killed before its step of that number; tell whether it had so many."""
    process = subprocess.run([sys.executable, "-c", VICTIM, str(destination), str(step)], check=False)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


@pytest.mark.parametrize("old", [None, OLD])
def test_a_process_killed_at_any_step_leaves_absent_old_or_new(tmp_path: Path, old: dict[str, str] | None) -> None:
    published = set()
    for step in range(100):
        destination = tmp_path / str(step) / "model"
        if old:
            make(destination, old)
        if not publish_and_die(destination, step):
            break
        state = content(destination)
        assert state in (None, old, NEW)
        with pytest.raises(KeyError), staged_directory(destination):
            raise KeyError  # entering sweeps
        assert content(destination) == (NEW if state == NEW else old), "an old version lost its place for good"
        assert names(destination.parent) == ([] if content(destination) is None else ["model"])
        published.add(state == NEW)
    assert content(destination) == NEW
    assert names(destination.parent) == ["model"]
    assert published == {False, True}, "the steps before and after publishing were both tried"


def test_every_file_reaches_the_disk_before_the_directory_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        flushed.append("(renamed)")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    with staged_directory(tmp_path / "model") as staging:
        make(staging, NEW)
    before, after = flushed[: flushed.index("(renamed)")], flushed[flushed.index("(renamed)") + 1 :]
    assert set(before) == {"weights", "more", MANIFEST_NAME, "sub", staging.name}
    assert after == [tmp_path.name]


def test_replaces_what_we_wrote_and_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    make(destination, {"thesis.tex": "years of work"})
    expected = r"did not write \(it has no unspoiled.json; found thesis.tex\)"
    with pytest.raises(RunDirectoryError, match=expected), staged_directory(destination):
        raise AssertionError("refused before any work")
    assert content(destination) == {"thesis.tex": "years of work"}
    assert names(tmp_path) == ["model"]
    (destination / "thesis.tex").unlink()
    for version in ("1", "2"):  # first into the empty directory, then over our own
        with staged_directory(destination) as staging:
            make(staging, {MANIFEST_NAME: version})
    assert content(destination) == {MANIFEST_NAME: "2"}
    assert names(tmp_path) == ["model"]


def test_refuses_a_file_or_link_as_destination(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(RunDirectoryError, match="is not a directory"), staged_directory(tmp_path / name):
            pass
    assert names(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_removes_the_staging_and_keeps_the_old(tmp_path: Path, error: type[BaseException]) -> None:
    destination = tmp_path / "model"
    make(destination, OLD)
    with pytest.raises(error), staged_directory(destination) as staging:  # noqa: PT012
        make(staging, NEW)
        raise error
    assert content(destination) == OLD
    assert names(tmp_path) == ["model"]


def test_a_living_process_keeps_its_staging(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    with staged_directory(destination) as first:
        make(first, {MANIFEST_NAME: "first"})
        with staged_directory(destination) as second:
            make(second, {MANIFEST_NAME: "second"})
        assert content(first) == {MANIFEST_NAME: "first"}
    assert content(destination) == {MANIFEST_NAME: "first"}  # the last to finish wins, whole


def test_sweeps_only_what_belongs_to_this_destination(tmp_path: Path) -> None:
    for name in (".model.staging-1-ab", ".models.staging-1-ab", ".m[o]del.staging-1-ab"):
        make(tmp_path / name, {"x": "x"})
    with staged_directory(tmp_path / "model") as staging:
        make(staging, {MANIFEST_NAME: ""})
    assert names(tmp_path) == [".m[o]del.staging-1-ab", ".models.staging-1-ab", "model"]
    with staged_directory(tmp_path / "m[o]del") as staging:
        make(staging, {MANIFEST_NAME: ""})
    assert names(tmp_path) == [".models.staging-1-ab", "m[o]del", "model"]
