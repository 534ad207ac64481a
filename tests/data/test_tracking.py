"""Loaders on hand-made trees: each holds the traps of its benchmark's format, and frames tell which ones were taken.

A frame's red value is its number, so that a sequence that begins one frame too late is seen.
"""

import contextlib
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.data import registry, tracking
from labkit.data.tracking import lasot, nfs, otb, oxuva, uav, vot
from labkit.data.tracking.sequence import ImageFiles, Sequence, from_inclusive_corners, polygon_boxes
from labkit.data.tracking.text import numbered_images, read_rows
from labkit.errors import DataError, InputError


def frames(folder: Path, numbers, width: int = 4, suffix: str = ".png", size: tuple[int, int] = (8, 6)) -> None:
    """Images of one colour, red = number % 256, named by number with leading zeros. PNG, so that the red is exact."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", size, (number % 256, 0, 0)).save(folder / f"{number:0{width}d}{suffix}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def reds(sequence: Sequence) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in sequence.frames]


def rows(count: int, first: int = 1) -> str:
    """x is the row's number, so that a shifted annotation is seen."""
    return "".join(f"{first + k},2,3,4\n" for k in range(count))


# ---- Sequence and text ----------------------------------------------------------------------------------------------


def test_frames_are_read_when_asked_for_and_are_rgb(tmp_path):
    frames(tmp_path, [1, 2, 3])
    Image.new("L", (8, 6), 7).save(tmp_path / "0004.png")  # a grey picture is still three channels
    (tmp_path / "0002.png").write_bytes(b"damaged")
    files = ImageFiles(tuple(numbered_images(tmp_path).values()))
    assert len(files) == 4
    assert (files[0].shape, files[0].dtype) == ((6, 8, 3), np.uint8)
    assert files[3].tolist() == [[[7, 7, 7]] * 8] * 6
    assert len(files[2:]) == 2  # a slice stays on disk: nothing is decoded
    with pytest.raises(DataError, match=r"0002\.png is damaged"):
        files[1]


def test_a_sequence_refuses_what_does_not_fit():
    boxes, absent = np.ones((3, 4)), np.zeros(3, dtype=bool)
    with pytest.raises(InputError, match="2 frames, 3 boxes, 3 absent"):
        Sequence("s", [np.zeros((2, 2, 3), np.uint8)] * 2, boxes, absent)
    with pytest.raises(InputError, match="no frame"):
        Sequence("s", [], boxes[:0], absent[:0])


def test_annotated_is_what_can_be_scored_and_parts_keep_rows_together():
    boxes = np.array([[0, 0, 2, 2], [np.nan] * 4, [1, 1, 0, 5], [3, 1, 2, 5]], dtype=float)
    polygons = np.arange(32.0).reshape(4, 8)
    whole = Sequence("s", list("abcd"), boxes, np.array([0, 1, 0, 0], dtype=bool), polygons)
    assert whole.annotated.tolist() == [True, False, False, True]
    part = whole.part(2, 4)
    assert (list(part.frames), part.boxes[1, 0], part.polygons[0, 0]) == (["c", "d"], 3.0, 16.0)
    assert part.absent.tolist() == [False, False]
    for start, stop in ((-1, 2), (2, 2), (1, 5)):
        with pytest.raises(InputError, match=r"frames 0\.\.3"):
            whole.part(start, stop)


