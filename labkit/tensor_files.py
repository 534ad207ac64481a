"""Tensors with a described header in one file: what every trained model is kept in.

The file is safetensors, so that other programs read it; its metadata holds the header as JSON and a SHA-256 sum over
header and tensors, so that a flipped bit is an error and not another model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from labkit.errors import InputError
from labkit.files import write_atomically

SomeHeader = TypeVar("SomeHeader", bound=BaseModel)


class TensorFileError(InputError):
    """A file of tensors is missing, damaged, or of another kind than the one asked for."""


def to_bytes(tensors: Mapping[str, Tensor], header: BaseModel) -> bytes:
    """The content of a file. Tensors are stored contiguous and on the CPU, each with a memory of its own."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = header.model_dump_json()
    return save(plain, {"header": text, "sha256": _digest(plain, text)})


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
    if "header" not in metadata or "sha256" not in metadata:
        raise TensorFileError(f"'{path}' holds tensors without labkit's header: another program wrote it.")
    if metadata["sha256"] != _digest(tensors, metadata["header"]):
        raise TensorFileError(f"'{path}' is damaged: its checksum does not fit. Copy or write it again.")
    try:
        header = kind.model_validate_json(metadata["header"])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "header"
        raise TensorFileError(f"'{path}' is another kind of file ({where}: {problem['msg']}).") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise TensorFileError(f"'{path}' holds numbers that are not finite ({name}): that training diverged.")
    return tensors, header


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """SHA-256 over the header and each tensor's name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
