"""Windows of made-up datasets in the real layouts: which frames, which boxes, which labels."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.errors import DataError, InputError
from labkit.papers.lstr import PAPER
from labkit.papers.lstr.experiment import evaluate, real, train
from labkit.papers.lstr.experiment.config import CONFIGS
from labkit.papers.lstr.experiment.tubelets import Tubelets
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

SMALL = CONFIGS["full"].override(
    backbone="small", frames=2, frame_stride=1, clips=2, size=40, videos=4, test_videos=2, batch_size=2,
    proposal_batch=4, flip=False, device="cpu",
)  # fmt: skip


def ucf(folder, frames: int = 9) -> None:
    """Two videos of 80 x 40 pixels, frame t of brightness 20 t; a tube in frames 2 to 8."""
    names = ["Diving/v_Diving_g01_c01", "Diving/v_Diving_g02_c01"]
    boxes = np.tile(np.array([[10, 10, 20, 20]], np.uint8), (7, 1))
    content = {
        name: {"numf": frames, "label": 5, "annotations": [{"label": 5, "sf": 2, "ef": 9, "boxes": boxes}]}
        for name in names
    }
    folder.mkdir(parents=True)
    (folder / "pyannot.pkl").write_bytes(pickle.dumps(content))
    (folder / "testlist01.txt").write_text(names[1] + "\n")
    for name in names:
        pictures = folder / "rgb-images" / name
        pictures.mkdir(parents=True)
        for t in range(frames):
            Image.fromarray(np.full((40, 80, 3), min(20 * t, 255), np.uint8)).save(pictures / f"{t + 1:05d}.png")


def act(folder, name: str) -> None:
    videos = {"one": {0: [np.array([[t + 1, 10.0, 5, 30, 35] for t in range(9)])]}}
    videos["two"] = {1: [np.array([[t + 1, 10.0, 5, 30, 35] for t in range(9)])]}
    content = {
        "labels": ["run", "sit"], "gttubes": videos, "nframes": {"one": 9, "two": 9},
        "train_videos": [["one"]], "test_videos": [["two"]], "resolution": {"one": (40, 80), "two": (40, 80)},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / name).write_bytes(pickle.dumps(content))
    for video in videos:
        (folder / "Frames" / video).mkdir(parents=True)
        for t in range(9):
            Image.fromarray(np.full((40, 80, 3), 20 * t, np.uint8)).save(folder / "Frames" / video / f"{t + 1:06d}.png")


def test_windows_of_tubes(tmp_path):
    ucf(tmp_path / "ucf")
    train, test = real.sources(SMALL.override(data=f"ucf24:{tmp_path / 'ucf'}"))
    assert len(train.classes) == 24
    assert (len(train), len(test)) == (2, 2)  # frames 0 to 3, and 4 to 7
    first, second = train.window(0), train.window(1)
    brightness = (first.clips * 255).mean((1, 3, 4))  # (clips, frames)
    torch.testing.assert_close(brightness, torch.tensor([[0.0, 20.0], [40.0, 60.0]]), rtol=0, atol=1)
    assert first.valid.tolist() == [[False], [True]]  # the tube begins with frame 2
    assert second.valid.all()
    assert first.truth[1, 0, 0].tolist() == [5.0, 10.0, 15.0, 30.0]  # 80 x 40 became 40 x 40
    assert first.targets[1, 0].argmax() == 5
    assert first.targets[0].sum() == 0


def test_windows_without_truth_are_no_end(tmp_path):
    """Proposals are measured where there is a truth; a test without any is refused before any work."""
    ucf(tmp_path / "ucf", frames=80)
    config = SMALL.override(data=f"ucf24:{tmp_path / 'ucf'}", test_videos=20)
    _, test = real.sources(config)
    counts = [int(test.window(k).valid.sum()) for k in range(len(test))]
    assert len(counts) == 20
    assert counts[0] > 0 == sum(counts[10:])
    tubelets = Tubelets(train.proposal_network(config).eval(), 3, config.size)
    recalls = evaluate.proposals(tubelets, test, Workers(0, 1, torch.device("cpu")))
    assert all(0 <= value <= 1 for value in recalls.values())
    with pytest.raises(DataError, match="shorter clips"):
        real.sources(config.override(frames=8))


def test_mirrored_windows_follow_all_others(tmp_path):
    ucf(tmp_path / "ucf")
    train, test = real.sources(SMALL.override(data=f"ucf24:{tmp_path / 'ucf'}", flip=True))
    assert (len(train), len(test)) == (4, 2)
    assert train.window(2).truth[1, 0, 0].tolist() == [25.0, 10.0, 35.0, 30.0]
    torch.testing.assert_close(train.window(2).clips, train.window(0).clips.flip(-1))


def slowfast(folder, header: str = "original_vido_id video_id frame_id path labels") -> None:
    """AVA in SlowFast's layout: frame 60 + t has brightness 4 t. The list leaves out a title and the last frame."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "frame_lists").mkdir()
    (folder / "frames" / "m").mkdir(parents=True)
    names = 'item {\n  name: "stand"\n  id: 12\n}\n'
    (folder / "annotations" / "ava_action_list_v2.1_for_activitynet_2018.pbtxt").write_text(names)
    for t in range(130):
        shade = np.full((30, 40, 3), min(max(0, t - 60) * 4, 255), np.uint8)
        Image.fromarray(shade).save(folder / "frames" / "m" / f"m_{t + 1:06d}.png")
    Image.fromarray(np.full((30, 40, 3), 255, np.uint8)).save(folder / "frames" / "m" / "a_title.png")
    for part in ("train", "val"):
        rows = [f'm 0 {t} m/m_{t + 1:06d}.png ""' for t in range(129)]
        (folder / "frame_lists" / f"{part}.csv").write_text("\n".join([header, *rows]) + "\n")
        (folder / "annotations" / f"ava_{part}_v2.1.csv").write_text(
            "m,0902,0.25,0.2,0.5,0.8,12,0\nm,0902,0.25,0.2,0.5,0.8,80,0\nm,0903,0.25,0.2,0.5,0.8,12,0\n"
        )


