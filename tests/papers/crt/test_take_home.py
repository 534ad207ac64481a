"""The lines of the notebook's heading 10, on a video that the repository does not hold; and the same by the command."""

import contextlib
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from labkit import cli, paths

NOTEBOOK = paths.root() / "notebooks" / "07_crt.py"


def snippet() -> str:
    """The first Python block of heading 10."""
    page = NOTEBOOK.read_text().split("# ## 10 ", 1)[1]
    block = re.search(r"^# ```python\n(.*?)^# ```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return "\n".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines())


def a_kite_behind_a_wall(frames: int = 40) -> tuple[list[np.ndarray], np.ndarray]:
    """A kite sails over hills to the right and passes behind a wall; x, y, width, height of its box in each frame."""
    pictures, boxes = [], []
    for t in range(frames):
        image = Image.new("RGB", (320, 180), (150, 190, 235))
        pen = ImageDraw.Draw(image)
        for x in range(-40, 360, 50):
            pen.ellipse((x, 120 + x % 37, x + 90, 260), fill=(70, 110 + x % 50, 60))
        x, y = 30 + 5 * t, 60 + 10 * np.sin(t / 4)
        pen.polygon([(x + 12, y), (x + 24, y + 15), (x + 12, y + 34), (x, y + 15)], fill=(210, 40, 40))
        pen.line([(x + 12, y), (x + 12, y + 34)], fill=(250, 230, 80), width=3)
        pen.line([(x, y + 15), (x + 24, y + 15)], fill=(30, 30, 90), width=3)
        pen.rectangle((100, 20, 200, 180), fill=(120, 100, 90))
        pictures.append(np.asarray(image))
        boxes.append((x, y, 24, 34))
    return pictures, np.array(boxes)


FRAMES, BOXES = a_kite_behind_a_wall()
HIDDEN = range(15, 30)  # wholly behind the wall
SEEN = (*range(1, 12), *range(35, 40))


def test_the_lines_are_ten_at_most():
    assert len(snippet().splitlines()) <= 10


def test_the_lines_follow_a_kite_and_find_it_again():
    """The wall is wider than half the search image: a box that rests at its near edge does not see the far one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet(), {"my_frames": FRAMES, "my_box": tuple(BOXES[0])})
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert len(rows) == len(FRAMES) - 1
    absent = {t for t, row in enumerate(rows, 1) if row[-1] == "absent"}
    assert absent >= set(HIDDEN)
    assert not absent & set(SEEN)
    for t in SEEN:  # the centre within a third of its size
        x, y, w, h = map(float, rows[t - 1][:4])
        assert np.abs([x + w / 2 - BOXES[t, 0] - 12, y + h / 2 - BOXES[t, 1] - 17]).max() < 8


@pytest.mark.slow
def test_the_command_follows_it_in_a_video_file(tmp_path: Path, monkeypatch):
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    monkeypatch.chdir(tmp_path)
    with av.open("kite.mkv", "w") as sink:
        stream = sink.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 180, "yuv420p", 4_000_000
        for picture in FRAMES:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    with pytest.raises(SystemExit) as end:
        cli.main(["track", "kite.mkv", "--box", "30,60,24,34", "--out", "out.mp4"])
    assert not end.value.code
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(FRAMES)
    assert abs(float(rows[-1]["x"]) - BOXES[-1, 0]) < 8
    assert abs(float(rows[-1]["y"]) - BOXES[-1, 1]) < 8
