"""Annotations of actions: the real files where they are there, both forms alike, nothing run from a pickle."""

import pickle
import struct
import time

import numpy as np
import pytest
import scipy.io

from labkit import paths
from labkit.data.action import VideoFrames, frames_of, matlab, read_frame_list, ucf24
from labkit.data.action.datasets import puppet_boxes, read_ucf24_mat, read_ucf24_pickle
from labkit.data.action.unpickle import read_pickle
from labkit.errors import DataError
from labkit.metrics.detection import Tube, mean_video_map, video_map

REAL = paths.data_dir() / "action"


class Evil:
    def __reduce__(self):
        return (print, ("this was run",))


def small(folder):
    """One video in both forms of UCF-101-24; its boxes would overflow in uint8."""
    boxes = np.array([[200, 10, 100, 20], [201, 10, 100, 20]], np.uint8)
    content = {"C/v_1": {"numf": 9, "label": 3, "annotations": [{"label": 3, "sf": 4, "ef": 6, "boxes": boxes}]}}
    (folder / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))
    tubes = np.zeros((1, 1), dtype=[("ef", "O"), ("sf", "O"), ("class", "O"), ("boxes", "O")])
    tubes[0, 0] = (np.array([[6]]), np.array([[5]]), np.array([[4]]), boxes)
    annot = np.zeros((1, 1), dtype=[("num_imgs", "O"), ("name", "O"), ("tubes", "O")])
    annot[0, 0] = (np.array([[9]]), np.array(["C/v_1"]), tubes)
    scipy.io.savemat(folder / "a.mat", {"annot": annot})


def test_both_forms_say_the_same_and_bytes_do_not_overflow(tmp_path):
    small(tmp_path)
    one, two = read_ucf24_pickle(tmp_path / "a.pkl"), read_ucf24_mat(tmp_path / "a.mat")
    for videos in (one, two):
        (tube,) = videos["C/v_1"].tubes
        assert (tube.label, tube.start, videos["C/v_1"].frames) == (3, 4, 9)
        assert tube.boxes.tolist() == [[200, 10, 300, 30], [201, 10, 301, 30]]  # 300 is 44 in uint8


def test_nothing_in_a_pickle_is_run(tmp_path, capsys):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(DataError, match="which annotations have no need of"):
        read_pickle(tmp_path / "evil.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, ">f8"])
def test_arrays_come_back_as_they_were(tmp_path, protocol, kind):
    wanted = np.arange(12).reshape(3, 4).astype(kind)
    content = {
        np.str_("name"): 1,
        "x": wanted,
        "f": np.asfortranarray(wanted),
        "n": [1, "two", (3.0, None)],
        "s": wanted[1, 2],
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    content = read_pickle(tmp_path / "a.pkl")
    assert content["n"] == [1, "two", (3.0, None)]
    assert content["s"] == 6
    assert content["name"] == 1
    for name in ("x", "f"):
        assert content[name].dtype == wanted.dtype
        assert np.array_equal(content[name], wanted)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([np.array([object()])]), pickle.dumps({1, 2})])
def test_other_pickles_are_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match="damaged, or no pickle of annotations"):
        read_pickle(tmp_path / "a.pkl")
    with pytest.raises(DataError):
        read_ucf24_pickle(tmp_path / "a.pkl")
    with pytest.raises(DataError):
        read_ucf24_mat(tmp_path / "a.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        read_pickle(tmp_path / "none.pkl")


def test_puppet_masks_become_boxes(tmp_path):
    masks = np.zeros((20, 30, 3), np.uint8)
    masks[5:10, 3:8, 0] = 1
    masks[6:10, 4:8, 2] = 1
    scipy.io.savemat(tmp_path / "puppet_mask.mat", {"part_mask": masks})
    assert puppet_boxes(tmp_path / "puppet_mask.mat").boxes.tolist() == [[3, 5, 8, 10], [3, 5, 8, 10], [4, 6, 8, 10]]
    scipy.io.savemat(tmp_path / "none.mat", {"part_mask": masks * 0})
    with pytest.raises(DataError, match="damaged, or another file"):
        puppet_boxes(tmp_path / "none.mat")


def mat(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8) for kind, data in elements)


