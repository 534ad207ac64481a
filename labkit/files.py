"""Files that a crash leaves whole."""

import contextlib
import os
import threading
from pathlib import Path


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