@pytest.mark.parametrize("text", ["1,2,3,4\n5,6,7,8", "1\t2\t3\t4\r\n5\t6\t7\t8\r\n", "1 2  3 4 \n\n 5 6 7 8\n\n"])
def test_numbers_may_be_separated_by_commas_tabs_or_spaces(tmp_path, text):
    write(tmp_path / "a.txt", text)
    assert read_rows(tmp_path / "a.txt", 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_nan_in_any_spelling_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1,2,3,4\nNaN,nan,NAN,NaN\n")
    actual = read_rows(tmp_path / "a.txt", 4)
    assert np.isnan(actual).all(1).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", r"line 2: 3 numbers instead of 4"),
        ("1,2,x,4\n", r"line 1: '1,2,x,4' is not a row"),
        ("\n", "holds no annotation"),
        ("1,2\n", "line 1: 2 numbers instead of 4 or 8"),
    ],
)
def test_a_damaged_annotation_names_file_and_line(tmp_path, text, message):
    write(tmp_path / "a.txt", text)
    with pytest.raises(DataError, match=rf"a\.txt.*{message}"):
        read_rows(tmp_path / "a.txt", (4, 8) if "or 8" in message else 4)
    with pytest.raises(DataError, match=r"b\.txt is missing"):
        read_rows(tmp_path / "b.txt", 4)


