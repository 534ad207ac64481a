"""Downloads from a server on this machine that misbehaves in the ways real ones do."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labkit import paths
from labkit.data import fetching, registry
from labkit.data.fetching import fetch
from labkit.data.registry import Dataset, RemoteFile
from labkit.errors import DataError

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes: several reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` for every path. Set `cut_after` to break off, `ranges` to False to ignore Range headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut_after, self.ranges = CONTENT, None, True
        self.requests: list[str | None] = []  # the Range header of each
        self.status: int | None = None
        self.pause = 0.0  # seconds before each answer, so that callers meet
        self.cut_once = 0  # break the first answer off after so many bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted, server = self.headers["Range"], self.server
        server.requests.append(wanted)
        time.sleep(server.pause)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if server.status or start >= len(server.content):
            return self.send_error(server.status or 416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        stop, server.cut_once = server.cut_once or server.cut_after, 0
        self.wfile.write(server.content[start:stop])

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "set" / "data.bin"


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"


def left_beside(target):
    """Names in the target's folder: neither pooch's temporary file nor a stale part may stay."""
    return sorted(path.name for path in target.parent.iterdir())


def test_whole_file_arrives_with_progress(server, target):
    calls = []
    fetch(server.url, target, SHA256, len(CONTENT), lambda done, total: calls.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert left_beside(target) == ["data.bin"]
    assert calls == sorted(calls)
    assert calls[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_right_is_not_fetched_again(server, target):
    fetch(server.url, target, SHA256, len(CONTENT))
    fetch(server.url, target, SHA256, len(CONTENT))
    assert len(server.requests) == 1


def test_a_damaged_file_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    fetch(server.url, target, SHA256, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_stopped(server, target):
    server.cut_after = 300_000
    with pytest.raises(
        DataError, match=r"ended after 300,000 of 512,000 bytes\. 300,000 of 512,000 bytes are kept; to go"
    ):
        fetch(server.url, target, SHA256, len(CONTENT))
    assert left_beside(target) == ["data.bin.part"]
    server.cut_after = None
    fetch(server.url, target, SHA256, len(CONTENT))
    assert server.requests == [None, "bytes=300000-"]
    assert target.read_bytes() == CONTENT
    assert left_beside(target) == ["data.bin"]


def test_a_server_without_ranges_starts_from_the_beginning(server, target):
    server.cut_after, server.ranges = 300_000, False
    with pytest.raises(DataError):
        fetch(server.url, target, SHA256, len(CONTENT))
    server.cut_after = None
    fetch(server.url, target, SHA256, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_server(target):
    """Killed between the last byte and the renaming."""
    target.parent.mkdir()
    target.with_name("data.bin.part").write_bytes(CONTENT)
    fetch(nobody_listens(), target, SHA256, len(CONTENT))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_other_bytes_are_thrown_away_and_the_target_stays(server, target, before):
    server.content = CONTENT[::-1]
    target.parent.mkdir()
    if before:
        target.write_bytes(before)
    with pytest.raises(DataError, match=r"sent other bytes than were published as data\.bin \(sha256 differs\)"):
        fetch(server.url, target, SHA256, len(CONTENT))
    assert left_beside(target) == (["data.bin"] if before else [])
    assert not before or target.read_bytes() == before


def test_a_spoilt_part_does_not_spoil_the_next_attempt(server, target):
    target.parent.mkdir()
    target.with_name("data.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="sha256 differs"):
        fetch(server.url, target, SHA256, len(CONTENT))
    fetch(server.url, target, SHA256, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_longer_file_is_given_up_early(server, target):
    server.content = CONTENT * 3
    with pytest.raises(DataError, match=r"more than the 512,000 bytes .* 0 of 512,000 bytes are kept"):
        fetch(server.url, target, SHA256, len(CONTENT))
    assert left_beside(target) == []


def test_a_part_longer_than_the_servers_file_is_dropped(server, target):
    server.content = CONTENT[:1000]
    target.parent.mkdir()
    target.with_name("data.bin.part").write_bytes(CONTENT[:2000])
    with pytest.raises(DataError, match="the server answered 416"):
        fetch(server.url, target, SHA256, len(CONTENT))
    assert left_beside(target) == []


def test_of_several_callers_at_once_one_fetches_and_all_end_with_the_whole_file(server, target):
    """Catches: a part that two write into, and a rename that takes the other's file away."""
    server.pause = 0.02
    with ThreadPoolExecutor(6) as callers:
        ends = [callers.submit(fetch, server.url, target, SHA256, len(CONTENT)) for _ in range(6)]
        assert [end.result(timeout=60) for end in ends] == [None] * 6
    assert target.read_bytes() == CONTENT
    assert server.requests == [None]
    assert left_beside(target) == ["data.bin"]


