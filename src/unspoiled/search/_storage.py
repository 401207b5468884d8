"""The database of a study: opened, made fast, and its errors in our words."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unspoiled.errors import SearchError

_BUSY_SECONDS = 60.0  # how long a write waits for the dashboard, which reads the same file


def require_storage(url: str) -> None:
    """Check that a URL can be one of a study's database, without connecting to it.

    Raises:
        SearchError: It can't, or the database's driver is not installed.
    """
    with storage_errors(url):
        _parsed(url).get_dialect().import_dbapi()


def open_storage(url: str) -> Any:
    """Return an Optuna `RDBStorage`.

    An SQLite file is put into write-ahead mode: a commit then costs a millisecond, not three flushes of the disk. A
    killed process loses nothing by it; a power failure may lose the last trials, and never damages the file.

    Raises:
        SearchError: The database can't be opened.
    """
    import optuna
    from sqlalchemy import event

    require_storage(url)
    with storage_errors(url):
        is_file = _parsed(url).get_backend_name() == "sqlite"
        options = {"connect_args": {"timeout": _BUSY_SECONDS}} if is_file else {"pool_pre_ping": True}
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
    if is_file:
        event.listen(storage.engine, "connect", _write_ahead)
        storage.engine.dispose()  # the connections made so far are not in that mode
    return storage


def _write_ahead(connection: Any, _: object) -> None:
    try:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode == "wal":  # some file systems can't
            connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error:
        pass  # whatever is wrong with the file, the next statement says so


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Say in our words that the database can't be read or written."""
    import optuna
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise SearchError(
            f"the driver of {shown(url)} is not installed ({error.__cause__ or error}). Install it: "
            "`pip install 'psycopg[binary]'` for postgresql+psycopg, `pip install pymysql` for mysql+pymysql."
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise SearchError(
            f"{shown(url)} is no URL of a database ({error}). Write it as sqlite:///PATH, "
            "postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE or mysql+pymysql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise SearchError(
            f"the study in {shown(url)} can't be read or written ({reason}). Free some space if the disk is full; see "
            "that the server runs and the password is right if it is a server. Remove the file if it is damaged: "
            "its trials are then made again."
        ) from error
    except optuna.exceptions.UpdateFinishedTrialError as error:
        raise SearchError(
            f"another process has ended a trial of the study in {shown(url)} that this one was at work on. See that "
            "only one searches it, and run the same command again: it continues from what is recorded."
        ) from error
    except KeyError as error:
        raise SearchError(
            f"the study in {shown(url)} lacks a record that was there before ({error}): it was deleted, or is not "
            "one of ours. Run the same command again to search anew."
        ) from error
    except RuntimeError as error:  # Optuna's word for tables of another version
        raise SearchError(f"the study in {shown(url)} can't be opened: {error}") from error


def shown(url: str) -> str:
    """Return a storage URL without its password."""
    from sqlalchemy.exc import ArgumentError

    try:
        return str(_parsed(url).render_as_string(hide_password=True))
    except ArgumentError:
        return repr(re.sub(r"//[^/]*@", "//***@", url))


def _parsed(url: str) -> Any:
    """Return SQLAlchemy's form of a URL; whatever it can't read is an `ArgumentError`."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except ValueError as error:  # of a port that is no number
        raise ArgumentError(str(error)) from error


def sqlite_url(path: Path) -> str:
    """Return the storage URL of an SQLite file, whatever is in its path.

    SQLAlchemy reads `?` and `%` in a URL as signs of its own, and Optuna takes `{...}` for a gap to fill.
    """
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    return url.replace("{", "{{").replace("}", "}}")