def test_images_are_ordered_by_number_not_by_name(tmp_path):
    frames(tmp_path, [0, 2, 10, 100], width=1)
    write(tmp_path / "Thumbs.db", "")
    write(tmp_path / "cover.png", "")  # no number: no frame
    assert list(numbered_images(tmp_path)) == [0, 2, 10, 100]
    frames(tmp_path, [2], width=4)
    with pytest.raises(DataError, match=r"are both frame 2"):
        numbered_images(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        numbered_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no numbered images"):
        numbered_images(next(iter([(tmp_path / "empty")])).mkdir() or tmp_path / "empty")


def test_polygons_become_boxes_of_their_area():
    """A square of side 2 sqrt(2) on its tip has area 8 and bounds of 4 x 4: shrunk to 2 sqrt(2), plus one pixel."""
    tip = np.array([[5.0, 3.0, 7.0, 5.0, 5.0, 7.0, 3.0, 5.0]])
    side = 2 * np.sqrt(2) + 1
    np.testing.assert_allclose(polygon_boxes(tip), [[5 - side / 2, 5 - side / 2, side, side]], atol=1e-12)
    assert np.isnan(polygon_boxes(np.full((1, 8), np.nan))).all()


def test_inclusive_corners_count_both_ends():
    assert from_inclusive_corners(np.array([[3.0, 4.0, 5.0, 4.0]])).tolist() == [[3, 4, 3, 1]]


# ---- OTB, Temple-Color ----------------------------------------------------------------------------------------------


@pytest.fixture
def otb_tree(tmp_path):
    """One video for each trap."""
    for name in ("Basketball", "Bird1"):
        frames(tmp_path / name / "img", range(1, 4))
    write(tmp_path / "Basketball" / "groundtruth_rect.txt", "1\t1\t3\t4\n2\t1\t3\t4\n3\t1\t3\t4\n")
    write(tmp_path / "Bird1" / "groundtruth_rect.txt", "5 1 3 4\n6 1 3 4\n7 1 3 4\n")
    frames(tmp_path / "Jogging" / "img", range(1, 3))
    write(tmp_path / "Jogging" / "groundtruth_rect.1.txt", "10,1,3,4\n11,1,3,4\n")
    write(tmp_path / "Jogging" / "groundtruth_rect.2.txt", "20,1,3,4\n21,1,3,4\n")
    frames(tmp_path / "Human4" / "img", range(1, 3))
    write(tmp_path / "Human4" / "groundtruth_rect.1.txt", "\n")  # empty: there is one target
    write(tmp_path / "Human4" / "groundtruth_rect.2.txt", rows(2))
    frames(tmp_path / "Board" / "img", range(1, 4), width=5)
    write(tmp_path / "Board" / "groundtruth_rect.txt", rows(3))
    frames(tmp_path / "Football1" / "img", range(1, 80))
    write(tmp_path / "Football1" / "groundtruth_rect.txt", rows(74))
    frames(tmp_path / "David" / "img", range(295, 771))
    write(tmp_path / "David" / "groundtruth_rect.txt", rows(471))
    frames(tmp_path / "Tiger1" / "img", range(1, 355))
    write(tmp_path / "Tiger1" / "groundtruth_rect.txt", rows(354))
    write(tmp_path / "readme.txt", "not a sequence")
    (tmp_path / "anno").mkdir()
    return tmp_path


def test_otb_holds_every_target_once(otb_tree):
    actual = {sequence.name: sequence for sequence in otb.otb2015(otb_tree)}
    assert list(actual) == [
        "Basketball", "Bird1", "Board", "David", "Football1", "Human4", "Jogging.1", "Jogging.2", "Tiger1",
    ]  # fmt: skip
    assert actual["Basketball"].boxes[0].tolist() == [0, 0, 3, 4]  # pixel 1 is 0, width and height stay
    assert actual["Bird1"].boxes[:, 0].tolist() == [4, 5, 6]
    assert (actual["Jogging.1"].boxes[1, 0], actual["Jogging.2"].boxes[1, 0]) == (10, 20)
    assert reds(actual["Board"]) == [1, 2, 3]
    assert all(not sequence.absent.any() for sequence in actual.values())
    assert actual["Basketball"].meta["first_pixel"] == 1


def test_otb_scores_a_part_of_some_videos(otb_tree):
    actual = {sequence.name: sequence for sequence in otb.otb2015(otb_tree)}
    assert (len(actual["Football1"]), reds(actual["Football1"])[-1]) == (74, 74)
    david = actual["David"]  # the annotation begins with frame 300, the images earlier
    assert (len(david), reds(david)[0], david.boxes[0, 0]) == (471, 300 % 256, 0)
    tiger = actual["Tiger1"]  # the annotation covers all frames: its rows are cut like the images
    assert (len(tiger), reds(tiger)[0], tiger.boxes[0, 0]) == (349, 6, 5)


def test_the_first_edition_is_picked_by_name(otb_tree):
    names = [sequence.name for sequence in otb.otb2013(otb_tree)]
    assert names == ["Basketball", "David", "Football1", "Jogging.1", "Jogging.2", "Tiger1"]
    assert len(otb.OTB2013) == 50


def test_otb_says_what_is_missing(otb_tree):
    (otb_tree / "Football1" / "img" / "0070.png").unlink()
    with pytest.raises(DataError, match=r"Football1: frames 1 to 74 are scored; 73 of them are there"):
        list(otb.otb2015(otb_tree))
    write(otb_tree / "Board" / "groundtruth_rect.txt", rows(2))
    with pytest.raises(DataError, match=r"Board: 3 frames but 2 annotated rows"):
        list(otb.otb2015(otb_tree))
    (otb_tree / "Bird1" / "groundtruth_rect.txt").unlink()
    with pytest.raises(DataError, match=r"Bird1 holds no groundtruth_rect\.txt"):
        list(otb.otb2015(otb_tree))


def test_temple_color_reads_the_span_from_its_own_file(tmp_path):
    frames(tmp_path / "Hurdle_ce2" / "img", range(20, 40))
    write(tmp_path / "Hurdle_ce2" / "Hurdle_ce2_gt.txt", rows(4, first=100))
    write(tmp_path / "Hurdle_ce2" / "Hurdle_ce2_frames.txt", "27,30\n")
    (hurdle,) = otb.tc128(tmp_path)
    assert (hurdle.name, reds(hurdle), hurdle.boxes[0].tolist()) == ("Hurdle_ce2", [27, 28, 29, 30], [99, 1, 3, 4])
    for target in ("1", "2"):  # a video with two targets
        write(tmp_path / "Skating2" / f"Skating2_{target}_gt.txt", rows(2, first=10 * int(target)))
        write(tmp_path / "Skating2" / f"Skating2_{target}_frames.txt", "1\t2")
    frames(tmp_path / "Skating2" / "img", [1, 2])
    names = {sequence.name: sequence.boxes[0, 0] for sequence in otb.tc128(tmp_path)}
    assert names == {"Hurdle_ce2": 99, "Skating2_1": 9, "Skating2_2": 19}
    write(tmp_path / "Hurdle_ce2" / "Hurdle_ce2_frames.txt", "27,50\n")
    with pytest.raises(DataError, match="frames 27 to 50 are scored; 13 of them"):
        list(otb.tc128(tmp_path))


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("1,1000000000", "1000000000.0 is not the number of a frame"),
        ("1,10000000", "frames 1 to 10000000 are scored; 3 of them are there, 4 is missing"),
        ("nan,3", "nan is not the number of a frame"),
        ("1,1e400", "inf is not the number of a frame"),
        ("3,1", "frames 3 to 1 are scored; 0 of them"),
        ("-1,3", "-1.0 is not the number of a frame"),
    ],
)
def test_a_span_beyond_all_measure_is_told_at_once(tmp_path, span, message):
    """Work and memory grow with the images there, not with what a text file says."""
    frames(tmp_path / "Ball" / "img", [1, 2, 3])
    write(tmp_path / "Ball" / "Ball_gt.txt", rows(3))
    write(tmp_path / "Ball" / "Ball_frames.txt", span)
    with pytest.raises(DataError, match=message):
        list(otb.tc128(tmp_path))