def test_a_lock_holds_one_caller_at_a_time_while_others_remove_and_make_its_file(tmp_path):
    """Catches: a question about the lock's file that is answered in two steps, between which the file can go."""
    inside, worst = 0, 0

    def caller():
        nonlocal inside, worst
        for _ in range(150):
            with fetching._alone(tmp_path / "lock"):
                inside += 1
                worst = max(worst, inside)
                inside -= 1

    with ThreadPoolExecutor(6) as callers:
        for end in [callers.submit(caller) for _ in range(6)]:
            end.result(timeout=300)
    assert worst == 1
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once_end_with_the_whole_file(server, target):
    server.pause = 0.3
    code = "import sys; from pathlib import Path; from labkit.data.fetching import fetch; fetch(sys.argv[1], "
    code += "Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
    call = [sys.executable, "-c", code, server.url, str(target), SHA256, str(len(CONTENT))]
    environment = os.environ | {"PYTHONPATH": str(paths.root())}
    both = [subprocess.Popen(call, env=environment) for _ in range(2)]
    assert [one.wait(timeout=300) for one in both] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert left_beside(target) == ["data.bin"]


def test_when_the_first_caller_fails_the_next_one_goes_on_where_it_stopped(server, target):
    server.pause, server.cut_once = 0.02, 300_000
    with ThreadPoolExecutor(2) as callers:
        ends = [callers.submit(fetch, server.url, target, SHA256, len(CONTENT)) for _ in range(2)]
        failed = [end.exception(timeout=60) for end in ends]
    assert sum(isinstance(one, DataError) for one in failed) == 1
    assert server.requests == [None, "bytes=300000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("content", [b"a letter", b"x" * len(CONTENT)])
def test_a_linked_part_is_not_followed(server, target, tmp_path, link, content):
    """Catches: downloads that are written into, or that empty, a file which somebody linked to."""
    victim = tmp_path / "victim"
    victim.write_bytes(content)
    target.parent.mkdir()
    link(victim, target.with_name("data.bin.part"))
    fetch(server.url, target, SHA256, len(CONTENT))
    assert victim.read_bytes() == content
    assert target.read_bytes() == CONTENT
    assert not target.is_symlink()
    assert left_beside(target) == ["data.bin"]


def test_a_whole_file_in_a_folder_that_cannot_be_written_is_enough(target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    target.parent.chmod(0o500)
    fetch(nobody_listens(), target, SHA256, len(CONTENT))


def test_no_server_and_not_found(server, target):
    server.status = 404
    with pytest.raises(DataError, match=r"failed: the server answered 404"):
        fetch(server.url, target, SHA256, len(CONTENT))
    with pytest.raises(DataError, match=r"failed: no connection \(.*refused.*run the same command again"):
        fetch(nobody_listens(), target, SHA256, len(CONTENT))
    assert left_beside(target) == []


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="Point LABKIT_DATA to a folder you may write to, with 512,000 bytes free"):
        fetch(server.url, tmp_path / "file" / "data.bin", SHA256, len(CONTENT))


def test_download_fetches_only_what_is_missing(server, monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    files = tuple(RemoteFile(name, server.url, SHA256, len(CONTENT)) for name in ("a.bin", "b.bin"))
    monkeypatch.setitem(
        registry.DATASETS, "toy", Dataset("toy", "Toy", "MIT licence", "us", "https://x", "toy/", files)
    )
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.bin").write_bytes(CONTENT)
    calls = []
    assert registry.download("toy", lambda name, done, total: calls.append((name, done))) == tmp_path / "toy"
    assert len(server.requests) == 1
    assert {("a.bin", len(CONTENT)), ("b.bin", len(CONTENT))} <= set(calls)
    assert registry.check("toy").state == "present"
