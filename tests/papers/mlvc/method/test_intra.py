"""The I-frame: colours in integers, pictures of the right size, quality that follows the quantiser."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.papers.mlvc.method.intra import decode_intra, encode_intra, to_rgb, to_yuv
from labkit.papers.mlvc.method.range_coder import StreamError

av = pytest.importorskip("av", reason="needs the extra 'video'")


def smooth(height: int = 64, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * y, x, 255 - y - x // 2], axis=-1).clip(0, 255).astype(np.uint8)


def test_colours_come_back_to_within_one():
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    colours[0, :5] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    off = np.abs(to_rgb(to_yuv(colours)).astype(int) - colours)
    assert off.max() <= 2
    assert off.mean() < 0.6


def test_grey_has_no_colour_and_keeps_its_level():
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    y, cb, cr = to_yuv(grey)
    assert np.array_equal(y, grey[..., 0])
    assert (cb == 128).all()
    assert (cr == 128).all()
    assert np.array_equal(to_rgb(to_yuv(grey)), grey)


def test_a_finer_quantiser_costs_more_and_shows_more():
    frame = np.random.default_rng(0).integers(100, 156, (64, 64, 3), dtype=np.uint8)
    sizes, errors = [], []
    for qp in (27, 21):
        data = encode_intra(frame, qp)
        sizes.append(len(data))
        errors.append(np.square(decode_intra(data, 64, 64).astype(float) - frame).mean())
    assert sizes[1] > sizes[0]
    assert errors[1] < errors[0]
    assert np.abs(decode_intra(encode_intra(smooth(), 21), 64, 128).astype(int) - smooth()).mean() < 3


def test_what_is_not_the_picture_is_refused():
    data = encode_intra(smooth(), 25)
    assert encode_intra(smooth(), 25) == data
    for spoiled, size, words in (
        (data, (64, 64), "one 4:4:4 picture of 64 x 64"),
        (b"", (64, 128), "got none"),
        (b"not a picture at all" * 9, (64, 128), "I-frame"),
    ):
        with pytest.raises(StreamError, match=words):
            decode_intra(spoiled, *size)


@pytest.mark.slow
def test_a_stream_that_announces_a_huge_picture_takes_no_memory():
    """A million grey pixels are less than 2 kB; FFmpeg is told how many pixels it may make room for."""
    huge = encode_intra(np.full((1024, 1024, 3), 128, np.uint8), 40)
    assert len(huge) < 2000
    with pytest.raises(StreamError):
        decode_intra(huge, 64, 64)


def test_without_pyav_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"labkit\[video\]"):
        encode_intra(smooth(), 25)