def test_windows_of_ava_in_the_layout_of_slowfast(tmp_path):
    """Second 902 is frame 60 of the list, of which a title in the same folder is no part."""
    slowfast(tmp_path)
    train, test = real.sources(SMALL.override(data=f"ava:{tmp_path}", frames=4, frame_stride=2))
    assert train.classes == test.classes == ("stand",)
    window = train.window(0)
    brightness = (window.clips * 255).mean((1, 3, 4))
    wanted = torch.tensor([[0.0, 0.0, 4.0, 12.0], [27 * 4, 29 * 4, 31 * 4, 33 * 4]])
    torch.testing.assert_close(brightness, wanted, rtol=0, atol=1)
    assert window.truth[0, 0, 0].tolist() == pytest.approx([10, 8, 20, 32])
    assert window.targets.tolist() == [[[1.0]], [[1.0]]]
    assert len(train.frames_of("m")) == 129


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "file"), [("jhmdb", "JHMDB-GT.pkl"), ("ucf-sports", "UCFSports-GT.pkl"), ("ucf24", "")]
)
def test_full_starts_on_made_up_data_of_the_real_layout(tmp_path, kind, file):
    """A few steps of `full` on tiny frames; UCF-101-24 with its own backbone, SlowOnly (1 GB with optimizers)."""
    act(tmp_path / "data", file) if file else ucf(tmp_path / "data")
    config = CONFIGS["full"].override(
        data=f"{kind}:{tmp_path / 'data'}", arms=("cascade",), frames=2, frame_stride=1, clips=2, size=64, videos=2,
        test_videos=1, batch_size=2, proposal_batch=4, proposal_steps=1, steps=1, proposals=3, width=16, bins=2,
        backbone="small" if file else "slow-only", device="cpu", bf16=False,
    )  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path / "run", config))
    assert result["data"] == kind
    assert set(result["arms"]) == {"cascade"}


@pytest.mark.slow
def test_gpu_starts(tmp_path):
    config = CONFIGS["gpu"].override(arms=("cascade", "lfb-max"), videos=8, test_videos=2, walking=1, proposal_steps=1,
                                     proposal_batch=10, steps=1, batch_size=8, device="cpu")  # fmt: skip
    assert PAPER.run(config, Run.open(tmp_path, config))["data"] == "generated actors"


def test_missing_files_are_refused_before_any_work(tmp_path):
    with pytest.raises(DataError, match=r"crcv\.ucf\.edu"):
        real.sources(SMALL.override(data=f"ucf24:{tmp_path}"))
    with pytest.raises(DataError, match="act-detector"):
        real.sources(SMALL.override(data=f"jhmdb:{tmp_path}"))
    with pytest.raises(DataError, match=r"lacks train\.csv"):
        real.sources(SMALL.override(data=f"ava:{tmp_path}"))
    ucf(tmp_path / "ucf")
    for path in (tmp_path / "ucf" / "rgb-images").rglob("*.png"):
        path.unlink()
    for path in sorted((tmp_path / "ucf" / "rgb-images").rglob("*"), reverse=True):
        path.rmdir()
    with pytest.raises(DataError, match="the frames of 'Diving/v_Diving_g01_c01' are not in"):
        real.sources(SMALL.override(data=f"ucf24:{tmp_path / 'ucf'}"))
    (tmp_path / "train.csv").write_text("a,1,0.1,0.1,0.5,0.5,3\n")
    (tmp_path / "val.csv").write_text("a,1,0.1,0.1,0.5,0.5,4\n")
    (tmp_path / "videos").mkdir()
    config = SMALL.override(data=f"ava:{tmp_path}")
    with pytest.raises(DataError, match="the frames of 'a' are not in"):
        real.sources(config)
    (tmp_path / "frames" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "frames" / "a" / "a_000001.png")
    with pytest.raises(InputError, match=r"different classes, such as action 3; give a labels\.pbtxt"):
        real.sources(config)