# ---- UAV ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def uav_tree(tmp_path):
    frames(tmp_path / "data_seq" / "UAV123" / "bike1", range(1, 4), width=6)
    frames(tmp_path / "data_seq" / "UAV123" / "truck4", range(570, 582), width=6)
    frames(tmp_path / "data_seq" / "UAV123" / "car1_s", range(1, 3), width=6)
    write(tmp_path / "anno" / "UAV123" / "bike1.txt", "1,2,3,4\nNaN,NaN,NaN,NaN\n3,2,3,4\n")
    write(tmp_path / "anno" / "UAV123" / "truck4_2.txt", rows(4))
    write(tmp_path / "anno" / "UAV123" / "car1_s.txt", rows(2))
    write(tmp_path / "anno" / "UAV20L" / "bike1.txt", rows(3, first=50))
    return tmp_path


def test_uav_cuts_videos_where_the_benchmark_does(uav_tree):
    actual = {sequence.name: sequence for sequence in uav.uav123(uav_tree)}
    assert list(actual) == ["bike1", "car1_s", "truck4_2"]
    assert reds(actual["truck4_2"]) == [n % 256 for n in (577, 578, 579, 580)]
    assert actual["truck4_2"].boxes[0].tolist() == [0, 1, 3, 4]
    assert actual["bike1"].absent.tolist() == [False, True, False]
    assert np.isnan(actual["bike1"].boxes[1]).all()
    assert sum(map(len, uav.STARTS.values())) == 51  # cut sequences among the 123


def test_uav20l_has_its_own_annotation_of_the_same_frames(uav_tree):
    (bike,) = uav.uav20l(uav_tree)
    assert (reds(bike), bike.boxes[0, 0]) == ([1, 2, 3], 49)


def test_uav_says_what_is_missing(uav_tree):
    write(uav_tree / "anno" / "UAV123" / "truck4_2.txt", rows(40))
    with pytest.raises(DataError, match="frames 577 to 616 are scored; 5 of them"):
        list(uav.uav123(uav_tree))
    for name in ("truck4_3", "plane_1", "boat1"):
        write(uav_tree / "anno" / "UAV20L" / f"{name}.txt", rows(2))
        with pytest.raises(DataError, match=f"{name} is missing"):
            list(uav.uav20l(uav_tree))
        (uav_tree / "anno" / "UAV20L" / f"{name}.txt").unlink()
    (uav_tree / "anno" / "UAV20L" / "bike1.txt").unlink()
    with pytest.raises(DataError, match="holds no annotation"):
        list(uav.uav20l(uav_tree))


# ---- NfS ------------------------------------------------------------------------------------------------------------


def vatic(count: int) -> str:
    """Identity, corners, frame, flags, label: rows as the annotation tool writes them."""
    return "".join(f'0 {k} 10 {k + 5} 16 {k} 0 0 1 "a ball"\n' for k in range(count))


