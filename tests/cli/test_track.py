"""`labkit track` on small generated videos: what it writes, and what it says about all that cannot be tracked."""

import csv
import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from labkit import cli
from labkit.cli.track import make_tracker
from labkit.errors import InputError
from labkit.papers.crt.experiment.config import UNTRAINED
from labkit.tracking import peers
from labkit.tracking import video as following
from labkit.tracking.peers import StaticBox
from labkit.tracking.tracker import Tracked

av = pytest.importorskip("av", reason="needs the extra 'video'")


def video(path: Path, frames: int = 8, size: tuple[int, int] = (96, 64), rate: int = 10, step: int = 3) -> Path:
    """A textured square of 16 pixels on noise, moving `step` pixels a frame to the right from x = 20, y = 24."""
    random = np.random.default_rng(0)
    ground = random.integers(60, 120, (size[1], size[0], 3), dtype=np.uint8)
    target = random.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "10"}
        for t in range(frames):
            picture = ground.copy()
            picture[24:40, 20 + step * t : 36 + step * t] = target
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    return path


def read(path: Path) -> tuple[list[np.ndarray], Fraction]:
    with av.open(str(path)) as source:
        rate = source.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)], rate


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


class Wanders:
    """Moves by three pixels a frame, and loses its target in the third."""

    def init(self, frame: np.ndarray, box: tuple[float, float, float, float]) -> None:
        self.box, self.t = box, 0

    def update(self, frame: np.ndarray) -> Tracked:
        self.t += 1
        x, y, w, h = self.box
        self.box = (x + 3, y, w, h)
        return Tracked(self.box, 0.5, self.t != 2)


@pytest.fixture
def clip(tmp_path):
    return video(tmp_path / "clip.mp4")


def test_the_video_and_its_table_hold_every_frame(clip, tmp_path):
    calls = []

    class Bar:
        def __enter__(self):
            return lambda done, total: calls.append((done, total))

        def __exit__(self, *_):
            return None

    report = following.follow(clip, (20.0, 24.0, 16.0, 16.0), tmp_path / "out.mp4", Wanders(), show=Bar)
    frames, rate = read(tmp_path / "out.mp4")
    assert (len(frames), frames[0].shape, rate) == (8, (64, 96, 3), 10)
    rows = table(tmp_path / "out.csv")
    assert [int(row["frame"]) for row in rows] == list(range(8))
    assert [float(row["x"]) for row in rows] == [20 + 3 * t for t in range(8)]
    assert [row["present"] for row in rows] == ["1", "1", "0", "1", "1", "1", "1", "1"]
    assert (report.frames, report.absent) == (8, 1)
    assert calls == [(t, 8) for t in range(1, 9)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.csv", "out.mp4"]


def test_the_box_is_drawn_where_it_is_and_in_the_colour_of_presence():
    picture = np.full((60, 80, 3), 50, dtype=np.uint8)
    shown = following.drawn(picture, Tracked((20.0, 30.0, 10.0, 8.0), 0.9, True))
    assert shown[30, 20].tolist() == shown[37, 29].tolist() == list(following.PRESENT)
    assert shown[34, 25].tolist() == [50] * 3  # the inside stays free
    assert shown[34, 31].tolist() == [50] * 3
    gone = following.drawn(picture, Tracked((20.0, 30.0, 10.0, 8.0), 0.9, False))
    assert gone[30, 20].tolist() == list(following.ABSENT)
    assert (picture == 50).all()  # the tracker's frame is not drawn into
    following.drawn(picture, Tracked((-500.0, 900.0, 1.0, 0.5), 0.1, True))  # far outside: nothing to draw, no error


def test_start_and_frames_choose_a_stretch(clip, tmp_path):
    report = following.follow(clip, (26.0, 24.0, 16.0, 16.0), tmp_path / "o.mp4", StaticBox(), start=2, frames=3)
    assert report.frames == 3
    assert [int(row["frame"]) for row in table(tmp_path / "o.csv")] == [2, 3, 4]
    assert len(read(tmp_path / "o.mp4")[0]) == 3


def test_odd_sizes_and_other_containers(tmp_path):
    """97 x 65 frames in Matroska; H.264 wants even sides, so the last row and column are doubled."""
    clip = video(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "odd.mkv"), "w") as sink:
        stream = sink.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 97, 65, "bgr0"
        for picture in read(clip)[0]:
            frame = av.VideoFrame.from_ndarray(np.pad(picture, ((0, 1), (0, 1), (0, 0))), format="rgb24")
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())
    following.follow(tmp_path / "odd.mkv", (20.0, 24.0, 77.0, 41.0), tmp_path / "o.mkv", StaticBox())
    frames, _ = read(tmp_path / "o.mkv")
    assert (len(frames), frames[0].shape) == (8, (66, 98, 3))


