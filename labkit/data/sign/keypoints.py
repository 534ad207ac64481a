"""Key points of sentences, as a pose estimator left them: one .npz with an array (time, K, 2) a sentence.

Each point is (column, row) as shares of the frame's width and height.  From a dictionary of such arrays it is made by
`numpy.savez(path, **arrays)`.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from labkit.errors import DataError

MOST = 2**28  # bytes of one array


class Points(Mapping[str, Any]):
    """The arrays of an archive by sentence, each read when it is asked for; nothing is unpickled.

    The archive stays open: to open one of thousands of sentences takes longer than to read its array.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.names = frozenset(name.removesuffix(".npy") for name in archive.namelist())

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> Float32[np.ndarray, "time points 2"]:
        if name not in self.names:
            raise KeyError(name)
        try:
            with self.archive.open(f"{name}.npy") as file:
                points = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # zlib.error and whatever else a damaged archive makes the readers raise
            raise _damaged(self.path, f"'{name}' cannot be read: {error}") from None
        if points.ndim != 3 or points.shape[2] != 2 or points.dtype.kind != "f" or not len(points):
            raise _damaged(self.path, f"'{name}' is {points.dtype} {points.shape}, not floats (time, points, 2)")
        points = points.astype(np.float32)
        if np.isinf(points).any() or (np.abs(points[np.isfinite(points)]) > 2).any():
            raise _damaged(self.path, f"'{name}' is not in shares of the frame: divide by its width and height")
        return points


def read_points(path: Path) -> Mapping[str, Any]:
    """The key points of a file; nothing where there is none. A point that was not seen is NaN.

    Raises:
        DataError: the file is no .npz archive, now or when an array is read.
    """
    if not path.is_file():
        return {}
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(path, str(error)) from None
    if any(entry.file_size > MOST for entry in archive.infolist()):
        raise _damaged(path, f"an array of more than {MOST:,} bytes")
    return Points(path, archive)


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path} holds no key points ({problem}). Write it anew, or remove it to go on without.")
