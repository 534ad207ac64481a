"""The command line, one file per command. What takes time to import is imported by the command that needs it."""

from labkit.cli.app import main

__all__ = ["main"]