def test_a_turned_recording_is_tracked_as_it_is_shown(clip, tmp_path, monkeypatch):
    """Telephones store a picture on its side, and the turn beside it."""
    shapes = []

    class Watches(StaticBox):
        def init(self, frame, box):
            shapes.append(frame.shape)
            super().init(frame, box)

    class Turned:
        def __init__(self, frame):
            self.frame, self.time, self.rotation = frame, frame.time, 90

        def to_ndarray(self, format):
            return self.frame.to_ndarray(format=format)

    opened = following._pictures

    class Source:
        def __init__(self, source):
            self.source = source

        def decode(self, stream):
            return (Turned(frame) for frame in self.source.decode(stream))

    monkeypatch.setattr(following, "_pictures", lambda source, stream, path: opened(Source(source), stream, path))
    following.follow(clip, (10.0, 20.0, 16.0, 70.0), tmp_path / "o.mp4", Watches())  # only inside the turned frame
    assert shapes == [(96, 64, 3)]
    assert read(tmp_path / "o.mp4")[0][0].shape == (96, 64, 3)


def test_the_cascade_follows_the_square(clip, tmp_path):
    following.follow(clip, (20.0, 24.0, 16.0, 16.0), tmp_path / "o.mp4", make_tracker("cascade", "cpu"))
    last = table(tmp_path / "o.csv")[-1]
    assert abs(float(last["x"]) - 41) < 4
    assert abs(float(last["y"]) - 24) < 4


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """`labkit track <words>` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["track", *words])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, " ".join(captured.err.split())

    return call


def test_the_command(here, clip):
    code, printed, message = here(str(clip), "--box", "20,24,16,16", "--out", "out.mp4", "--tracker", "static")
    assert (code, message) == (0, "")
    assert "8 frames" in printed
    assert "target absent in 0" in printed
    assert "out.csv" in printed
    assert len(read(Path("out.mp4"))[0]) == 8
    code, _, message = here(str(clip), "--box", "20,24,16,16", "--out", "out.mp4", "--tracker", "static")
    assert (code, "out.mp4 is there already" in message, "--overwrite" in message) == (2, True, True)
    words = (
        str(clip),
        "--box",
        "20,24,16,16",
        "--out",
        "out.mp4",
        "--tracker",
        "static",
        "--frames",
        "2",
        "--overwrite",
    )
    assert here(*words)[0] == 0
    assert len(table(Path("out.csv"))) == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--box", "20,24,16"), ["--box takes four numbers x,y,w,h", "'20,24,16'"]),
        (("--box", "a,b,c,d"), ["four numbers", "'a,b,c,d'"]),
        (("--box", "20,24,0,16"), ["width and height above 0"]),
        (("--box", "nan,1,2,3"), ["width and height above 0"]),
        (("--box", "90,24,16,16"), ["does not lie inside the frame, which is 96 x 64 pixels", "at most 96"]),
        (("--box=-1,24,16,16",), ["does not lie inside the frame"]),
        (("--box", "20,24,16,16", "--start", "99"), ["has no frame 99 that can be decoded"]),
        (("--box", "20,24,16,16", "--start", "-1"), ["--start and --frames lie between 0 and"]),
        (("--box", "20,24,16,16", "--start", "1" + 30 * "0"), ["--start and --frames lie between 0 and 1,000,000,000"]),
        (("--box", "20,24,16,16", "--frames", "1" + 30 * "0"), ["--start and --frames lie between 0 and"]),
        (("--box", "20,24,16,16", "--out", 300 * "x" + ".mp4"), ["--out: a name has 255 bytes at most"]),
        (("--box", "20,24,16,16", "--tracker", "siamese"), ["--tracker must be one of stage-1, cascade", "'siamese'"]),
        (("--box", "20,24,16,16", "--tracker", "GOTURN"), ["GOTURN needs weight files", "CSRT, KCF, MIL, MOSSE"]),
        (("--box", "20,24,16,16", "--tracker", "cascade-learned"), ["'cascade-learned' needs a network", "stage-1"]),
        (("--box", "20,24,16,16", "--device", "tpu"), ["device", "'tpu'"]),
        (("--box", "20,24,16,16", "--out", "o.csv"), ["--out needs the ending of a video"]),
        (("--box", "20,24,16,16", "--out", "video"), ["--out needs the ending of a video"]),
        (("--box", "20,24,16,16", "--out", "o.xyz"), ["o.xyz cannot be written", ".mp4"]),
        (("--box", "20,24,16,16", "--out", "nowhere/o.mp4"), ["there is no folder nowhere"]),
        (("--box", "20,24,16,16", "--out", "clip.mp4"), ["--out is the video itself"]),
        (("--box", "20,24,16,16", "--out", "tcp://127.0.0.1:9/o.mp4"), ["there is no folder tcp:/127.0.0.1:9"]),
        (("--box", "20,24,16,16", "--out", "pipe:"), ["--out needs the ending of a video"]),
        ((), ["Missing option", "--box"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_told_before_anything_is_written(here, clip, words, parts):
    code, _, message = here("clip.mp4", *words, *(() if "--out" in words else ("--out", "o.mp4")))
    assert code == 2
    assert "Traceback" not in message
    for part in parts:
        assert part in message
    assert [path.name for path in Path().iterdir() if path.suffix != ".part"] == ["clip.mp4"]


def test_files_that_are_no_videos(here, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video, not at all" * 50)
    with av.open(str(tmp_path / "sound.wav"), "w") as sink:
        stream = sink.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        sink.mux(stream.encode(frame))
    for name, part in (
        ("nothing.mp4", "there is no video nothing.mp4"),
        ("text.mp4", "text.mp4 cannot be read as a video"),
        ("sound.wav", "sound.wav holds no video stream, only audio"),
    ):
        code, _, message = here(name, "--box", "1,1,9,9", "--out", "o.mp4")
        assert (code, part in message) == (2, True), message
    assert not (tmp_path / "o.mp4").exists()


def test_a_file_that_broke_off_is_tracked_as_far_as_it_goes_and_that_is_said(here, tmp_path):
    """FFmpeg ends such a file in silence; only its header tells that there was more."""
    whole = video(tmp_path / "whole.avi", frames=20, step=2).read_bytes()
    (tmp_path / "torn.avi").write_bytes(whole[: len(whole) * 3 // 4])
    code, printed, _ = here("torn.avi", "--box", "20,24,16,16", "--out", "o.mp4", "--tracker", "static")
    rows = table(tmp_path / "o.csv")
    assert (code, 0 < len(rows) < 20) == (0, True)
    assert f"torn.avi announces {20 - len(rows)} more frames than can be decoded" in printed
    words = ("torn.avi", "--box", "20,24,16,16", "--out", "p.mp4", "--tracker", "static", "--frames", "1")
    assert "announces" not in here(*words)[1]


def test_damage_that_stops_the_decoder_leaves_nothing_and_says_how_far_it_goes(here, clip, monkeypatch):
    opened = following._pictures

    class Source:
        def __init__(self, source):
            self.source = source

        def decode(self, stream):
            for index, frame in enumerate(self.source.decode(stream)):
                if index == 5:
                    raise av.error.InvalidDataError(1, "Invalid data found when processing input")
                yield frame

    monkeypatch.setattr(following, "_pictures", lambda source, stream, path: opened(Source(source), stream, path))
    code, _, message = here("clip.mp4", "--box", "20,24,16,16", "--out", "o.mp4", "--tracker", "static")
    assert (code, "clip.mp4 cannot be decoded beyond 5 frames (Invalid data" in message, "--frames" in message) == (
        2,
        True,
        True,
    )
    assert [path.name for path in Path().iterdir()] == ["clip.mp4"]
    assert here("clip.mp4", "--box", "20,24,16,16", "--out", "o.mp4", "--tracker", "static", "--frames", "5")[0] == 0


def test_a_tracker_that_fails_leaves_nothing(clip, tmp_path):
    class Breaks(StaticBox):
        def update(self, frame):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        following.follow(clip, (20.0, 24.0, 16.0, 16.0), tmp_path / "o.mp4", Breaks())
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_without_pyav_the_error_names_the_extra(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'labkit\[video\]'"):
        following.follow(clip, (20.0, 24.0, 16.0, 16.0), tmp_path / "o.mp4", StaticBox())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*UNTRAINED, "static", *peers.OPENCV])
def test_every_tracker_of_the_list_can_be_made(name):
    """All arms that need no network, and OpenCV's trackers as far as its version has them."""
    if name in peers.OPENCV:
        pytest.importorskip("cv2", reason="needs the extra 'peers'")
    try:
        tracker = make_tracker(name, "cpu")
    except InputError as error:
        pytest.skip(str(error))
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    tracker.init(frame, (20.0, 20.0, 20.0, 20.0))
    assert len(tracker.update(frame).box) == 4


