"""The lines of the notebook's heading 10, on frames that the repository does not hold."""

import contextlib
import io
import re

import numpy as np
import pytest

from labkit import paths
from labkit.errors import InputError

NOTEBOOK = paths.root() / "notebooks" / "06_mlvc.py"


def snippet() -> str:
    """The first Python block of heading 10."""
    page = NOTEBOOK.read_text().split("# ## 10 ", 1)[1]
    block = re.search(r"^# ```python\n(.*?)^# ```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return "\n".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines())


def a_balloon_over_hills(frames: int = 5, height: int = 75, width: int = 91) -> list[np.ndarray]:
    """A red balloon rises over green hills; odd sizes."""
    y, x = np.mgrid[:height, :width]
    pictures = []
    for t in range(frames):
        hills = y > 50 + 8 * np.sin((x + t) / 9)
        picture = np.where(hills[..., None], (60, 120, 50), (150, 190, 235)).astype(np.uint8)
        balloon = (x - 40) ** 2 + (y - 40 + 2 * t) ** 2 < 120
        picture[balloon] = (200, 40, 40)
        pictures.append(picture)
    return pictures


def test_the_lines_are_ten_at_most():
    assert len(snippet().splitlines()) <= 10


@pytest.mark.slow
def test_the_lines_code_a_balloon_and_give_it_back():
    given, said = a_balloon_over_hills(), io.StringIO()
    names: dict[str, object] = {"my_frames": given}
    with contextlib.redirect_stdout(said):
        exec(snippet(), names)
    back = names["frames"]
    assert [f.shape for f in back] == [f.shape for f in given]
    assert re.fullmatch(r"[\d,]+ bytes, \d+\.\d{3} bits a pixel\n", said.getvalue())
    assert len(names["data"]) < sum(f.size for f in given) / 4
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(given, back, strict=True)]
    assert max(errors) < 255**2 / 10**2.2  # 22 dB: small networks, and none has ever seen a balloon


def test_what_the_lines_cannot_take_is_refused_by_name():
    from labkit.papers.mlvc import Codec

    codec = Codec.load()
    with pytest.raises(InputError, match=r"frames must be uint8 RGB.*frame 0 is float64.*Convert values in \[0, 1\]"):
        codec.encode([np.zeros((64, 64, 3))])
    with pytest.raises(InputError, match="Drop the alpha channel"):
        codec.encode([np.zeros((64, 64, 4), np.uint8)])
    with pytest.raises(InputError, match="has networks for quality"):
        codec.encode(a_balloon_over_hills(1), quality=9)
