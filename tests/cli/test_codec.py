"""`labkit codec` on small generated videos: there and back, what it says, and what it leaves behind."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import cli
from labkit.papers.mlvc.method import video_files
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network, Settings

av = pytest.importorskip("av", reason="needs the extra 'video'")
pytest.importorskip("constriction", reason="needs the extra 'video'")


def video(path: Path, pixels: list[np.ndarray], codec: str = "ffv1", kind: str = "bgr0", rate: int = 30) -> Path:
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = pixels[0].shape[1], pixels[0].shape[0], kind
        for picture in pixels:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    return path


def read(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def gliding(count: int = 4, height: int = 51, width: int = 63) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width]
    return [np.stack([2 * y, 3 * (x + t), y + x], axis=-1).clip(0, 255).astype(np.uint8) for t in range(count)]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("codec") / "model.safetensors"
    Codec({2: Network(Settings(width=0.05))}).save(path)
    return path


@pytest.fixture(scope="session")
def codec(model) -> Codec:
    return Codec.load(model)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys, model):
    """In an empty folder with clip.mkv; runs `labkit codec ...` with the model: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    video(tmp_path / "clip.mkv", gliding())

    def run(*words: str, networks: bool = True) -> tuple[int, str, str]:
        more = ("--model", str(model)) if networks and words[0] != "info" else ()
        try:
            cli.main(["codec", *words, *more])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.slow
def test_there_and_back(here, model):
    """The video that comes out holds exactly the decoded pixels, odd sizes and frame rate included."""
    code, said, _ = here("encode", "clip.mkv", "clip.mlvc", "--gop", "3")
    assert (code, "4 frames of 63 x 51" in said, "bits a pixel" in said) == (0, True, True)
    code, said, _ = here("decode", "clip.mlvc", "back.mkv")
    assert (code, "4 frames, every pixel as decoded" in said) == (0, True)
    expected = Codec.load(model).decode(Path("clip.mlvc").read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(read(Path("back.mkv")), expected, strict=True))
    with av.open("back.mkv") as source:
        assert source.streams.video[0].average_rate == 30
    code, said, _ = here("decode", "clip.mlvc", "back.mp4")
    assert (code, "coded again as H.264" in said) == (0, True)
    assert read(Path("back.mp4"))[0].shape == (52, 64, 3)
    assert sorted(os.listdir()) == ["back.mkv", "back.mp4", "clip.mkv", "clip.mlvc"]


def test_info_tells_what_is_in_a_file_and_whether_it_is_whole(here):
    here("encode", "clip.mkv", "clip.mlvc", "--gop", "3", "--frames", "4")
    code, said, _ = here("info", "clip.mlvc")
    size = Path("clip.mlvc").stat().st_size
    assert code == 0
    for part in (
        "63 x 51, 4 frames at 30 a second",
        "quality 2, an I-frame every 3 at least",
        f"{size:,} bytes",
        "whole:",
    ):
        assert part in said
    parts = [int(line.split()[-2].replace(",", "")) for line in said.splitlines() if line.startswith("  ")]
    assert sum(parts) == size
    Path("clip.mlvc").write_bytes(Path("clip.mlvc").read_bytes()[:-5])
    code, said, _ = here("info", "clip.mlvc")
    assert (code, "are damaged" in said, "1 of 4 frames are missing" in said, "whole" in said) == (0, True, True, False)


@pytest.mark.slow
def test_damage_is_an_error_or_concealed(here):
    here("encode", "clip.mkv", "clip.mlvc")
    content = bytearray(Path("clip.mlvc").read_bytes())
    content[-3] ^= 1
    Path("clip.mlvc").write_bytes(content)
    code, _, stderr = here("decode", "clip.mlvc", "back.mkv")
    assert (code, "damaged at frame 3 of 4" in stderr, "--conceal" in stderr) == (2, True, True)
    assert sorted(os.listdir()) == ["clip.mkv", "clip.mlvc"]
    code, said, _ = here("decode", "clip.mlvc", "back.mkv", "--conceal")
    assert (code, "1 frames were lost" in said) == (0, True)
    assert len(read(Path("back.mkv"))) == 4


