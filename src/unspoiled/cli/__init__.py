"""The command line."""

from unspoiled.cli._main import main

__all__ = ["main"]
