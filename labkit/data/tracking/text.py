"""Annotation text files: rows of numbers, separated by commas, tabs or spaces, sometimes with NaN or nothing at all."""

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from labkit.errors import DataError

MOST_FRAMES = 10_000_000
"""No video has more: four days at 30 frames a second."""
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")


def read_rows(path: Path, columns: int | tuple[int, ...]) -> Float64[np.ndarray, "t c"]:
    """The numbers of a file, one row a line; 'NaN' in any spelling is NaN, blank lines are not rows.

    columns: how many numbers a row holds; several when a benchmark has both kinds (all rows of one file are of one).

    Raises DataError that names the file and the line.
    """
    allowed = (columns,) if isinstance(columns, int) else columns
    rows: list[list[float]] = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = [float(word) for word in _BETWEEN.split(line.strip().strip(",;"))]
        except ValueError:
            raise DataError(f"{path}, line {number}: '{line.strip()[:60]}' is not a row of numbers.") from None
        if len(row) not in ({len(rows[0])} if rows else allowed):
            wanted = len(rows[0]) if rows else " or ".join(map(str, allowed))
            raise DataError(f"{path}, line {number}: {len(row)} numbers instead of {wanted}.")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no annotation.")
    return np.array(rows)


def frame_number(value: float | str, where: str) -> int:
    """The number of a frame that a file gives: whole, from 0 to `MOST_FRAMES`.

    where: the file, and the line of it, for the error: DataError.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MOST_FRAMES or number != int(number):
        raise DataError(f"{where}: {value} is not the number of a frame, 0 to {MOST_FRAMES:,}.")
    return int(number)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything.

    Raises DataError when it is not there or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # a byte-order mark stands before some of the files
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Unpack its sequence anew.") from None
    except (OSError, ValueError) as error:  # no text, or a name with a NUL that another file gave
        raise DataError(f"{path} cannot be read ({error}).") from error
    return [line for line in text.splitlines() if line.strip()]


def read_names(path: Path) -> list[str]:
    """The names of a list of sequences, one a line; each is a folder's.

    Raises DataError for one that no folder can have, or that would lead out of the dataset's.
    """
    return [folder_name(line.strip(), str(path)) for line in read_lines(path)]


def folder_name(name: str, where: str) -> str:
    """`name`, which a file gives, and which becomes a folder's and that of results.

    where: the file, and the line of it, for the error: DataError for a name that no folder can have, or that would lead
    out of the dataset's.
    """
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.strip(".") == "":
        raise DataError(f"{where}: '{name[:60]}' is no sequence's name. Unpack that list anew.")
    return name


def numbered_images(folder: Path, suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")) -> dict[int, Path]:
    """The images of a folder by the number in their names, ascending: '00001.jpg' and '1.jpg' are both number 1.

    Raises DataError when the folder is missing or empty, or one number occurs twice.
    """
    numbered: dict[int, Path] = {}
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} cannot be read ({error}). Unpack its sequence anew.") from error
    for path in files:
        digits = re.search(r"(\d+)$", path.stem)
        if digits is None or path.name.startswith("."):  # a thumbnail or a file of an operating system
            continue
        if (number := int(digits[1])) in numbered:
            raise DataError(f"{folder}: {numbered[number].name} and {path.name} are both frame {number}.")
        numbered[number] = path
    if not numbered:
        raise DataError(f"{folder} holds no numbered images. Unpack its sequence anew.")
    return dict(sorted(numbered.items()))


def span(images: Mapping[int, Path], first: int, last: int, where: Path) -> list[int]:
    """The frames first..last, both among them, by number.

    Raises DataError when some of them are not there; its work grows with the images, not with the span.
    """
    kept = [number for number in images if first <= number <= last]
    if not kept or len(kept) < last - first + 1:
        missing = next(number for number in itertools.count(first) if number not in images)
        raise DataError(
            f"{where}: frames {first} to {last} are scored; {len(kept):,} of them are there, {missing} is missing."
        )
    return kept
