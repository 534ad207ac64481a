"""Data sets in miniature, in the layout of their downloads."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_yuv():
    """write_yuv(path, planes): a raw 4:2:0 video."""

    def write(path, planes):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.ascontiguousarray(planes).tobytes())

    return write


@pytest.fixture
def septuplet():
    """septuplet(root, name): seven frames of Vimeo-90k; red tells the column, green the row, blue the frame."""

    def write(root, name, size=(96, 80), missing=()):
        folder = root / "vimeo90k" / "sequences" / name
        folder.mkdir(parents=True)
        for k in range(1, 8):
            if k not in missing:
                values = np.zeros((size[1], size[0], 3), np.uint8)
                values[..., 0], values[..., 1] = np.arange(size[0]), np.arange(size[1])[:, None]
                values[..., 2] = k
                Image.fromarray(values).save(folder / f"im{k}.png")

    return write