@pytest.mark.parametrize(("count", "step"), [(33, 8), (32, 8), (5, 1), (6, 1), (4, 1)])
def test_nfs_takes_every_eighth_row_when_the_rows_are_those_of_240_frames(tmp_path, count, step):
    """33 rows at 240 a second are 5 frames at 30: rows 0, 8, .., 32. One row or frame too many is cut."""
    frames(tmp_path / "ball" / "30" / "ball", range(1, 6), width=5)
    write(tmp_path / "ball" / "30" / "ball.txt", vatic(count))
    (ball,) = nfs.nfs(tmp_path)
    kept = min(5, len(range(0, count, step)))
    assert ball.boxes.tolist() == [[step * k, 10, 5, 6] for k in range(kept)]
    assert reds(ball) == list(range(1, kept + 1))


def test_nfs_refuses_rows_of_no_frame_rate(tmp_path):
    frames(tmp_path / "ball" / "30" / "ball", range(1, 6), width=5)
    write(tmp_path / "ball" / "30" / "ball.txt", vatic(16))
    with pytest.raises(DataError, match="16 rows fit neither 5 frames at 30 a second nor 40 at 240"):
        list(nfs.nfs(tmp_path))
    for text, message in (("0 1 2\n", "3 words"), ("0 a 2 3 4\n", "is not an identity and corners")):
        write(tmp_path / "ball" / "30" / "ball.txt", text)
        with pytest.raises(DataError, match=message):
            list(nfs.nfs(tmp_path))
    with pytest.raises(DataError, match="holds no <seq>/30"):
        list(nfs.nfs(tmp_path / "ball"))


# ---- TrackingNet, LaSOT ---------------------------------------------------------------------------------------------


def test_trackingnet_counts_from_zero_and_gives_one_box(tmp_path):
    frames(tmp_path / "TEST" / "frames" / "video_0", range(12), width=1)
    write(tmp_path / "TEST" / "anno" / "video_0.txt", "5.0,6.0,7.0,8.0\n")
    (video,) = lasot.trackingnet(tmp_path)
    assert reds(video) == list(range(12))  # 10 and 11 after 9, not after 1
    assert video.boxes[0].tolist() == [5, 6, 7, 8]
    assert np.isnan(video.boxes[1:]).all()
    assert not video.absent.any()  # not annotated is not absent
    (tmp_path / "TEST" / "frames" / "video_0" / "0.png").unlink()
    with pytest.raises(DataError, match="numbered from 0 without gaps; found 1 to 11"):
        list(lasot.trackingnet(tmp_path))
    write(tmp_path / "TEST" / "anno" / "video_0.txt", rows(3))
    frames(tmp_path / "TEST" / "frames" / "video_0", [0], width=1)
    with pytest.raises(DataError, match="3 rows"):
        list(lasot.trackingnet(tmp_path))


@pytest.fixture
def lasot_tree(tmp_path):
    folder = tmp_path / "bird" / "bird-2"
    frames(folder / "img", range(1, 5), width=8)
    write(folder / "groundtruth.txt", "1,2,3,4\n5,6,7,8\n0,0,0,0\n9,9,9,9\n")
    write(folder / "full_occlusion.txt", "0,1,0,0")
    write(folder / "out_of_view.txt", "0,0,1,0\n")
    write(tmp_path / "testing_set.txt", "bird-2\n")
    return tmp_path


def test_lasot_marks_hidden_and_departed_targets(lasot_tree):
    (bird,) = lasot.lasot(lasot_tree)
    assert bird.absent.tolist() == [False, True, True, False]
    assert bird.annotated.tolist() == [True, True, False, True]
    assert bird.boxes[0].tolist() == [1, 2, 3, 4]  # as it stands: no toolkit shifts it
    assert bird.meta["full_occlusion"].tolist() == [False, True, False, False]


def test_lasot_test_split(lasot_tree, tmp_path_factory):
    assert lasot.lasot_test_names(lasot_tree) == ["bird-2"]
    published = lasot.lasot_test_names(tmp_path_factory.mktemp("bare"))
    assert len(published) == len(set(published)) == 280
    classes = {name.rpartition("-")[0] for name in published}
    assert len(classes) == 70
    assert all(sum(name.rpartition("-")[0] == each for name in published) == 4 for each in classes)


