"""The errors that a user can meet, each with the exit code of the command that raises it.

Every message says what is wrong (with the value), where (file, line, tensor), and what to do next.
"""

from typing import ClassVar


class UnspoiledError(Exception):
    """An error with a message written for the user; the CLI prints it without a traceback."""

    exit_code: ClassVar[int] = 1


class ConfigError(UnspoiledError):
    """A config or recipe that can't be read or doesn't make sense."""

    exit_code = 2


class CheckpointError(UnspoiledError):
    """A checkpoint, adapter or tokenizer that is damaged, unsafe to load, or not supported."""

    exit_code = 3


class PreflightError(UnspoiledError):
    """Inputs that are fine alone and don't fit together."""

    exit_code = 4


class DataError(UnspoiledError):
    """Data that can't be read, or a generation that didn't yield what the run needs."""

    exit_code = 5


class RunDirectoryError(UnspoiledError):
    """A run directory that another process holds, or that belongs to another config."""

    exit_code = 6


class ResourceError(UnspoiledError):
    """The machine lacks what was asked for: room on the disk, memory, or a GPU."""

    exit_code = 7


class SearchError(UnspoiledError):
    """A search that can't produce a result, such as one whose every trial failed."""

    exit_code = 8


class ServerError(UnspoiledError):
    """A model's server that can't be reached, refuses, or keeps failing."""

    exit_code = 9
