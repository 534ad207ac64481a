"""The registry against hand-made datasets: nothing missing, damaged or half-arrived is ever used in silence."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.data import registry
from labkit.data.registry import Dataset, RemoteFile, Tree
from labkit.errors import DataError, InputError


def remote(name: str, content: bytes, url: str = "") -> RemoteFile:
    return RemoteFile(name, url, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A registered dataset of two small files, both in place."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    files = (remote("a.bin", b"first file"), remote("b.bin", b"second file"))
    dataset = Dataset("toy", "Toy", "MIT licence", "us", "https://example.org", "toy/{a,b}.bin", files)
    monkeypatch.setitem(registry.DATASETS, "toy", dataset)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.bin").write_bytes(b"first file")
    (tmp_path / "toy" / "b.bin").write_bytes(b"second file")
    return tmp_path / "toy"


def rewrite(path: Path, content: bytes) -> None:
    """Until ctime has moved: some file systems count time in steps of 10 ms."""
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        path.write_bytes(content)


def test_every_entry_says_what_a_user_needs():
    for name in registry.names():
        dataset = registry.get(name)
        assert dataset.name == name
        assert all((dataset.title, dataset.licence, dataset.citation, dataset.layout))
        assert dataset.url.startswith(("https://", "http://"))  # a page to read; files come by https only
        assert dataset.bundled or dataset.size != "-"
        for file in dataset.files:
            assert file.url.startswith("https://")
        for file in dataset.files + dataset.alternative:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.bytes > 0


def test_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"There is no dataset 'fashion_mnst'; did you mean fashion-mnist\?"):
        registry.get("fashion_mnst")
    with pytest.raises(InputError, match=r"did you mean ([\w-]+, )*cifar10, ([\w-]+, )*digits, .+ or \w+\?"):
        registry.status("zzz")


def test_missing_names_size_licence_and_command(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "nowhere"))
    assert registry.status("fashion-mnist").state == "missing"
    with pytest.raises(DataError) as error:
        registry.require("fashion-mnist")
    assert str(error.value) == (
        "Dataset 'fashion-mnist' is not in LABKIT_DATA. Get it (31 MB, MIT licence): labkit data get fashion-mnist"
    )


def test_whole_dataset_passes(toy):
    assert registry.status("toy").state == registry.check("toy").state == "present"
    assert registry.require("toy") == toy


def test_changed_bytes_are_named(toy):
    (toy / "b.bin").write_bytes(b"Second file")  # the same length: only the hash can tell
    assert registry.status("toy").state == "present"
    assert registry.check("toy") == ("damaged", "b.bin has other contents than the published file (sha256 differs)")
    with pytest.raises(DataError, match=r"'toy' in .* is damaged: b\.bin .*Get it anew .*: labkit data get toy"):
        registry.require("toy")


def test_wrong_size_and_missing_file_are_both_named(toy):
    (toy / "a.bin").write_bytes(b"first")
    (toy / "b.bin").unlink()
    state, detail = registry.status("toy")
    assert state == "damaged"
    assert detail == "b.bin is missing; a.bin has 5 bytes instead of 10"


def test_a_file_damaged_after_it_was_verified_is_noticed(toy):
    """Even when size and mtime are those of the good file: ctime moves."""
    registry.require("toy")
    before = (toy / "a.bin").stat()
    rewrite(toy / "a.bin", b"FIRST file")
    os.utime(toy / "a.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"a\.bin has other contents"):
        registry.require("toy")


def test_contents_are_hashed_once_per_state(toy, monkeypatch):
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda stream, kind: hashed.append(stream.name) or digest(stream, kind))
    for _ in range(3):
        registry.require("toy")
    assert len(hashed) == 2
    registry.check("toy")  # a check is asked for to look again
    assert len(hashed) == 4


def test_unreadable_file_is_named(toy, monkeypatch):
    def refuse(stream, kind):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    with pytest.raises(DataError, match=r"a\.bin cannot be read \(Permission denied\)"):
        registry.require("toy")


def test_an_alternative_serves_only_while_no_published_file_is_there(toy, monkeypatch):
    copy = remote("copy.bin", b"lossy")
    monkeypatch.setitem(
        registry.DATASETS, "toy", replace(registry.get("toy"), alternative=(copy,), note="the copy is lossy")
    )
    (toy / "copy.bin").write_bytes(b"lossy")
    assert registry.status("toy") == ("present", "")

    (toy / "a.bin").write_bytes(b"damaged!!!")  # must not be passed over for the copy
    with pytest.raises(DataError, match=r"a\.bin has other contents"):
        registry.require("toy")

    (toy / "a.bin").unlink()
    (toy / "b.bin").unlink()
    assert registry.status("toy") == ("present", "the copy is lossy")
    assert registry.require("toy") == toy
    rewrite(toy / "copy.bin", b"LOSSY")
    with pytest.raises(DataError, match=r"copy\.bin has other contents"):
        registry.require("toy")


def test_registration_says_where_and_how_to_lay_out(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert registry.status("imagenet").state == "needs registration"
    for call in (registry.require, registry.download):
        with pytest.raises(DataError, match=r"image-net\.org.*train/<wnid>/\*\.JPEG.*labkit data check imagenet"):
            call("imagenet")


def test_trees_are_looked_at_and_counted(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    small = replace(registry.get("imagenet"), trees=(Tree("train", 2), Tree("val", 1)))
    monkeypatch.setitem(registry.DATASETS, "imagenet", small)
    for path in ("train/n01/a.JPEG", "train/n02/b.JPEG"):
        (tmp_path / "imagenet" / path).parent.mkdir(parents=True)
        (tmp_path / "imagenet" / path).touch()
    assert registry.status("imagenet").state == "damaged"
    assert "val holds no class folders" in registry.status("imagenet").detail
    (tmp_path / "imagenet" / "val" / "n01").mkdir(parents=True)
    assert registry.status("imagenet") == ("present", "train: 2 classes, val: 1 class")
    assert registry.check("imagenet") == ("damaged", "val/ holds 0 files instead of 1")
    (tmp_path / "imagenet" / "val" / "n01" / "c.JPEG").touch()
    assert registry.check("imagenet").state == "present"


def test_bundled_needs_nothing():
    assert registry.status("digits") == registry.check("digits") == ("present", "inside scikit-learn")
    with pytest.raises(InputError, match="nothing to fetch"):
        registry.download("digits")
    with pytest.raises(InputError, match="has no folder"):
        registry.require("digits")


@pytest.mark.parametrize(("count", "text"), [(0, "-"), (999, "999 bytes"), (12_345, "12 kB"), (30_878_645, "31 MB")])
def test_sizes_are_decimal(count, text):
    assert registry.size_text(count) == text