def test_lasot_says_what_is_missing(lasot_tree):
    write(lasot_tree / "bird" / "bird-2" / "out_of_view.txt", "0,0,1\n")
    with pytest.raises(DataError, match=r"out_of_view\.txt must hold 0 or 1 for each of 4 frames; it holds 3"):
        list(lasot.lasot(lasot_tree))
    write(lasot_tree / "testing_set.txt", "bird-3\n")
    with pytest.raises(DataError, match=r"bird-3/groundtruth\.txt is missing"):
        list(lasot.lasot(lasot_tree))


# ---- VOT ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vot_tree(tmp_path):
    tip = "5,3,7,5,5,7,3,5"
    frames(tmp_path / "zebra" / "color", [1, 2], width=8)
    write(tmp_path / "zebra" / "groundtruth.txt", f"{tip}\n{tip}\n")
    write(tmp_path / "zebra" / "occlusion.tag", "0\n1\n")
    write(tmp_path / "zebra" / "camera_motion.tag", "1\n")  # shorter files end in zeros
    frames(tmp_path / "ant", [1, 2], width=8)  # an older tree: images beside the annotation
    write(tmp_path / "ant" / "groundtruth.txt", "1,2,3,4\n1,2,3,4\n")
    write(tmp_path / "list.txt", "zebra\nant\n")
    return tmp_path


def test_vot_keeps_polygons_and_the_order_of_its_list(vot_tree):
    zebra, ant = vot.vot(vot_tree)
    assert (zebra.name, ant.name) == ("zebra", "ant")
    assert zebra.polygons[0].tolist() == [5, 3, 7, 5, 5, 7, 3, 5]
    np.testing.assert_allclose(zebra.boxes, polygon_boxes(zebra.polygons))
    assert zebra.meta["tags"]["occlusion"].tolist() == [False, True]
    assert zebra.meta["tags"]["camera_motion"].tolist() == [True, False]
    assert ant.boxes[0].tolist() == [1, 2, 3, 4]  # upright rows are boxes, not half a polygon
    assert ant.polygons[0].tolist() == [1, 2, 4, 2, 4, 6, 1, 6]
    (vot_tree / "list.txt").unlink()
    assert [sequence.name for sequence in vot.vot(vot_tree)] == ["ant", "zebra"]


def test_vot_names_a_listed_sequence_that_is_not_there(vot_tree):
    write(vot_tree / "list.txt", "zebra\nbag\n")
    with pytest.raises(DataError, match=r"lacks bag of its list\.txt"):
        list(vot.vot(vot_tree))


# ---- OxUvA ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def oxuva_tree(tmp_path):
    """One track, frames 2 to 6 of a video of 8 frames of 100 x 50 pixels; annotated at 2 (given), 4, and 6 (gone)."""
    frames(tmp_path / "images" / "dev" / "vid0", range(8), width=6, suffix=".jpeg", size=(100, 50))
    task = "vid0,obj1,2,6,0.1,0.3,0.2,0.6\n"
    write(tmp_path / "tasks" / "dev.csv", task)
    write(tmp_path / "tasks" / "test.csv", task)
    about = "vid0,obj1,3,bird,true,false"
    write(
        tmp_path / "annotations" / "dev.csv",
        f"{about},6,absent,-1,-1,-1,-1\n{about},2,present,0.1,0.3,0.2,0.6\n{about},4,present,0.5,0.75,0.1,0.2\n"
        "vid0,obj2,3,bird,true,false,4,present,0,1,0,1\n",
    )
    (tmp_path / "images" / "test").symlink_to(tmp_path / "images" / "dev")
    return tmp_path