@pytest.mark.slow
def test_what_does_not_come_along_is_told(here):
    """An alpha channel, ten bits, sound, frames that stand for longer than others."""
    with av.open("alpha.mkv", "w") as sink:
        stream = sink.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgra"
        sound = sink.add_stream("pcm_s16le", rate=8000, layout="mono")
        sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 4), np.uint8), format="bgra")))
        audio = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        audio.sample_rate = 8000
        sink.mux(sound.encode(audio))
        sink.mux(stream.encode())
    code, said, _ = here("encode", "alpha.mkv", "a.mlvc")
    assert (code, "not in the file: audio (1 tracks), the alpha channel" in said) == (0, True), said
    video(Path("deep.mkv"), gliding(), kind="yuv420p10le")
    code, said, _ = here("encode", "deep.mkv", "b.mlvc")
    assert (code, "precision beyond 8 bits (yuv420p10le)" in said) == (0, True), said
    with av.open("halting.mkv", "w") as sink:
        stream = sink.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        for time in (0, 40, 80, 400):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            stream.codec_context.time_base = picture.time_base
            sink.mux(stream.encode(picture))
        sink.mux(stream.encode())
    code, said, _ = here("encode", "halting.mkv", "c.mlvc")
    assert (code, "varying frame times (25 frames a second throughout)" in said) == (0, True), said
    for kind in ("gray", "yuv444p"):
        video(Path(f"{kind}.mkv"), gliding(2), kind=kind)
        assert here("encode", f"{kind}.mkv", f"{kind}.mlvc")[0] == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("encode", "nothing.mp4", "o.mlvc"), ["there is no video nothing.mp4"]),
        (("encode", "text.mp4", "o.mlvc"), ["text.mp4 cannot be read as a video"]),
        (("encode", "clip.mkv", "o.mp4"), ["OUT needs the ending .mlvc"]),
        (("encode", "clip.mkv", "o"), ["OUT needs an ending"]),
        (("encode", "clip.mkv", "clip.mkv"), ["OUT is the input itself"]),
        (("encode", "clip.mkv", "nowhere/o.mlvc"), ["there is no folder nowhere"]),
        (("encode", "clip.mkv", "folder.mlvc"), ["folder.mlvc is a folder"]),
        (("encode", "clip.mkv", "there.mlvc"), ["there.mlvc is there already", "--overwrite"]),
        (("encode", "clip.mkv", "o.mlvc", "--quality", "3"), ["has networks for quality 2; got 3"]),
        (("encode", "clip.mkv", "o.mlvc", "--gop", "0"), ["gop, the frames from one I-frame"]),
        (("encode", "clip.mkv", "o.mlvc", "--frames", "-1"), ["--frames lies between"]),
        (("encode", "clip.mkv", "o.mlvc", "--device", "tpu"), ["'tpu'"]),
        (("encode", "clip.mkv", "x" * 300 + ".mlvc"), ["OUT: a name has 255 bytes at most"]),
        (("decode", "nothing.mlvc", "o.mkv"), ["there is no file nothing.mlvc"]),
        (("decode", "clip.mkv", "o.mkv"), ["no .mlvc file of `labkit codec`"]),
        (("decode", "there.mlvc", "o.xyz"), ["no .mlvc file"]),
        (("decode", "folder.mlvc", "o.mkv"), ["folder.mlvc cannot be read"]),
        (("info", "clip.mkv"), ["no .mlvc file"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_told_before_anything_is_written(here, codec, monkeypatch, words, parts):
    monkeypatch.setattr(Codec, "load", lambda *_: codec)  # twenty times the same networks
    Path("folder.mlvc").mkdir()
    Path("there.mlvc").write_bytes(b"something")
    Path("text.mp4").write_text("not a video" * 50)
    before = sorted(os.listdir())
    code, _, stderr = here(*words)
    assert (code, "Traceback" in stderr) == (2, False)
    for part in parts:
        assert part in stderr
    assert sorted(os.listdir()) == before
    assert Path("there.mlvc").read_bytes() == b"something"


def test_a_file_of_sound_alone_is_refused(here, codec, monkeypatch):
    monkeypatch.setattr(Codec, "load", lambda *_: codec)
    with av.open("sound.mka", "w") as sink:
        sound = sink.add_stream("pcm_s16le", rate=8000, layout="mono")
        audio = av.AudioFrame.from_ndarray(np.zeros((1, 80), dtype=np.int16), format="s16", layout="mono")
        audio.sample_rate = 8000
        sink.mux(sound.encode(audio))
    code, _, stderr = here("encode", "sound.mka", "o.mlvc")
    assert (code, "sound.mka holds no video stream, only audio" in stderr) == (2, True), stderr
    assert sorted(os.listdir()) == ["clip.mkv", "sound.mka"]


@pytest.mark.slow
def test_outputs_that_no_video_has(here):
    here("encode", "clip.mkv", "clip.mlvc")
    code, _, stderr = here("decode", "clip.mlvc", "o.xyz")
    assert (code, "o.xyz cannot be written" in stderr, ".mkv" in stderr) == (2, True, True)
    assert sorted(os.listdir()) == ["clip.mkv", "clip.mlvc"]


def test_ctrl_c_leaves_no_half_file_and_the_old_one_alone(here, monkeypatch):
    Path("old.mlvc").write_bytes(b"old")

    def stopped(*_):
        yield gliding()[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(video_files, "pictures", stopped)
    code, _, stderr = here("encode", "clip.mkv", "old.mlvc", "--overwrite")
    assert (code, "stopped; nothing was written to old.mlvc" in stderr) == (1, True)
    assert Path("old.mlvc").read_bytes() == b"old"
    assert sorted(os.listdir()) == ["clip.mkv", "old.mlvc"]


def test_a_full_disk_is_told_and_leaves_nothing(here):
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        code, _, stderr = here("encode", "clip.mkv", "o.mlvc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (code, "cannot write o.mlvc: File too large" in stderr) == (1, True), stderr
    assert sorted(os.listdir()) == ["clip.mkv"]


def test_without_pyav_the_error_names_the_extra(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, stderr = here("encode", "clip.mkv", "o.mlvc")
    assert (code, "pip install 'labkit[video]'" in stderr) == (2, True)
