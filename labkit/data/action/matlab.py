"""MATLAB files of annotations (level 5): arrays of numbers and text, structs and cells.

SciPy reads them, and trusts what a file says of its own sizes: a damaged one makes it write beyond its memory. So the
file is checked first: every element ends inside the one around it, and holds what its array has room for.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LARGEST = 2**28  # bytes of all variables, unpacked
DEEPEST = 16  # structs within structs
MOST_DIMENSIONS = 32  # what SciPy has room for

Element = tuple[int, memoryview]
"""Kind and content."""

INT8, INT32, UINT32, MATRIX, PACKED = 1, 5, 6, 14, 15
BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of a value of each kind; 16 to 18 are UTF-8, UTF-16, UTF-32."""
CELL, STRUCT, CHAR, NUMBERS = 1, 2, 4, range(6, 16)
COMPLEX = 0x800


def load(path: Path) -> dict[str, Any]:
    """The variables of a file.

    Raises:
        ValueError: it does not hang together, is larger than `LARGEST`, or holds other things than named above.
    """
    import scipy.io

    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("no header of a MATLAB file")
    room = LARGEST
    for kind, data in _elements(memoryview(content)[128:], order):
        unpacked = memoryview(zlib.decompressobj().decompress(data, room + 1)) if kind == PACKED else data
        room -= len(unpacked)
        if room < 0:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        inner = list(_elements(unpacked, order)) if kind == PACKED else [(kind, data)]
        if [kind for kind, _ in inner] != [MATRIX]:
            raise ValueError("a variable that is no array")
        _check_array(inner[0][1], order, 0)
    return scipy.io.loadmat(io.BytesIO(content))


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """One after another. Up to four bytes are in the tag itself; others begin at multiples of eight."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("it breaks off inside a tag")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            start, size, kind, step = at + 4, kind >> 16, kind & 0xFFFF, 8
            if size > 4:
                raise ValueError("a small element of more than four bytes")
        else:
            start, step = at + 8, 8 + size + (-size % 8 if kind != PACKED else 0)
        if start + size > len(data):
            raise ValueError("an element goes on beyond the one around it")
        yield kind, data[start : start + size]
        at += step


def _check_array(data: memoryview, order: str, depth: int) -> None:
    """Raises ValueError where the parts of an array are not what it says."""
    if not len(data):
        return  # MATLAB writes empty fields so
    flags, dimensions, name, *rest = _parts(data, order, 3)
    _check(flags[0] == UINT32 and len(flags[1]) == 8, "an array without flags")
    number, _ = struct.unpack(f"{order}II", flags[1])
    _check(dimensions[0] == INT32 and len(dimensions[1]) % 4 == 0, "an array without sizes")
    sizes = struct.unpack(f"{order}{len(dimensions[1]) // 4}i", dimensions[1])
    _check(2 <= len(sizes) <= MOST_DIMENSIONS and min(sizes) >= 0, "sizes that no array has")
    _check(name[0] == INT8 and depth <= DEEPEST, "an array without a name, or too deep inside others")
    count, kind = math.prod(sizes), number & 0xFF
    if kind in NUMBERS:
        _check_numbers(rest, count, 2 if number & COMPLEX else 1)
    elif kind == CHAR:
        _check_text(rest, count)
    elif kind in (CELL, STRUCT):
        arrays, fields = (rest, 1) if kind == CELL else (rest[2:], _count_fields(rest, order))
        _check(len(arrays) == count * fields, "a struct or cell without some of its parts")
        for inner, content in arrays:
            _check(inner == MATRIX, "a part that is no array")
            _check_array(content, order, depth + 1)
    else:
        raise ValueError(f"an array of class {kind}, which annotations have no need of")


def _parts(data: memoryview, order: str, least: int) -> list[Element]:
    parts = list(_elements(data, order))
    _check(len(parts) >= least, "an array without some of its parts")
    return parts


def _check_numbers(parts: Sequence[Element], count: int, halves: int) -> None:
    _check(len(parts) == halves, "an array without its numbers")
    for kind, content in parts:
        _check(
            kind in BYTES and kind < 16 and BYTES[kind] * count == len(content), "numbers that do not fill their array"
        )


def _check_text(parts: Sequence[Element], count: int) -> None:
    _check(len(parts) == 1 and parts[0][0] in BYTES, "text without its letters")
    kind, content = parts[0]
    least, most = (1, 4) if kind == 16 else (BYTES[kind], BYTES[kind])  # a letter of UTF-8 takes up to four bytes
    _check(least * count <= len(content) <= most * count, "text of another length than it says")


def _count_fields(parts: Sequence[Element], order: str) -> int:
    _check(len(parts) >= 2 and parts[0][0] == INT32 and len(parts[0][1]) == 4, "a struct without fields")
    (longest,) = struct.unpack(f"{order}i", parts[0][1])
    _check(
        longest > 0 and parts[1][0] == INT8 and len(parts[1][1]) % longest == 0, "a struct without names of its fields"
    )
    return len(parts[1][1]) // longest


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)
