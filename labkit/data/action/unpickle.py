"""Pickled annotations without running what is in them: no class is called, arrays are put together from their bytes.

A pickle may name any function and call it. Here the names that NumPy's arrays use stand for harmless records; any other
name ends the reading. The result consists of dicts, lists, tuples, numbers, text and NumPy arrays of them.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import DataError

LARGEST = 1 << 30
"""Bytes of a file."""
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
CODES = {f"{kind}{size}" for kind, sizes in {"u": "1248", "i": "1248", "f": "248"}.items() for size in sizes} | {"b1"}


TEXT = re.compile(r"[US]\d{1,3}")
"""Codes of text of fixed length, which names of videos may be."""


class _Type:
    """Stands for numpy.dtype: its code, such as u1; its state holds the byte order."""

    def __init__(self, code: object = "", *rest: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def real(self) -> np.dtype:
        if self.code not in CODES and not TEXT.fullmatch(self.code):
            raise ValueError(f"an array of type '{self.code[:20]}'")
        return np.dtype(self.code).newbyteorder("<" if self.order in ("|", "=", "<") else ">")


class _Array:
    """Stands for an array: shape, type, order and bytes come as its state."""

    def __init__(self, *ignored: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def real(self) -> np.ndarray:
        _, shape, kind, fortran, raw = self.state
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(content, kind.real())
        return flat.reshape(shape, order="F" if fortran else "C").copy()


class _Buffer(_Array):
    """Stands for an array that is written by its buffer, as protocol 5 has it."""

    def __init__(self, raw: Any, kind: _Type, shape: Any, order: str) -> None:
        self.state = (1, shape, kind, order == "F", raw)


class _Number:
    """Stands for one number of NumPy's."""

    def __init__(self, kind: _Type, raw: Any = b"") -> None:
        self.kind, self.raw = kind, raw

    def real(self) -> Any:
        content = self.raw.encode("latin1") if isinstance(self.raw, str) else bytes(self.raw)
        return np.frombuffer(content, self.kind.real())[0].item()


class _NdArray:
    """Stands for the class numpy.ndarray, which a pickle passes as an argument."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _NdArray, ("numpy", "dtype"): _Type}
        for origin in MODULES:
            known |= {(origin, "_reconstruct"): _Array, (origin, "scalar"): _Number}
        known |= {(origin.replace("multiarray", "numeric"), "_frombuffer"): _Buffer for origin in MODULES}
        known[("_codecs", "encode")] = _encoded
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module[:40]}.{name[:40]}, which annotations have no need of")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def _encoded(text: object, *ignored: object) -> bytes:
    """How protocol 2 writes bytes: latin1 text."""
    return str(text).encode("latin1")


def read_pickle(path: Path) -> Any:
    """The content of a pickle of plain values and arrays of numbers, written by Python 2 or 3.

    Raises:
        DataError: no such file, damaged, or it holds something else, such as a call.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is larger than annotations are ({path.stat().st_size:,} bytes).")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        return _real(_Restricted(io.BytesIO(content), encoding="latin1").load(), 0)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises anything; nothing in it was run
        raise DataError(f"{path} is damaged, or no pickle of annotations ({str(error)[:120]}).") from None


def _real(value: Any, depth: int) -> Any:
    """`value` with arrays in place of the records that stand for them."""
    if depth > 20:
        raise ValueError("it is nested too deeply")
    if isinstance(value, _Array | _Number):
        return value.real()
    if isinstance(value, dict):
        return {_real(key, depth + 1): _real(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_real(item, depth + 1) for item in value)
    if value is None or isinstance(value, int | float | str | bytes):
        return value
    raise ValueError(f"it holds a {type(value).__name__}")