def array(flags: int, sizes: tuple[int, ...], *parts: tuple[int, bytes]) -> bytes:
    sizes_element = (5, struct.pack(f"<{len(sizes)}i", *sizes))
    return mat((6, struct.pack("<II", flags, 0)), sizes_element, (1, b"x"), *parts)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (array(9, (1, 3), (2, b"\1\2\3")), None),
        (array(9, (1, 4), (2, b"\1\2\3")), "do not fill"),
        (array(9 + 0x800, (1, 3), (2, b"\1\2\3")), "without its numbers"),
        (array(9, (1,) * 40, (2, b"\1")), "sizes that no array has"),
        (array(9, (-1, -3), (2, b"\1\2\3")), "sizes that no array has"),
        (array(4, (1, 3), (16, b"ab")), "another length"),
        (array(1, (1, 3), (14, b"")), "without some of its parts"),
        (array(2, (1, 1), (5, struct.pack("<i", 0)), (1, b"a")), "names of its fields"),
        (array(17, (1, 1)), "class 17"),
        (mat((6, b"\0" * 4), (5, b"\0" * 8), (1, b"x")), "without flags"),
        (struct.pack("<II", 6, 800) + b"\0" * 8, "beyond the one"),
        (array(9, (1, 3)) + b"\0\0", "inside a tag"),
    ],
)
def test_a_matlab_file_is_walked_through_before_scipy_trusts_it(tmp_path, variable, words):
    """Catches: sizes that make SciPy's reader write where nothing is its own, which ends the process."""
    path = tmp_path / "a.mat"
    path.write_bytes(b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, len(variable)) + variable)
    if words is None:
        assert matlab.load(path)["x"].tolist() == [[1, 2, 3]]
    else:
        with pytest.raises(ValueError, match=words):
            matlab.load(path)


def test_frames_of_a_video_file_by_number(tmp_path):
    av = pytest.importorskip("av")
    (tmp_path / "videos").mkdir()
    with av.open(str(tmp_path / "videos" / "v.mp4"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(30):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), format="rgb24")))
        sink.mux(stream.encode())
    frames = frames_of(tmp_path, "v", ("frames/{}",))
    assert isinstance(frames, VideoFrames)
    assert (len(frames), frames.rate) == (30, 10.0)
    means = frames.read([20, 3, 3, 29, 99]).mean((1, 2, 3)) / 8
    assert np.abs(means - [20, 3, 3, 29, 29]).max() < 0.7
    with pytest.raises(DataError, match=r"looked for frames/w/, videos/w\.mp4"):
        frames_of(tmp_path, "w", ("frames/{}",))
    (tmp_path / "videos" / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a video"):
        frames_of(tmp_path, "x", ("frames/{}",))


HEADER = "original_vido_id video_id frame_id path labels"


def test_frame_lists_keep_their_order(tmp_path):
    (tmp_path / "l.csv").write_text(f'{HEADER}\nb 0 0 b/2.jpg ""\na 1 0 a/9.jpg ""\nb 0 1 b/1.jpg ""\n')
    assert read_frame_list(tmp_path / "l.csv") == {"b": ["b/2.jpg", "b/1.jpg"], "a": ["a/9.jpg"]}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('b 0 0 b/2.jpg ""', "begins with a header"),
        (f"{HEADER}\nb 0 0 b/2.jpg", "line 2: video, its number"),
        (f'{HEADER}\nb 0 x b/2.jpg ""', "line 2: video, its number"),
        (f'{HEADER}\nb 0 0 ../2.jpg ""', "line 2: a path below the folder"),
        (f'{HEADER}\nb 0 0 /2.jpg ""', "line 2: a path below the folder"),
        (f'{HEADER}\nb 0 1 b/2.jpg ""\nb 0 1 b/3.jpg ""', "line 3: frame 1 of b stands after 1"),
    ],
)
def test_damaged_frame_lists_are_refused(tmp_path, rows, words):
    (tmp_path / "l.csv").write_text(rows)
    with pytest.raises(DataError, match=words):
        read_frame_list(tmp_path / "l.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_frame_list(tmp_path / "none.csv")


@pytest.mark.slow
def test_the_real_files_of_ucf_101_24():
    """Sheet check 10: 3,194 videos, 4,458 tubes; pickle and MATLAB file say the same; the truth scores exactly 1."""
    if not (REAL / "ucf101_24_pyannot.pkl").exists():
        pytest.skip("needs LABKIT_DATA/action with UCF-101-24's annotation files")
    dataset = ucf24()
    tubes = [(video, tube) for video in dataset.videos.values() for tube in video.tubes]
    assert (len(dataset.videos), len(tubes)) == (3194, 4458)
    assert {tube.label for _, tube in tubes} == set(range(24))
    assert len(dataset.test) > 900
    other = read_ucf24_mat(REAL / "ucf101_24_finalAnnots.mat")
    assert other.keys() == dataset.videos.keys()
    for name, video in dataset.videos.items():
        assert video.frames == other[name].frames
        assert len(video.tubes) == len(other[name].tubes)
        assert all(a.same(b) for a, b in zip(video.tubes, other[name].tubes, strict=True)), name
    truth = [Tube(v.name, t.label, t.start, t.boxes) for v, t in tubes if v.name in set(dataset.test)]
    begun = time.process_time()
    assert video_map(truth, truth, 0.75).mean == 1.0
    assert mean_video_map(truth, truth) == 1.0
    print(f"video-mAP of {len(truth)} tubes: {time.process_time() - begun:.2f} CPU s")
