"""Files that a crash leaves whole."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labkit.errors import InputError


def given_path(path: str | Path, option: str) -> Path:
    """`path` as the user gave it for `option`.

    Raises:
        InputError: no file system has such a name: a NUL character in it, or more than 255 bytes.
    """
    if "\0" in str(path):
        raise InputError(f"{option}: a name holds no NUL character; got {str(path)!r}.")
    if any(len(os.fsencode(part)) > 255 for part in Path(path).parts):
        raise InputError(f"{option}: a name has 255 bytes at most; got '{str(path)[:60]}...'.")
    return Path(path)


def not_through_links(path: str, flags: int) -> int:
    """For `open(..., opener=)`: where the name is a link, an OSError, and what it leads to stays as it is."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside, sync, rename: after a crash at any moment `path` is the old file or the new one.

    Raises:
        OSError: no space, no permission...; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(beside, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


@contextlib.contextmanager
def growing(target: Path) -> Iterator[Path]:
    """A hidden file beside `target` to write piece by piece: renamed at the end, removed after an error or Ctrl-C.

    Raises:
        OSError: no space, no permission...; the old file is untouched.
    """
    beside = target.with_name(f".{target.stem[:200]}.{os.getpid()}-{threading.get_ident()}.part{target.suffix}")
    try:
        yield beside
        with open(beside, "rb") as whole:
            os.fsync(whole.fileno())
        os.replace(beside, target)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            beside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON, by `write_atomically`."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a folder beside, then rename: `target` is there with everything in it, or not at all.

    Raises:
        InputError: `target` is a file, or holds something already.
        OSError: no space, no permission...
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, and a folder is to be written. Choose another.")
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target} is not empty, and nothing is written over. Choose another folder, or empty it.")
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        beside.mkdir()
        fill(beside)
        os.replace(beside, target)  # in place of an empty folder, too
    finally:
        shutil.rmtree(beside, ignore_errors=True)
