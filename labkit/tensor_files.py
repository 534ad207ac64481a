"""Tensors with a described header in one file: what every trained model is kept in.

The file is safetensors, so that other programs read it; its metadata holds the header as JSON and a SHA-256 sum over
header and tensors, so that a flipped bit is an error and not another model. Equal tensors and headers make equal files.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from labkit.errors import InputError
from labkit.files import write_atomically

SomeHeader = TypeVar("SomeHeader", bound=BaseModel)

MARK = "labkit"  # the one entry of the metadata: safetensors writes several in any order


class TensorFileError(InputError):
    """A file of tensors is missing, damaged, or of another kind than the one asked for."""


def to_bytes(tensors: Mapping[str, Tensor], header: BaseModel) -> bytes:
    """The content of a file. Tensors are stored contiguous and on the CPU, each with a memory of its own."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = header.model_dump(mode="json")
    return save(plain, {MARK: json.dumps({"sha256": _digest(plain, about), "header": about})})


def write(path: Path, tensors: Mapping[str, Tensor], header: BaseModel) -> int:
    """Write a file atomically; returns its size in bytes.

    Raises:
        OSError: no space, no permission...; the old file is untouched.
    """
    content = to_bytes(tensors, header)
    write_atomically(path, content)
    return len(content)


def read(path: Path, kind: type[SomeHeader]) -> tuple[dict[str, Tensor], SomeHeader]:
    """The tensors of a file on the CPU, and its header as a checked `kind`.

    `kind` says what the reader can use: a pydantic model, strict, bounded, with a literal that names the format. Sizes
    come from the file itself, so that no header makes the reader take more memory than the file has bytes.

    Raises:
        TensorFileError: no such file, not whole, another kind of file, or floats that are not finite; says which.
    """
    tensors, header = _checked(path)
    if header is None:
        raise TensorFileError(f"'{path}' holds tensors without labkit's header: another program wrote it.")
    try:
        return tensors, kind.model_validate_json(json.dumps(header))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "header"
        raise TensorFileError(f"'{path}' is another kind of file ({where}: {problem['msg']}).") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file on the CPU: labkit's own are checked against their sum, others are taken.

    Raises:
        TensorFileError: no such file, not whole, or floats that are not finite; says which.
    """
    return _checked(path)[0]


def read_torch(path: Path, *, summed: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU: tensors and plain values alone; nothing in the file is run.

    torch stores its contents as they are. An archive that packs them, or names the same bytes many times, and a tensor
    that repeats them would fill the memory from a few kB: they are refused.

    Args:
        summed: refuse what older versions of torch wrote: no archive, and without sums.

    Raises:
        TensorFileError: no such file, not whole, or it would become larger than it is.
    """
    try:
        size = path.stat().st_size
        if summed or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > size:
                    raise ValueError("it unpacks to more bytes than it has")
                if wrong := archive.testzip():
                    raise ValueError(f"the sum of '{wrong}' is wrong")
        content = torch.load(path, weights_only=True, map_location="cpu")
        if any(value.numel() * value.element_size() > size for value in _tensors_in(content)):
            raise ValueError("a tensor in it is larger than the file")
    except Exception as error:  # damaged bytes make the readers raise nearly anything; all of it means the same
        raise TensorFileError(f"'{path}' is damaged ({_first_line(error)}).") from error
    return content


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """The tensors in nested dictionaries and lists."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from _tensors_in(value)


def _checked(path: Path) -> tuple[dict[str, Tensor], object]:
    """Tensors, and what the header says; None without labkit's mark."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise TensorFileError(f"there is no file '{path}'.") from None
    except OSError as error:
        raise TensorFileError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    except (SafetensorError, ValueError, RuntimeError, TypeError, KeyError, OverflowError) as error:
        raise TensorFileError(f"'{path}' is damaged, or not a safetensors file ({_first_line(error)}).") from None
    about = _about(path, metadata)
    if about is not None and about["sha256"] != _digest(tensors, about["header"]):
        raise TensorFileError(f"'{path}' is damaged: its checksum does not fit. Copy or write it again.")
    for name, value in tensors.items():
        if value.is_floating_point() and not _is_finite(path, name, value):
            raise TensorFileError(f"'{path}' holds numbers that are not finite ({name}): that training diverged.")
    return tensors, about and about["header"]


def _is_finite(path: Path, name: str, value: Tensor) -> bool:
    try:
        wide = value.float() if value.element_size() == 1 else value  # float8 has no isfinite of its own
    except NotImplementedError:  # two numbers a byte
        raise TensorFileError(
            f"'{path}' holds numbers that torch cannot compute with ({name}: {value.dtype})."
        ) from None
    return bool(torch.isfinite(wide).all())


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, object] | None:
    """Sum and header from the metadata; None where another program wrote the file.

    The text of our one entry holds a sum: a flipped bit in the mark itself does not make the file another program's.
    """
    if MARK not in metadata and not any('"sha256"' in text for text in metadata.values()):
        return None
    try:
        about = json.loads(metadata[MARK])
        if about.keys() == {"sha256", "header"}:
            return about
    except (KeyError, ValueError, AttributeError, RecursionError):
        pass
    raise TensorFileError(f"'{path}' is damaged: its header cannot be read. Copy or write it again.")


def _digest(tensors: Mapping[str, Tensor], header: object) -> str:
    """SHA-256 over the header and each tensor's name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