# ---- disks ----------------------------------------------------------------------------------------------------------


def test_what_is_written_plays_in_browsers_and_quicktime(clip, tmp_path):
    """H.264 with chroma at half size, the index before the frames."""
    if "libx264" not in av.codecs_available:
        pytest.skip("this FFmpeg has no encoder for H.264")
    following.follow(clip, (20.0, 24.0, 16.0, 16.0), tmp_path / "o.mp4", StaticBox())
    with av.open(str(tmp_path / "o.mp4")) as source:
        context = source.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = (tmp_path / "o.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("name", ["tcp:1.mp4", "pipe:1.mp4", "concat:a|b.mp4", "100%.mp4", "a b\u00e9.mp4", "-o.mp4"])
def test_a_name_is_the_name_of_a_file_whatever_ffmpeg_reads_in_it(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    clip.rename(tmp_path / name)
    out = f"out-{name}"
    following.follow(Path(name), (20.0, 24.0, 16.0, 16.0), Path(out), StaticBox(), frames=2)
    assert sorted(os.listdir()) == sorted([name, out, str(Path(out).with_suffix(".csv"))])
    following.follow(Path(out), (20.0, 24.0, 16.0, 16.0), Path(f"{'y' * 251}.mp4"), StaticBox())  # as long as it may be


@pytest.fixture
def disk(tmp_path):
    """A disk of 200 kB, which holds the clip and not the outcome of a long one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip("a small disk can be mounted by root only; the same fault is tested with a file size limit")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 4])
def test_a_full_disk_leaves_nothing_and_a_repeat_works(here, clip, disk, free):
    """Full from the start, and filling while the first packets or the table go out."""
    (disk / "filler").write_bytes(bytes((196 - free) * 1024))
    words = ("clip.mp4", "--box", "20,24,16,16", "--out", "disk/o.mp4", "--tracker", "static")
    code, _, message = here(*words)
    assert (code, "cannot write disk/o.mp4: No space left on device" in message) == (1, True), message
    assert os.listdir(disk) == ["filler"]
    (disk / "filler").unlink()
    assert here(*words)[0] == 0
    assert sorted(os.listdir(disk)) == ["o.csv", "o.mp4"]


def test_a_read_only_disk_is_told_before_any_tracking(here, clip, disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, _, message = here("clip.mp4", "--box", "20,24,16,16", "--out", "disk/o.mp4", "--tracker", "static")
    assert (code, "cannot write disk/o.mp4: Read-only file system" in message) == (1, True), message


def test_a_file_that_may_not_grow_leaves_nothing(here, clip):
    """What everybody can have of a full disk; the old pair stays as it was."""
    words = ("clip.mp4", "--box", "20,24,16,16", "--out", "o.mp4", "--tracker", "static")
    assert here(*words)[0] == 0
    before = [Path(name).read_bytes() for name in ("o.mp4", "o.csv")]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        code, _, message = here(*words, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (code, "cannot write o.mp4: File too large" in message) == (1, True), message
    assert [Path(name).read_bytes() for name in ("o.mp4", "o.csv")] == before
    assert sorted(os.listdir()) == ["clip.mp4", "o.csv", "o.mp4"]


def test_a_folder_in_the_way_is_told(here, clip, tmp_path):
    (tmp_path / "o.csv").mkdir()
    words = ("clip.mp4", "--box", "20,24,16,16", "--out", "o.mp4", "--tracker", "static", "--overwrite")
    code, _, message = here(*words)
    assert (code, "o.csv is a folder" in message, (tmp_path / "o.mp4").exists()) == (2, True, False)
