"""Files that survive a crash: atomic writes, hashes, JSONL logs, locks and staged directories.

A process can be killed between any two instructions. What this module publishes is therefore either
absent, the old version, or the new version, never a mixture.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from unspoiled.errors import DataError, ResourceError, RunDirectoryError

MANIFEST_NAME = "unspoiled.json"
"""The completion manifest: the last file written into a directory that we publish, and proof that we did."""


# --- single files -----------------------------------------------------------------------------------------


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` with `content` (text as UTF-8) so that a reader sees the old file or the new one.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and are renamed over
    `path`; the directory is flushed as well, so that the rename survives a power loss.
    """
    data = content.encode() if isinstance(content, str) else content
    with replaced_when_whole(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """Give the path of an empty temporary file in `path`'s directory; what is in it at the end replaces `path`.

    It is flushed to the disk before. After an exception it is removed, and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers (safetensors) make their file readable by the owner alone
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json_atomic(path: Path, value: object) -> None:
    """Write `value` as indented JSON with a final newline, atomically; NaN and Inf raise `ValueError`."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl_atomic(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as JSON lines, all or nothing."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fsync_directory(directory: Path) -> None:
    """Flush a directory's entries (names, not contents) to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_value(value: object) -> str:
    """Return the SHA-256, in hex, of a JSON value's canonical form.

    Key order doesn't matter; `1` and `1.0` differ. NaN and Inf raise `ValueError`, values that JSON doesn't
    have raise `TypeError`: neither has a canonical form.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# --- JSONL logs -------------------------------------------------------------------------------------------


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append `rows` to a JSONL file, one per line, and flush them to the disk before returning.

    Raises:
        DataError: the file ends in a torn record, onto which the first row would be glued.
    """
    block = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    created = not path.exists()
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                raise DataError(
                    f"{path}: the last record is torn (no newline at byte {size}), so nothing can be "
                    "appended. "
                    "Read the file with `repaired` first, or delete its last line."
                )
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if created:
        fsync_directory(path.parent)


def read_jsonl(path: Path, *, repaired: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Read a JSONL file of objects; blank lines are skipped.

    Args:
        path: The file.
        repaired: For logs that we write ourselves: cut off a torn last record (a line without its newline, or
            the last line when it isn't JSON), as a killed process leaves it, and say so by calling this. A bad
            line anywhere else is damage, not a torn write, and always raises.

    Raises:
        DataError: a line is not a JSON object; the message names file and line.
    """
    data = path.read_bytes()
    lines = data.split(b"\n")
    tail_is_torn = lines[-1] != b""  # what follows the last newline
    if not tail_is_torn:
        lines.pop()
    rows: list[dict[str, Any]] = []
    start = 0
    for number, line in enumerate(lines, start=1):
        is_last = number == len(lines)
        if line.strip():
            row = _parse_object(line)
            if repaired is not None and is_last and (row is None or tail_is_torn):
                _truncate(path, start)
                left = f"of {len(data) - start} bytes, left by a process that was killed"
                repaired(f"{path}:{number}: removed a torn last record {left}")
                break
            if row is None:
                raise DataError(f"{path}:{number}: not a JSON object: {_excerpt(line)}. Correct or remove this line.")
            rows.append(row)
        start += len(line) + 1
    return rows


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _excerpt(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _truncate(path: Path, size: int) -> None:
    with path.open("rb+") as file:
        file.truncate(size)
        os.fsync(file.fileno())


Record = TypeVar("Record")
Item = TypeVar("Item")


class KeyedLog(Generic[Record]):
    """A JSONL log of records, each found again by its key, so that what a killed process had worked out stays.

    It is read at first use. One process at a time may have it open (`RunLock`); in one process several may append to a
    file, each with keys of its own.

    Args:
        path: The file; made when the first record is kept.
        kind: What a record is, for messages, such as "score".
        write: Returns a record's values as JSON holds them; `key` is taken.
        read: Returns the record of such values; raises KeyError or TypeError if they make none.
        note: Called with what the user should know, such as that a torn record was removed.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str,
        write: Callable[[Record], Mapping[str, Any]],
        read: Callable[[Mapping[str, Any]], Record],
        note: Callable[[str], None],
    ) -> None:
        self._path, self._kind = path, kind
        self._write, self._read, self._note = write, read, note

    @cached_property
    def records(self) -> dict[str, Record]:
        """What is kept, by key.

        Raises:
            DataError: The log is damaged; the message names the line.
        """
        rows = read_jsonl(self._path, repaired=self._note) if self._path.exists() else []
        found = {}
        for number, row in enumerate(rows, start=1):
            try:
                found[str(row["key"])] = self._read(row)
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"{self._path}:{number}: no {self._kind} of ours ({type(error).__name__}: {error}). Remove the "
                    "line, or the file to have everything in it made anew."
                ) from error
        return found

    def keep(self, found: Mapping[str, Record]) -> None:
        """Put records on the disk, and among `records`."""
        append_jsonl(self._path, [{"key": key, **self._write(record)} for key, record in found.items()])
        self.records.update(found)

    def complete(
        self,
        items: Mapping[str, Item],
        work: Callable[[list[Item]], Sequence[Record]],
        *,
        at_once: int,
        progress: Callable[[int], None],
    ) -> None:
        """Work out the records of the items, by key, that aren't there.

        Args:
            items: What to work on, by key.
            work: Returns one record per item, in order.
            at_once: So many between two writes.
            progress: Called after each write with how many of the items are left.
        """
        missing = [key for key in items if key not in self.records]
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            self.keep(dict(zip(some, work([items[key] for key in some]), strict=True)))
            progress(len(missing) - start - len(some))


# --- one process per directory ----------------------------------------------------------------------------


class RunLock:
    """Hold a directory for this process; the kernel lets go of it when the process dies, however it dies.

    ```python
    with RunLock(run_directory):
        ...
    ```

    Raises:
        RunDirectoryError: on entry, if another process holds the directory; the message names its PID.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "run.lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(descriptor):
            os.close(descriptor)
            raise RunDirectoryError(
                f"{self.path.parent} is in use by process {self._holder()}. "
                "Wait for it to end, stop it, or use another run directory."
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two processes lock two different files of the same name.
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> str:
        for _ in range(20):  # the holder may be between taking the lock and writing its PID
            if text := self.path.read_text().strip():
                return text
            time.sleep(0.01)
        return "(PID unknown)"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- directories published by rename ----------------------------------------------------------------------


@contextmanager
def staged_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty directory beside `destination` that becomes `destination` on a clean exit.

    Everything in it is flushed to the disk and published by rename; on an exception it is removed. A process
    killed at any moment leaves `destination` absent, or the old or the new version complete; what it leaves
    beside it is swept the next time. An existing `destination` is replaced if it is empty or ours.

    Raises:
        RunDirectoryError: `destination` exists and holds files without our manifest (`unspoiled.json`).
    """
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    _refuse_foreign(destination)
    staging, descriptor = _make_locked_directory(destination, "staging")
    try:
        yield staging
        _fsync_tree(staging)
        _publish(staging, destination)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def check_free_space(directory: Path, needed_bytes: int) -> None:
    """Raise `ResourceError` unless the file system of `directory` (which may not exist yet) has room."""
    free = free_bytes(directory)
    if free < needed_bytes:
        raise ResourceError(
            f"{directory}: {needed_bytes / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free. "
            f"Free {(needed_bytes - free) / 1e9:.2f} GB or choose a directory on another disk."
        )


def free_bytes(directory: Path) -> int:
    """Return the bytes that this user can still write below `directory`, which may not exist yet."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _refuse_foreign(destination: Path) -> None:
    if not os.path.lexists(destination):
        return
    if destination.is_symlink() or not destination.is_dir():
        raise RunDirectoryError(f"{destination} exists and is not a directory. Choose another output path.")
    names = sorted(entry.name for entry in destination.iterdir())
    if names and MANIFEST_NAME not in names:
        raise RunDirectoryError(
            f"{destination} holds files that unspoiled did not write (it has no {MANIFEST_NAME}; found "
            f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}). Choose another output path, or "
            "empty it."
        )


@contextmanager
def scratch_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty directory beside `destination` for what is needed on the way to it, and remove it afterwards.

    One that a killed process left is swept when `destination` is written the next time.

    Raises:
        RunDirectoryError: `destination` is not to be replaced; see `staged_directory`.
    """
    destination = destination.absolute()
    _refuse_foreign(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    scratch, descriptor = _make_locked_directory(destination, "staging")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def _make_locked_directory(destination: Path, kind: str) -> tuple[Path, int]:
    """Create `.NAME.KIND-PID-RANDOM` and lock it, so that others know it is alive while we are."""
    while True:
        path = destination.with_name(f".{destination.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            locked = _try_lock(descriptor)
        except OSError as error:  # a file system without locks: nobody can sweep there either
            locked = error.errno in _NO_LOCKS
        if locked and path.exists():
            return path, descriptor
        os.close(descriptor)  # a sweeping process took it between mkdir and lock


_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def _publish(staging: Path, destination: Path) -> None:
    aside: Path | None = None
    descriptor: int | None = None
    try:
        if destination.exists():
            _refuse_foreign(destination)  # it may have appeared while we worked
            descriptor = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _try_lock(descriptor)  # tells a sweeping process that its owner lives
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            aside = destination.with_name(f".{destination.name}.old-{os.getpid()}-{secrets.token_hex(4)}")
            destination.rename(aside)
        try:
            staging.rename(destination)
        except BaseException:
            if aside is not None:
                aside.rename(destination)
            raise
        fsync_directory(destination.parent)
        if aside is not None:
            (aside / MANIFEST_NAME).unlink(missing_ok=True)  # half removed, it must not look complete
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _sweep(destination: Path) -> None:
    """Clear up after dead processes: restore an old version that lost its place, remove the rest."""
    for path in sorted(destination.parent.glob(f"{_glob_escape('.' + destination.name)}.old-*")):
        if _is_abandoned(path):
            if not os.path.lexists(destination) and (path / MANIFEST_NAME).exists():
                path.rename(destination)
            else:
                shutil.rmtree(path, ignore_errors=True)
    for path in destination.parent.glob(f"{_glob_escape('.' + destination.name)}.staging-*"):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def _glob_escape(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _is_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return _try_lock(descriptor)
    except OSError:
        return False  # can't tell: leave it
    finally:
        os.close(descriptor)


def _fsync_tree(directory: Path) -> None:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(Path(parent))