def test_oxuva_turns_fractions_in_the_order_xxyy_into_pixels(oxuva_tree):
    (track,) = oxuva.oxuva(oxuva_tree)
    assert (track.name, len(track)) == ("vid0_obj1", 5)
    np.testing.assert_allclose(track.boxes[0], [10, 10, 20, 20])
    np.testing.assert_allclose(track.boxes[2], [50, 5, 25, 5])
    assert track.absent.tolist() == [False, False, False, False, True]
    assert track.meta["annotated"].tolist() == [True, False, True, False, True]
    assert track.annotated.tolist() == [True, False, True, False, False]
    assert abs(reds(track)[0] - 2) <= 2  # JPEG: about red 2, not 0


def test_oxuva_test_split_has_first_boxes_only(oxuva_tree):
    (track,) = oxuva.oxuva(oxuva_tree, "test")
    assert track.annotated.tolist() == [True, False, False, False, False]
    with pytest.raises(InputError, match="splits dev and test"):
        list(oxuva.oxuva(oxuva_tree, "train"))


def test_oxuva_leaves_the_given_frame_out_of_the_annotation(oxuva_tree):
    (track,) = oxuva.read_tracks(oxuva_tree / "tasks" / "dev.csv", oxuva_tree / "annotations" / "dev.csv")
    assert (track.frames.tolist(), track.present.tolist()) == ([4, 6], [True, False])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tasks/dev.csv", "vid0,obj1,2,6,0.1,0.3,0.2\n", "line 1: 7 fields instead of 8"),
        ("tasks/dev.csv", "vid0,obj1,2,6,0.3,0.1,0.2,0.6\n", "no box in the order xmin, xmax, ymin, ymax"),
        ("tasks/dev.csv", "vid0,obj1,two,6,0.1,0.3,0.2,0.6\n", "line 1: two is not the number of a frame"),
        ("tasks/dev.csv", "vid0,obj1,2,2.5,0.1,0.3,0.2,0.6\n", "2.5 is not the number of a frame"),
        ("tasks/dev.csv", "vid0,obj1,2,inf,0.1,0.3,0.2,0.6\n", "inf is not the number of a frame"),
        ("tasks/dev.csv", "vid0,obj1,2,1000000000,0.1,0.3,0.2,0.6\n", "1000000000 is not the number of a frame"),
        ("tasks/dev.csv", "vid0,obj1,2,10000000,0.1,0.3,0.2,0.6\n", "frames 2 to 10000000 are scored; 6 of them"),
        ("tasks/dev.csv", "vid0,obj1,6,2,0.1,0.3,0.2,0.6\n", "frames 6 to 2 are scored; 0 of them"),
        (
            "tasks/dev.csv",
            "vid0,obj1,2,9,0.1,0.3,0.2,0.6\n",
            "frames 2 to 9 are scored; 6 of them are there, 8 is missing",
        ),
        ("tasks/dev.csv", "vid0,obj1,2,5,0.1,0.3,0.2,0.6\n", "annotated outside its frames 2 to 5"),
        ("tasks/dev.csv", "\n", "holds no task"),
        ("annotations/dev.csv", "vid0,obj1,3,bird,t,f,1e30,present,0,1,0,1\n", "1e30 is not the number of a frame"),
        ("annotations/dev.csv", "vid0,obj1,3,bird,t,f,4,here,0,1,0,1\n", "'here' is neither present nor absent"),
    ],
)
def test_oxuva_says_what_is_wrong(oxuva_tree, file, text, message):
    write(oxuva_tree / file, text)
    with pytest.raises(DataError, match=message):
        list(oxuva.oxuva(oxuva_tree))


PIECES = (b"\0", b"\n", b",", b"-", b"nan", b"inf", b"999999999999", b"1e400", b"\xff")


