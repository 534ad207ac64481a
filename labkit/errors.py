"""Errors in the user's words: what was given, what is wanted, what to type next."""

import difflib
from collections.abc import Collection


class LabkitError(Exception):
    """Base of every error labkit raises on purpose; the command line prints its text and nothing else."""

    exit_code = 1


class InputError(LabkitError, ValueError):
    """Something the user gave cannot be used. Raised before any work starts."""

    exit_code = 2


class ConfigError(InputError):
    """A config field that does not exist, or a value it does not allow."""


class DataError(LabkitError):
    """A dataset is missing, damaged, or needs a registration. The text holds the command that mends it."""

    exit_code = 2


class RunError(LabkitError):
    """A run directory cannot be read or written, or belongs to another experiment."""


def nearest(name: str, known: Collection[str]) -> str:
    """What `name` may have been meant to be, as "one, two or three"; all that is known where nothing is near."""
    *others, last = difflib.get_close_matches(name, known) or sorted(known) or ["nothing: there is none"]
    return f"{', '.join(others)} or {last}" if others else last
