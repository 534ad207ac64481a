"""Files of tensors: what comes back, and that nothing altered does."""

import copy
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from labkit import tensor_files
from labkit.tensor_files import TensorFileError


class Header(BaseModel, frozen=True, extra="forbid", strict=True):
    format: Literal["a test"] = "a test"
    levels: int


class Other(BaseModel, frozen=True, extra="forbid", strict=True):
    format: Literal["another test"]


TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "codes": torch.tensor([1, -2], dtype=torch.int8),
    "scalar": torch.tensor(3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensor_files.write(tmp_path / "model.safetensors", TENSORS, Header(levels=3))
    return tmp_path / "model.safetensors"


def test_tensors_and_header_come_back(path):
    tensors, header = tensor_files.read(path, Header)
    assert header.levels == 3
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items()
    )


def test_other_programs_read_the_file(path):
    assert torch.equal(load_file(path)["weight"], TENSORS["weight"])


def test_views_and_shared_memory_are_stored_apart(tmp_path):
    whole = torch.arange(8.0).view(2, 4)
    tensor_files.write(tmp_path / "views", {"a": whole.t(), "b": whole[:, 1], "c": whole}, Header(levels=1))
    tensors, _ = tensor_files.read(tmp_path / "views", Header)
    assert torch.equal(tensors["a"], whole.t())
    assert torch.equal(tensors["b"], whole[:, 1])


def test_equal_models_make_equal_files():
    """Catches: metadata in another order each time, which is how safetensors writes more than one entry."""
    assert len({tensor_files.to_bytes(TENSORS, Header(levels=3)) for _ in range(30)}) == 1


def test_any_safetensors_file_is_read_and_our_own_is_checked(path, tmp_path):
    assert tensor_files.read_tensors(path).keys() == TENSORS.keys()
    save_file({"w": torch.ones(2)}, tmp_path / "foreign", metadata={"format": "pt"})
    assert torch.equal(tensor_files.read_tensors(tmp_path / "foreign")["w"], torch.ones(2))
    content = path.read_bytes()
    for position in range(8, 200):  # the mark itself is among them
        altered = bytearray(content)
        altered[position] ^= 4
        path.write_bytes(altered)
        with pytest.raises(TensorFileError):
            tensor_files.read_tensors(path)


def test_every_altered_byte_is_noticed(path):
    """Catches: a checksum that leaves out the header, a name, a shape or the last tensor."""
    content, rng = path.read_bytes(), random.Random(0)
    for position in [*range(0, len(content), 7), *rng.sample(range(len(content)), 40)]:
        altered = bytearray(content)
        altered[position] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(TensorFileError):
            tensor_files.read(path, Header)


def test_every_cut_is_noticed(path):
    content = path.read_bytes()
    for length in range(0, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(TensorFileError):
            tensor_files.read(path, Header)


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(TensorFileError, match="another kind of file"):
        tensor_files.read(path, Other)
    with pytest.raises(TensorFileError, match="there is no file"):
        tensor_files.read(tmp_path / "missing", Header)
    with pytest.raises(TensorFileError, match="cannot be read"):
        tensor_files.read(tmp_path, Header)
    save_file(TENSORS, tmp_path / "foreign")
    with pytest.raises(TensorFileError, match="another program wrote it"):
        tensor_files.read(tmp_path / "foreign", Header)
    tensor_files.write(tmp_path / "diverged", {"w": torch.tensor([0.0, float("nan")])}, Header(levels=1))
    with pytest.raises(TensorFileError, match="not finite"):
        tensor_files.read(tmp_path / "diverged", Header)


ENTRY = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"w": ENTRY | {"shape": [2**62, 2**62]}}, "damaged"),
        ({"w": ENTRY | {"shape": [-4, -4]}}, "damaged"),
        ({"w": ENTRY | {"shape": [25 * 10**10], "data_offsets": [0, 10**12]}}, "damaged"),
        ({"w": ENTRY, "v": ENTRY}, "damaged"),  # twice the same bytes
        ({"w": ENTRY | {"dtype": "BOOM"}}, "damaged"),
        ({"w": ENTRY | {"dtype": "F4", "shape": [8, 16]}}, "cannot compute with"),
        ({"w": ENTRY, "__metadata__": {"labkit": "[" * 100_000}}, "header cannot be read"),
        (
            {"w": ENTRY, "__metadata__": {"labkit": f'{{"sha256": "", "header": {"9" * 5000}}}'}},
            "header cannot be read",
        ),
        ("[" * 100_000, "damaged"),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("length", [None, 2**63, 90_000_000])
def test_a_header_that_was_made_to_do_harm_is_refused(path, header, words, length):
    """Sizes that nobody has, bytes that are not there, and lengths of the header itself."""
    content = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", length or len(content)) + content + bytes(64))
    with pytest.raises(TensorFileError, match="damaged" if length else words):
        tensor_files.read_tensors(path)


# -- what torch.save wrote -------------------------------------------------------------------------------------------


def packed(path):
    """The same archive with its contents deflated: zeros become a thousandth of their bytes, and torch unpacks them."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)


def overlapping(path):
    """A thousand names for the same bytes, which pass every sum."""
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        for number in range(1000):
            again = copy.copy(largest)
            again.filename = f"{largest.filename}{number}"
            archive.filelist.append(again)
        archive.writestr("written", b"")  # so that the directory is written anew


def expanded(path):
    torch.save({"w": [torch.zeros(1).expand(10**12)]}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (packed, "unpacks to more bytes than it has"),
        (overlapping, "unpacks to more bytes than it has"),
        (expanded, "larger than the file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "is damaged"),
        (lambda path: path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR."), "is damaged"),
        (lambda path: path.unlink(), "is damaged"),
    ],
)
def test_a_small_file_of_torch_does_not_fill_the_memory(tmp_path, monkeypatch, spoil, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(100_000), "more": [torch.ones(3), ("text", 1)]}, path)
    assert tensor_files.read_torch(path)["w"].numel() == 100_000
    spoil(path)
    with pytest.raises(TensorFileError, match=words):
        tensor_files.read_torch(path)
    assert not (tmp_path / "owned").exists()
