"""Fetch one file: resumable, checked, and under its own name only when it is what was published."""

import contextlib
import fcntl
import http.client
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit.errors import DataError
from labkit.files import not_through_links

Report = Callable[[int, int], None]
"""Called as report(bytes so far, bytes in all)."""


def fetch(url: str, target: Path, sha256: str, size: int, report: Report | None = None) -> None:
    """Make `target` the file of that sha256 and size in bytes. One that is there and right is left alone.

    What arrives collects in `<target>.part`; the next attempt continues it. pooch compares the hash and renames. Of
    several callers at once one fetches, the others wait and find the file.

    Raises DataError when the connection fails, other bytes arrive, or nothing can be written; `target` stays as it was.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")  # the caller shows the progress; pooch's own lines would run through it
    part = target.with_name(target.name + ".part")
    report = report or (lambda done, total: None)

    def into(url: str, temporary: str, _: object) -> None:
        _complete(part, url, size, report)
        os.replace(part, temporary)

    try:
        if not target.is_file() or pooch.file_hash(str(target)) != sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(target.with_name(f".{target.name}.lock")):
                # looks once more whether the file is right: another caller may have been quicker
                pooch.retrieve(url, f"sha256:{sha256}", target.name, target.parent, downloader=into)
    except _Broken as error:
        kept = part.stat().st_size if part.exists() else 0
        raise DataError(
            f"Fetching {target.name} from {url} failed: {error}. {kept:,} of {size:,} bytes are kept; "
            "to go on, run the same command again."
        ) from error
    except ValueError as error:  # pooch's word for a wrong hash
        raise DataError(
            f"{url} sent other bytes than were published as {target.name} (sha256 differs). They were thrown away, and "
            "nothing else was changed. To try anew, run the same command again."
        ) from error
    except OSError as error:
        raise DataError(
            f"Cannot write {target}: {error.strerror or error}. Point LABKIT_DATA to a folder you may write to, with "
            f"{size:,} bytes free, and run the same command again."
        ) from error
    report(size, size)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One caller after another. The lock goes with the process, however that ends; its file is removed in the end."""
    while True:
        with open(lock, "w", opener=not_through_links) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_named(stream.fileno(), lock):
                continue  # the caller that we waited for has removed it: the next one locks another file
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:  # asked in one call: another caller may remove it at any moment
        return False


def _drop_link(part: Path) -> None:
    """Remove a link, or a name with a second one (a hard link): the download would overwrite the file behind it."""
    with contextlib.suppress(FileNotFoundError):
        about = part.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            part.unlink()


class _Broken(Exception):
    """The connection or the server, as against the disk: urllib reports both as OSError."""


def _complete(part: Path, url: str, size: int, report: Report) -> None:
    """Bring `part` to `size` bytes, keeping what an earlier attempt left. Contents are not judged here."""
    _drop_link(part)
    done = part.stat().st_size if part.exists() else 0
    if done == size:
        return
    with _open(url, done if done < size else 0, part) as response:
        done = done if response.status == 206 else 0  # 206 Partial Content; 200 starts from the beginning
        with open(part, "ab" if done else "wb", opener=not_through_links) as out:
            # one byte more than expected is enough to know that this is another file
            while chunk := _read(response, min(1 << 18, size + 1 - done)):
                out.write(chunk)
                done += len(chunk)
                report(done, size)
    if done > size:
        part.unlink()
        raise _Broken(f"the server sent more than the {size:,} bytes that were published")
    if done < size:
        raise _Broken(f"the connection ended after {done:,} of {size:,} bytes")


def _open(url: str, done: int, part: Path) -> http.client.HTTPResponse:
    """The response to a request for everything after the first `done` bytes."""
    headers = {"User-Agent": "labkit"} | ({"Range": f"bytes={done}-"} if done else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server's file ends before ours goes on: what we kept is of no use
            part.unlink()
        raise _Broken(f"the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"no connection ({getattr(error, 'reason', error)})") from error
    return response


def _read(response: http.client.HTTPResponse, count: int) -> bytes:
    try:
        return response.read(count)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection broke ({error})") from error