@pytest.mark.parametrize(
    "tree", [pytest.param("otb_tree", marks=pytest.mark.slow), "uav_tree", "lasot_tree", "vot_tree", "oxuva_tree"]
)
def test_damage_to_any_text_ends_in_words(tree, request):
    """A bounded attack: characters of every text file changed or cut off at seeded places, its numbers made huge."""
    folder, chance = request.getfixturevalue(tree), random.Random(0)
    reader = {"otb": otb.otb2015, "uav": uav.uav123, "lasot": lasot.lasot, "vot": vot.vot, "oxuva": oxuva.oxuva}
    texts = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".txt", ".csv", ".tag"))
    for path in texts:
        whole = path.read_bytes()
        for _ in range(12):
            content = bytearray(whole)
            for _ in range(chance.randint(1, 3) if content else 0):
                at = chance.randrange(len(content))
                content[at : at + 1] = chance.choice(PIECES)
            path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content) + 1)])])
            with contextlib.suppress(DataError):
                list(reader[tree.removesuffix("_tree")](folder))
        path.write_bytes(whole)


# ---- by name --------------------------------------------------------------------------------------------------------


def test_eleven_benchmarks_are_registered_with_licence_layout_and_registration():
    assert len(tracking.BENCHMARKS) == 11
    for name, benchmark in tracking.BENCHMARKS.items():
        dataset = registry.get(name)
        assert benchmark.name == name
        assert "research only" in dataset.licence
        assert dataset.registration
        assert dataset.layout.startswith(f"{name}/")
        assert (benchmark.window is not None) == (benchmark.protocol == "vot")
    assert tracking.BENCHMARKS["vot2018"].window == (100, 356)
    assert tracking.BENCHMARKS["vot2019"].window == (46, 291)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


def test_a_benchmark_is_loaded_by_name(data, request):
    tree = request.getfixturevalue("otb_tree")
    (data / "otb2015").mkdir()
    for name in ("Basketball", "Jogging"):
        (tree / name).rename(data / "otb2015" / name)
    assert [s.name for s in tracking.load("otb2015")] == ["Basketball", "Jogging.1", "Jogging.2"]
    assert [s.name for s in tracking.load("otb2015", first=2)] == ["Basketball", "Jogging.1"]
    with pytest.raises(InputError, match="first must be 1 or more"):
        tracking.load("otb2015", first=0)
    (data / "tc128" / "Empty").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no sequence in the layout tc128/<Seq>/img"):
        tracking.load("tc128")


def test_a_missing_benchmark_says_where_it_comes_from(data):
    with pytest.raises(DataError, match=r"(?s)'lasot' is not in LABKIT_DATA.*research only.*lasot/<class>.*data check"):
        tracking.load("lasot")
    with pytest.raises(InputError, match="did you mean otb2015"):
        tracking.benchmark("OTB-2015")


def test_tracking_trees_are_counted_only_where_a_count_is_published(data):
    (data / "uav123" / "data_seq" / "UAV123" / "bike1").mkdir(parents=True)
    assert registry.check("uav123") == ("present", "data_seq/UAV123: 1 video")
    (data / "nfs").mkdir()
    assert registry.status("nfs").detail == f"{data / 'nfs'} holds no sequence folders"
    assert registry.get("nfs").size == "size unknown"


def test_development_sequences_need_to_be_there(data):
    with pytest.raises(InputError, match="no development sequence 'Bag'; there are Crossing"):
        tracking.development(["Bag"])
    with pytest.raises(DataError, match=r"'tracking' is not in LABKIT_DATA"):
        tracking.development()


def test_every_loader_is_used_by_exactly_its_benchmarks():
    """Catches two names that read the same wrong half of a tree."""
    readers = {name: benchmark.read for name, benchmark in tracking.BENCHMARKS.items()}
    assert len({reader.__name__ for reader in readers.values()}) == 10  # the two VOT years share one format
    assert dataclasses.replace(tracking.BENCHMARKS["lasot"]).invisible == "missed"


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".", "\0", "n" * 300, "a b"], ids=repr)
def test_a_list_that_names_no_folder_of_the_dataset_is_refused(vot_tree, name):
    """Catches: names that lead out of the dataset, and raw errors of the file system."""
    write(vot_tree / "list.txt", f"zebra\n{name}\n")
    with pytest.raises(DataError, match=r"list\.txt: .* is no sequence's name"):
        list(vot.vot(vot_tree))
