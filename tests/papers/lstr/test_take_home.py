"""What the notebook's last section and the README promise, on files that the repository does not hold."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from labkit import paths
from labkit.cli import app
from labkit.errors import InputError, RunError
from labkit.metrics.detection import read_tubes
from labkit.papers.lstr import PAPER, Detector, load
from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.experiment.config import Config
from labkit.workbench.runs import Run

pytestmark = pytest.mark.slow  # every test needs a trained run

SMALL = Config(videos=8, test_videos=2, walking=0, proposal_steps=30, proposal_batch=20, steps=4, batch_size=4,
               arms=("roi", "cascade"), device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    PAPER.run(SMALL, Run.open(folder, SMALL))
    return folder


def walk(frames: int = 11, scale: int = 1) -> np.ndarray:
    """A video of two walkers, uint8 (t, h, w, 3)."""
    clips = actors.videos(1, 5, actors.WALKING, actors.Actors(clips=8)).clips[0]  # (clips, 3, t, h, w)
    pictures = clips.transpose(1, 2).flatten(0, 1)[:frames].permute(0, 2, 3, 1).mul(255).byte().numpy()
    return pictures.repeat(scale, 1).repeat(scale, 2)


def test_a_run_is_a_detector_for_any_frames(run):
    detector = Detector.load(run)
    assert detector.header.settings.long is not None  # the best arm: the cascade
    tubes = detector(walk(), name="walk", least=0.0)
    assert tubes
    for tube in tubes:
        assert tube.video == "walk"
        assert 0 <= tube.start < tube.end <= 11
        assert tube.label < len(detector.classes)
        assert tube.boxes.min() >= -1
    assert [t.score for t in tubes] == sorted((t.score for t in tubes), reverse=True)
    larger = detector(iter(walk(scale=2)), least=0.0)
    assert len(larger) > 0
    assert max(t.boxes.max() for t in larger) > 60  # in its own pixels
    assert detector(walk(1), least=0.0)[0].end == 1


def test_long_videos_are_windows_with_a_past(run):
    """The first clips do not change when the video goes on: the graph listens to the past only."""
    detector = Detector.load(run)
    short, long = (detector._scored(walk(count))[0] for count in (10, 16))
    assert [len(parts) for parts in (short, long)] == [5, 8]
    for (a, _, _), (b, _, _) in zip(short, long, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ([], "no frames"),
        ([np.zeros((20, 20), np.uint8)], "frames must be RGB"),
        ([np.zeros((20, 20, 3))], "frames must be RGB"),
        ([np.zeros((20, 20, 3), np.uint8), np.zeros((20, 22, 3), np.uint8)], "one size"),
    ],
)
def test_other_frames_are_refused(run, video, words):
    with pytest.raises(InputError, match=words):
        Detector.load(run)(video)


def test_exports_and_what_is_none(run, tmp_path):
    from labkit.workbench import export

    export.export(PAPER, SMALL, Run.open(run, SMALL), tmp_path / "roi", "roi")
    detector = load(tmp_path / "roi")
    assert detector.header.settings.short is None
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nothing.safetensors")
    unfinished = SMALL.override(seed=1)
    Run.open(tmp_path / "new", unfinished)
    with pytest.raises(RunError, match="not finished"):
        load(tmp_path / "new")


def write_video(path, pictures) -> None:
    import av

    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        for picture in pictures:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())


def test_detect_writes_a_video_and_a_table(run, tmp_path, capsys):
    write_video(tmp_path / "walk.mp4", walk(scale=2))
    words = ["detect", str(run), str(tmp_path / "walk.mp4"), "--out", str(tmp_path / "out.mp4"), "--least", "0"]
    with pytest.raises(SystemExit) as end:
        app.main(words)
    assert end.value.code == 0
    assert "11 frames" in capsys.readouterr().out
    tubes, again, names = read_tubes(tmp_path / "out.csv", tmp_path / "out.csv")
    assert len(tubes) == len(again) > 0
    assert set(names) <= set(actors.CLASSES)
    import av

    with av.open(str(tmp_path / "out.mp4")) as source:
        assert sum(1 for _ in source.decode(video=0)) == 11
    for changed, words_of in (
        (words, "is there already"),
        ([*words[:2], str(tmp_path / "none.mp4"), *words[3:], "--overwrite"], "there is no video"),
        ([*words, "--overwrite", "--least", "2"], "--least lies between"),
    ):
        with pytest.raises(SystemExit) as end:
            app.main(changed)
        assert end.value.code == 2
        assert words_of in capsys.readouterr().err


def test_the_map_of_two_files(tmp_path, capsys):
    head = "video,frame,x1,y1,x2,y2,label"
    (tmp_path / "t.csv").write_text(f"{head}\na,0,0,0,20,20,run\na,1,0,0,20,20,walk\n")
    (tmp_path / "d.csv").write_text(f"{head},score\na,0,0,0,20,20,run,.9\n")
    with pytest.raises(SystemExit) as end:
        app.main(["detection-map", "frame", str(tmp_path / "t.csv"), str(tmp_path / "d.csv")])
    assert end.value.code == 0
    assert "0.5000" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        app.main(["detection-map", "video", str(tmp_path / "t.csv"), str(tmp_path / "d.csv")])
    assert end.value.code == 2
    assert "lacks the column tube" in capsys.readouterr().err


def own_ava(folder) -> None:
    """A table like AVA's with videos and frames of one's own."""
    rng = np.random.default_rng(0)
    (folder / "videos").mkdir(parents=True)
    write_video(folder / "videos" / "a.mp4", rng.integers(0, 255, (60, 48, 64, 3), dtype=np.uint8))
    (folder / "frames" / "b").mkdir(parents=True)
    for k in range(8 * 30):
        if k % 10 == 0:
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(
                folder / "frames" / "b" / f"b_{k:06d}.jpg"
            )
    rows = [
        f"{video},{second},0.1,0.2,0.5,0.9,{action},0" for video in "ab" for second in range(1, 6) for action in (1, 4)
    ]
    rows += ["a,2,0.5,0.1,0.9,0.9,4,1"]
    for part in ("train", "val"):
        (folder / f"{part}.csv").write_text("\n".join(rows) + "\n")


def test_train_on_a_table_of_ones_own(tmp_path):
    """labkit train lstr -p data ava:PATH, with the small backbone for speed."""
    own_ava(tmp_path / "mine")
    config = PAPER.config(
        "full", data=f"ava:{tmp_path / 'mine'}", arms=("roi", "cascade"), backbone="small", width=16, bins=2, frames=2,
        clips=2, size=32, videos=2, test_videos=2, proposals=3, proposal_batch=4, proposal_steps=2, steps=2,
        batch_size=2, anchors=(12.0,), ratios=(2.0,), device="cpu",
    )  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path / "run", config))
    assert result["data"] == "ava"
    assert result["labels"] == "multi"
    assert result["classes"] == ["action 1", "action 4"]
    assert 0 <= result["arms"]["cascade"]["frame_map"] <= 1
    detector = Detector.load(tmp_path / "run")
    assert detector.classes == ("action 1", "action 4")
    assert isinstance(detector(np.zeros((9, 40, 50, 3), np.uint8), least=0.0), list)


def test_the_lines_of_the_readme_run(run, tmp_path):
    """In a process of their own, as somebody would type them."""
    np.save(tmp_path / "frames.npy", walk())
    lines = f"""
import numpy as np
from labkit.papers.lstr import Detector

detector = Detector.load({str(run)!r})
for tube in detector(np.load({str(tmp_path / "frames.npy")!r})):
    print(detector.classes[tube.label], tube.start, tube.end, tube.score, tube.boxes[0])
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=paths.root(), check=False)
    assert done.returncode == 0, done.stderr
