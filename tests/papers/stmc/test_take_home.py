"""The lines of the notebook's heading 10, on clips that the repository does not hold; and the same by the commands."""

import contextlib
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from labkit import cli, paths

NOTEBOOK = paths.root() / "notebooks" / "09_stmc.py"
WORDS = ("SUN", "RAIN")


def snippet() -> str:
    """The first Python block of heading 10."""
    page = NOTEBOOK.read_text().split("# ## 10 ", 1)[1]
    block = re.search(r"^# ```python\n(.*?)^# ```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return "\n".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines())


def semaphore(words: tuple[str, ...], seed: int) -> list[np.ndarray]:
    """Somebody with a flag: up for SUN, down for RAIN; eight frames a word."""
    random = np.random.default_rng(seed)
    frames = []
    for word in words:
        for _ in range(8):
            image = Image.new("RGB", (64, 48), tuple(int(v) for v in random.integers(60, 90, 3)))
            pen = ImageDraw.Draw(image)
            x, y = 28 + int(random.integers(-3, 4)), 20
            pen.ellipse((x, 4, x + 10, 14), fill=(220, 180, 150))
            pen.rectangle((x + 2, 14, x + 8, 44), fill=(40, 60, 120))
            top = y - 16 if word == "SUN" else y + 8
            pen.rectangle((x + 12, top, x + 30, top + 12), fill=(240, 220, 60) if word == "SUN" else (60, 120, 240))
            frames.append(np.asarray(image))
    return frames


def clips(folder: Path, count: int = 12) -> Path:
    """Sentences of two or three words as folders of frames, the last one as a video."""
    rows = ["name,glosses,split"]
    for k in range(count):
        words = tuple(WORDS[(k + j) % 2] for j in range(2 + k % 2))
        split = "dev" if k >= count - 2 else "train"
        rows.append(f"clip-{k},{' '.join(words)},{split}")
        (folder / f"clip-{k}").mkdir(parents=True)
        for t, frame in enumerate(semaphore(words, k)):
            Image.fromarray(frame).save(folder / f"clip-{k}" / f"{t:03d}.png")
    (folder / "glosses.csv").write_text("\n".join(rows) + "\n")
    return folder


def call(*words: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert not end.value.code, printed.getvalue()
    return printed.getvalue()


def test_the_lines_are_ten_at_most():
    assert len([line for line in snippet().splitlines() if line.strip()]) <= 10


@pytest.mark.slow
def test_flags_are_learned_from_a_folder_and_read_by_lines_and_command(tmp_path, monkeypatch):
    """labkit train -p data folder:..., then `labkit recognise` and the lines of heading 10."""
    monkeypatch.chdir(tmp_path)
    folder = clips(tmp_path / "my_clips")
    fields = {"data": f"folder:{folder}", "train_sentences": "0", "test_sentences": "0", "epochs": "25"}
    pairs = [word for pair in fields.items() for word in ("-p", *pair)]
    call("train", "stmc", "--run-dir", "run", "--device", "cpu", *pairs)
    printed = call("recognise", "run", str(folder / "clip-11"), "--csv")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert {row["gloss"] for row in rows} <= set(WORDS)
    assert rows  # both seeds that were tried read every word
    assert all(0 <= float(row["start"]) < float(row["end"]) <= 24 / 25 for row in rows)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet(), {"my_run": "run", "my_frames": semaphore(("SUN", "RAIN"), 99)})
    assert set(said.getvalue().splitlines()[0].split()) <= set(WORDS)
    assert Path("recognizer.safetensors").exists()
    assert " ".join(row["gloss"] for row in rows) in call(
        "recognise", "recognizer.safetensors", str(folder / "clip-11")
    )


def test_the_command_reads_a_video_with_its_own_rate(tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    import torch

    from labkit.papers.stmc import SMALL, STMC, Recognizer

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = STMC(SMALL, 3)
    with torch.no_grad():  # says SUN everywhere, so that something is printed
        model.heads.joint.linear.weight.zero_()
        model.heads.joint.linear.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    Recognizer(model, WORDS, "multi-cue").save("model.safetensors")
    with av.open("clip.mkv", "w") as sink:
        stream = sink.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in semaphore(WORDS, 1):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        sink.mux(stream.encode())
    assert call("recognise", "model.safetensors", "clip.mkv", "--csv") == "gloss,start,end\nSUN,0.00,2.00\n"
    assert call("recognise", "model.safetensors", "clip.mkv", "--ctm") == "clip 1 0.00 2.00 SUN\n"
    assert "SUN" in call("recognise", "model.safetensors", "clip.mkv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none", "clip.mkv"), "there is no run"),
        (("model.safetensors", "none.mkv"), "there is no"),
        (("model.safetensors", "clip.mkv", "--rate", "0"), "--rate must be above 0"),
        (("model.safetensors", "clip.mkv", "--device", "tpu"), "--device must be"),
        (("model.safetensors", "clip.mkv", "--csv", "--ctm"), "two formats"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("clip.mkv").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        cli.main(["recognise", *words])
    assert end.value.code in (1, 2)
    assert message in capsys.readouterr().err
