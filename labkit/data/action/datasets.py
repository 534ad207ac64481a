"""UCF-101-24, J-HMDB and UCF-Sports as they are given out.

UCF-101-24 comes in two files that say the same: a pickle (frames from 0, end exclusive, boxes x, y, w, h partly in
uint8, which must be widened before x + w) and a MATLAB file (frames from 1, end inclusive). J-HMDB and UCF-Sports are
read from the pickles of ACT (boxes x1, y1, x2, y2, frames from 1), J-HMDB also from its puppet masks.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labkit import paths
from labkit.data.action import matlab
from labkit.data.action.annotations import ActionSet, ActionVideo, AnnotatedTube
from labkit.data.action.unpickle import read_pickle
from labkit.errors import DataError

MOST_FRAMES = 10_000_000
UCF24_CLASSES = (
    "Basketball", "BasketballDunk", "Biking", "CliffDiving", "CricketBowling", "Diving", "Fencing", "FloorGymnastics",
    "GolfSwing", "HorseRiding", "IceDancing", "LongJump", "PoleVault", "RopeClimbing", "SalsaSpin", "SkateBoarding",
    "Skiing", "Skijet", "SoccerJuggling", "Surfing", "TennisSwing", "TrampolineJumping", "VolleyballSpiking",
    "WalkingWithDog",
)  # fmt: skip
FILES = {
    "ucf24": ("pyannot.pkl", "finalAnnots.mat", "testlist01.txt"),
    "action": ("ucf101_24_pyannot.pkl", "ucf101_24_finalAnnots.mat", "ucf101_24_testlist01.txt"),
}


def ucf24(folder: Path | None = None) -> ActionSet:
    """UCF-101-24, split 1: what its test list does not name trains.

    Raises:
        DataError: neither LABKIT_DATA/ucf24 nor LABKIT_DATA/action holds its annotations, or they are damaged.
    """
    candidates = [(folder, name) for name in FILES] if folder else [(paths.data_dir() / name, name) for name in FILES]
    for root, name in candidates:
        pickled, matlab, listed = (root / file for file in FILES[name])
        if pickled.exists() or matlab.exists():
            videos = read_ucf24_pickle(pickled) if pickled.exists() else read_ucf24_mat(matlab)
            test = [line.strip() for line in _text(listed).splitlines() if line.strip()]
            known = tuple(name for name in test if name in videos)
            if not known:
                raise DataError(f"{listed} names none of the {len(videos):,} annotated videos.")
            train = tuple(name for name in videos if name not in set(known))
            return ActionSet("ucf24", UCF24_CLASSES, videos, train, known, root, ("rgb-images/{}",))
    raise DataError(
        "UCF-101-24 is not there. Frames: crcv.ucf.edu/data/UCF101.php, cut to rgb-images/Class/video/00001.jpg; "
        f"annotations: github.com/gurkirt/corrected-UCF101-Annots. Expected in {candidates[0][0]}: "
        f"{', '.join(FILES['ucf24'])}, rgb-images/."
    )


def read_ucf24_pickle(path: Path) -> dict[str, ActionVideo]:
    """Name -> {numf, annotations: [{label, sf, ef, boxes}]}: all from 0, ef exclusive, boxes x, y, w, h."""
    return _checked(path, lambda: dict(_from_pickle(read_pickle(path))))


def _from_pickle(content: Any) -> Any:
    for name, video in content.items():
        tubes = [
            _tube(entry["label"], entry["sf"], int(entry["ef"]) - int(entry["sf"]), entry["boxes"], corners=False)
            for entry in video["annotations"]
        ]
        yield str(name), ActionVideo(str(name), _count(video["numf"]), tuple(tubes), (240, 320))


def read_ucf24_mat(path: Path) -> dict[str, ActionVideo]:
    """annot (1, n) with num_imgs, name, tubes: sf from 1, ef inclusive, class from 1, boxes x, y, w, h."""
    return _checked(path, lambda: dict(_from_mat(matlab.load(path)["annot"][0])))


def _from_mat(rows: Any) -> Any:
    for row in rows:
        name, tubes = str(row["name"][0]), []
        for entry in row["tubes"][0] if row["tubes"].size else ():
            label, first, last = (int(entry[key][0, 0]) for key in ("class", "sf", "ef"))
            tubes.append(_tube(label - 1, first - 1, last - first + 1, entry["boxes"], corners=False))
        yield name, ActionVideo(name, _count(row["num_imgs"][0, 0]), tuple(tubes), (240, 320))


def jhmdb(folder: Path | None = None, split: int = 1) -> ActionSet:
    """J-HMDB, one of its three splits (the literature averages over them): ACT's pickle JHMDB-GT.pkl, frames Frames/.

    Raises:
        DataError: it is not in LABKIT_DATA/jhmdb, or damaged.
    """
    return _of_act("jhmdb", "JHMDB-GT.pkl", folder, split, ("Frames/{}", "Rename_Images/{}"))


def ucf_sports(folder: Path | None = None) -> ActionSet:
    """UCF-Sports: ACT's pickle UCFSports-GT.pkl, frames Frames/.

    Raises:
        DataError: it is not in LABKIT_DATA/ucf-sports, or damaged.
    """
    return _of_act("ucf-sports", "UCFSports-GT.pkl", folder, 1, ("Frames/{}",))


def _of_act(name: str, file: str, folder: Path | None, split: int, places: tuple[str, ...]) -> ActionSet:
    root = folder or paths.data_dir() / name
    path = root / file
    if not path.exists():
        raise DataError(
            f"{name} is not there. Expected in {root}: {file} of ACT (github.com/vkalogeiton/caffe, act-detector), "
            f"and the frames below {places[0].format('<video>')}/."
        )
    return _checked(path, lambda: _act_set(name, read_pickle(path), root, split, places))


def _act_set(name: str, content: Mapping[str, Any], root: Path, split: int, places: tuple[str, ...]) -> ActionSet:
    """labels, gttubes {video: {label: [(n, 5): frame from 1, x1, y1, x2, y2]}}, nframes, train_videos, resolution."""
    videos = {}
    for video, by_label in content["gttubes"].items():
        tubes = []
        for label, rows_of in by_label.items():
            for rows in rows_of:
                if (np.diff(rows[:, 0]) != 1).any():
                    raise ValueError(f"a tube of {video} has a gap")
                tubes.append(_tube(label, int(rows[0, 0]) - 1, len(rows), rows[:, 1:], corners=True))
        height, width = content["resolution"][video]
        count = _count(content["nframes"][video])
        videos[str(video)] = ActionVideo(str(video), count, tuple(tubes), (int(height), int(width)))
    lists = [content[key] for key in ("train_videos", "test_videos")]
    train, test = (
        [str(v) for v in (one[split - 1] if one and isinstance(one[0], list | tuple) else one)] for one in lists
    )
    if missing := [v for v in (*train, *test) if v not in videos]:
        raise ValueError(f"split {split} names {missing[0]}, which has no annotation")
    return ActionSet(name, tuple(map(str, content["labels"])), videos, tuple(train), tuple(test), root, places)


def puppet_boxes(path: Path) -> AnnotatedTube:
    """J-HMDB's own annotation: the box around the person in each frame of a puppet_mask.mat, label 0.

    A frame without a mask repeats the box before it.
    """

    def read() -> AnnotatedTube:
        masks = np.asarray(matlab.load(path)["part_mask"])
        if masks.ndim != 3 or not masks.any():
            raise ValueError("part_mask is (height, width, frames)")
        boxes: list[list[float]] = []
        for t in range(masks.shape[2]):
            y, x = np.nonzero(masks[:, :, t])
            box = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else (boxes[-1] if boxes else None)
            if box is None:
                raise ValueError("the first frame has no mask")
            boxes.append([float(v) for v in box])
        return AnnotatedTube(0, 0, np.array(boxes))

    return _checked(path, read)


def _tube(label: Any, start: Any, count: int, boxes: Any, corners: bool) -> AnnotatedTube:
    """Checked, widened to float64 before anything is added."""
    wide = np.asarray(boxes).astype(np.float64)
    if wide.shape != (count, 4) or not np.isfinite(wide).all() or count < 1:
        raise ValueError(f"a tube of {count} frames has boxes of shape {wide.shape}")
    if not (0 <= int(label) < 1000 and 0 <= int(start) < MOST_FRAMES):
        raise ValueError(f"label {label} or first frame {start} is impossible")
    if not corners:
        wide[:, 2:] += wide[:, :2]
    return AnnotatedTube(int(label), int(start), wide)


def _count(value: Any) -> int:
    if not 0 < int(value) < MOST_FRAMES:
        raise ValueError(f"a video of {value} frames")
    return int(value)


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; any stumble over the content is one error that names the file."""
    try:
        return read()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.") from None
    except Exception as error:  # loadmat and odd contents raise anything
        raise DataError(f"{path} is damaged, or another file than expected ({str(error)[:120]}).") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}).") from None
