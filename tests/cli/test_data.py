import hashlib

import pytest
from typer.testing import CliRunner

from labkit.cli import data as cli_data
from labkit.data import registry
from labkit.data.registry import Dataset, RemoteFile
from labkit.errors import DataError, InputError


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`labkit data ...` against an empty LABKIT_DATA and one small registered dataset, 'toy'."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    content = hashlib.sha256(b"content").hexdigest()
    file = RemoteFile("a.bin", "http://127.0.0.1:9/a.bin", content, 7)
    toy = Dataset("toy", "A toy", "MIT licence", "us, 2024", "https://example.org", "toy/a.bin", (file,))
    monkeypatch.setitem(registry.DATASETS, "toy", toy)
    return lambda *words: CliRunner().invoke(cli_data.app, words)


def put(tmp_path, content: bytes) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.bin").write_bytes(content)


def test_list_shows_state_size_licence_and_layout(run, tmp_path):
    put(tmp_path, b"half")
    result = run("list")
    assert result.exit_code == 0
    for text in (
        "fashion-mnist",
        "missing",
        "31 MB",
        "MIT licence",
        "imagenet/train/<wnid>/*.JPEG",
        "needs registration",
        "a.bin has 4 bytes instead of 7",
        f"LABKIT_DATA is {tmp_path}",
    ):
        assert text in result.output


def test_a_list_of_80_columns_tears_no_path(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("list").output.splitlines()[:-1]  # the last one says where LABKIT_DATA is, however long
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    for dataset in registry.DATASETS.values():
        assert all(word in words for word in dataset.layout.split() if len(word) <= 76), dataset.name


def test_get_shows_the_licence_before_it_fetches(run):
    result = run("get", "toy")  # nothing listens there
    assert "terms: MIT licence" in result.output
    assert isinstance(result.exception, DataError)
    assert "no connection" in str(result.exception)


def test_get_of_what_is_whole_fetches_nothing(run, tmp_path):
    put(tmp_path, b"content")
    result = run("get", "toy")
    assert result.exit_code == 0
    assert f"whole, in {tmp_path / 'toy'}" in result.output


def test_get_of_what_cannot_be_fetched(run):
    assert "always there" in run("get", "digits").output
    assert "Register at https://image-net.org" in str(run("get", "imagenet").exception)
    error = run("get", "imagnet").exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert "did you mean imagenet?" in str(error)


def test_check_passes_what_is_right(run, tmp_path):
    put(tmp_path, b"content")
    assert run("check", "toy").exit_code == 0
    assert run("check").exit_code == 0  # what is not there is no fault when nobody asked for it


@pytest.mark.parametrize("words", [("check",), ("check", "toy")])
def test_check_names_what_is_damaged(run, tmp_path, words):
    put(tmp_path, b"CONTENT")
    result = run(*words)
    assert "damaged" in result.output
    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == 2
    assert "a.bin has other contents" in str(result.exception)
    assert "labkit data get toy" in str(result.exception)


def test_check_of_a_missing_one(run):
    error = run("check", "toy").exception
    assert isinstance(error, DataError)
    assert str(error) == "Dataset 'toy' is not in LABKIT_DATA. Get it (7 bytes, MIT licence): labkit data get toy"
