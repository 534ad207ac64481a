"""The one door for picture files: what opens, and that nothing else gets further than one sentence."""

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from labkit.data.pictures import MAX_PIXELS, MAX_RATIO, read_picture
from labkit.errors import DataError

MEND = "Get it anew."


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 17)) -> bytes:
    """A small picture with some texture, as a file."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, kind)
    return stream.getvalue()


def bare_png(width: int, height: int) -> bytes:
    """A grey PNG that announces any size and holds next to no pixels: what a decompression bomb begins with."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_colours_come_as_rgb_and_grey_stays_on_demand(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    picture = read_picture(tmp_path / "a.png", MEND)
    assert (picture.mode, picture.size) == ("RGB", (24, 17))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(tmp_path / "a.png")))
    assert read_picture(encoded("PNG", "L"), MEND).mode == "RGB"
    assert read_picture(encoded("PNG", "L"), MEND, keep_grey=True).mode == "L"
    assert read_picture(encoded("JPEG", "CMYK"), MEND, keep_grey=True).mode == "RGB"


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((60_000, 1), f"60,000 x 1 pixels, sides of more than {MAX_RATIO} to 1"),
        ((1, 60_000), f"1 x 60,000 pixels, sides of more than {MAX_RATIO} to 1"),
        ((8193, 8192), f"8,193 x 8,192 pixels, more than {MAX_PIXELS:,}"),
        ((12_000, 12_000), "too large"),  # Pillow warns here
        ((30_000, 30_000), "too large"),  # Pillow raises
        ((2**31 - 1, 2**31 - 1), "too large"),
    ],
)
def test_bombs_and_strips_are_refused_before_their_pixels_are_made(size, problem):
    with pytest.raises(DataError, match=rf"^Image bomb .*{problem}.*Make it smaller, or leave it out"):
        read_picture(bare_png(*size), MEND, name="bomb")


def test_what_is_not_there_or_no_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"^Image .*none\.png cannot be read .*No such file.* Get it anew\.$"):
        read_picture(tmp_path / "none.png", MEND)
    with pytest.raises(DataError, match=r"cannot be read .*directory"):
        read_picture(tmp_path, MEND)
    with pytest.raises(DataError, match=r"^Image page is damaged .* Get it anew\.$"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", MEND, name="page")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_damaged_bytes_are_a_picture_or_one_sentence(kind):
    """Catches: an exception of Pillow's readers that is none of those they are documented to raise."""
    whole, rng = encoded(kind), random.Random(kind)
    for _ in range(120):
        content = bytearray(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(1, 6)):
            if content:
                content[rng.randrange(min(len(content), 120))] = rng.randrange(256)
        with contextlib.suppress(DataError):
            assert read_picture(bytes(content), MEND).mode == "RGB"
