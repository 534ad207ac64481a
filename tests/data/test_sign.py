"""Signed corpora: hand-made trees of the real layout, the real annotation files where they are, and bad ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit import paths
from labkit.data import sign
from labkit.data.sign import chinese, phoenix
from labkit.data.sign.folder import sign_folder
from labkit.data.sign.keypoints import read_points
from labkit.data.sign.sentence import Sentence, frame_count, read_frames
from labkit.errors import DataError

REAL = paths.data_dir() / "sign"
ROWS_2014 = (
    "a-1|a-1/1/*.png|Signer05|__ON__ loc-NORD REGEN",
    "b-2|b-2/1/*.png|signer01|MORGEN SONNE",
)
ROWS_2014T = (
    "x-2|x-2/1/*.png|-1|-1|Signer08|DRUCK TIEF|tiefer luftdruck",
    "x-3|x-3/1/*.png|-1|-1|Signer01|REGEN|es regnet",
)


def picture(path: Path, value: int = 100, size: tuple[int, int] = (21, 26)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


def tree_2014(root: Path, header: bool = True) -> None:
    inner = root / "phoenix2014" / "phoenix-2014-multisigner"
    for split in ("train", "dev"):
        lines = (["id|folder|signer|annotation"] if header else []) + list(ROWS_2014)
        written(inner / "annotations" / "manual" / f"{split}.corpus.csv", *lines)
        for name in ("a-1", "b-2"):
            for k in range(3):
                picture(inner / phoenix.PIXELS / split / name / "1" / f"{name}.avi_pid0_fn{k:06d}-0.png", 50 * k)


def tree_2014t(root: Path) -> None:
    inner = root / "phoenix2014t" / "PHOENIX-2014-T"
    for split in ("train", "dev"):
        written(
            inner / "annotations" / "manual" / f"PHOENIX-2014-T.{split}.corpus.csv",
            "name|video|start|end|speaker|orth|translation", *ROWS_2014T,
        )  # fmt: skip
        for name in ("x-2", "x-3"):
            picture(inner / phoenix.PIXELS / split / name / "images0001.png")


@pytest.mark.parametrize("header", [True, False])
def test_phoenix_2014_with_and_without_its_header_line(data_dir, header):
    tree_2014(data_dir, header)
    first, second = sign.phoenix2014("train")
    assert (first.name, first.signer, first.glosses) == ("a-1", "Signer05", ("__ON__", "loc-NORD", "REGEN"))
    assert second.signer == "Signer01"
    assert read_frames(first)[:, 0, 0, 0].tolist() == [0, 50, 100]
    assert read_frames(first, 12).shape == (3, 12, 12, 3)
    assert frame_count(second) == 3
    assert first.points is None


def test_phoenix_2014_t_finds_frames_by_name_and_keeps_the_translation(data_dir):
    tree_2014t(data_dir)
    first, _ = sign.phoenix2014t("dev")
    assert (first.text, first.glosses) == ("tiefer luftdruck", ("DRUCK", "TIEF"))
    assert read_frames(first).shape == (1, 26, 21, 3)
    assert sign.vocabulary(sign.phoenix2014t("dev")) == ("DRUCK", "REGEN", "TIEF")


def test_key_points_lie_beside_the_frames(data_dir):
    tree_2014(data_dir)
    points = np.random.default_rng(0).random((3, 7, 2)).astype(np.float64)
    points[0, 2] = np.nan
    folder = data_dir / "phoenix2014" / "phoenix-2014-multisigner" / "features" / "fullFrame-210x260px"
    np.savez(folder / "train-keypoints.npz", **{"a-1": points})
    first, second = sign.phoenix2014("train")
    np.testing.assert_allclose(first.points, points.astype(np.float32))
    assert second.points is None
    assert sign.phoenix2014("dev")[0].points is None


def test_csl_takes_videos_by_the_last_parts_of_their_path(tmp_path):
    row = "data/CSL/extracted/000094/P01_s10_04_0_color\t我 推荐 他 去 就业"
    other = "000000/P41_s1_00_0_color.avi\t他 是 警察"
    path = written(tmp_path / "split_2_test.txt", row, other)
    (tmp_path / "color" / "000000").mkdir(parents=True)
    (tmp_path / "color" / "000000" / "P41_s1_00_0_color.avi").write_bytes(b"")
    first, second = chinese.read_list(path, tmp_path / "color")
    assert (first.signer, first.glosses) == ("P01", ("我", "推荐", "他", "去", "就业"))
    assert first.frames == tmp_path / "color" / "000094" / "P01_s10_04_0_color"
    assert second.frames == tmp_path / "color" / "000000" / "P41_s1_00_0_color.avi"


def test_stm_and_ctm():
    assert phoenix.write_ctm({"a": [("REGEN", 0.16, 0.4)], "b": []}) == "a 1 0.16 0.24 REGEN\nb 1 0.00 0.00 [EMPTY]\n"


def test_stm_skips_five_fields(tmp_path):
    path = written(tmp_path / "x.stm", "a 1 signer05 0.0 1.79769e+308 __ON__ REGEN", "b 1 signer01 0.0 1.79769e+308")
    assert sign.read_stm(path) == {"a": ("__ON__", "REGEN"), "b": ()}


# -- the reader's own clips -------------------------------------------------------------------------------------------


def own_clips(root: Path, table: str = "name,glosses\n") -> Path:
    rows = "".join(f"clip-{k},HELLO WORLD\n" for k in range(5))
    written(root / "glosses.csv", *(table + rows).splitlines())
    for k in range(5):
        picture(root / f"clip-{k}" / "0.png")
    return root


def test_own_clips_are_dealt_out_where_the_table_names_no_split(tmp_path):
    splits = sign_folder(own_clips(tmp_path))
    assert [s.name for s in splits["train"]] == [f"clip-{k}" for k in range(4)]
    assert [s.name for s in splits["dev"]] == ["clip-4"]
    assert splits["dev"][0].glosses == ("HELLO", "WORLD")


def test_own_clips_with_splits_and_a_video(tmp_path):
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    with av.open(str(tmp_path / "b.mp4"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 60 * k, np.uint8), format="rgb24")
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())
    picture(tmp_path / "a" / "0.png")
    written(tmp_path / "glosses.csv", "name,glosses,split", "a,X Y,train", "b,Z,test", '"c/d",Z,dev')
    picture(tmp_path / "c" / "d" / "0.png")
    splits = sign_folder(tmp_path)
    assert read_frames(splits["test"][0]).shape == (4, 24, 32, 3)
    assert frame_count(splits["test"][0]) == 4


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (("name,text", "a,X"), "columns are name,glosses"),
        (("name,glosses", "a"), "1 cells in place of 2"),
        (("name,glosses", "../a,X"), "a name is that of"),
        (("name,glosses", "a,"), "glosses are wanted"),
        (("name,glosses,split", "a,X,validation"), "train, dev or test"),
        (("name,glosses", "a,X", "a,X"), "stands there twice"),
        (("name,glosses", "b,X"), "no folder of frames and no video"),
        (("name,glosses", "a,X"), "no sentence for 'dev'"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, table, words):
    picture(tmp_path / "a" / "0.png")
    written(tmp_path / "glosses.csv", *table)
    with pytest.raises(DataError, match=words):
        sign_folder(tmp_path)


def test_missing_folders_and_tables_say_so(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        sign_folder(tmp_path / "none")
    with pytest.raises(DataError, match="a table with the columns"):
        sign_folder(tmp_path)
    with pytest.raises(DataError, match="holds no pictures"):
        read_frames(Sentence("a", "", ("X",), tmp_path))
    picture(tmp_path / "0.png")
    picture(tmp_path / "1.png", size=(30, 30))
    with pytest.raises(DataError, match="frames of 2 sizes"):
        read_frames(Sentence("a", "", ("X",), tmp_path))
    with pytest.raises(DataError, match="no video"):
        read_frames(Sentence("a", "", ("X",), tmp_path / "none.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"not a video" * 50)
    with pytest.raises(DataError, match="cannot be read as a video"):
        read_frames(Sentence("a", "", ("X",), tmp_path / "bad.mp4"))


@pytest.mark.parametrize("name", ["phoenix2014", "phoenix2014t"])
def test_a_corpus_that_is_not_there_names_its_page(data_dir, name):
    with pytest.raises(DataError, match="rwth-aachen"):
        getattr(sign, name)("train")


def test_csl_that_is_not_there_names_its_page(data_dir):
    with pytest.raises(DataError, match="ustc-slr"):
        sign.csl(1, "test")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a-1|x|Signer01", "3 columns"),
        ("a-1|x|Signer01|", "a name that can be a folder's, and glosses"),
        ("../a|x|Signer01|REGEN", "a name that can be a folder's"),
        ("a-1|x|S|A\na-1|x|S|B", "line 2: 'a-1' stands there twice"),
    ],
)
def test_a_damaged_annotation_names_its_line(tmp_path, line, words):
    path = written(tmp_path / "x.csv", line)
    with pytest.raises(DataError, match=words):
        phoenix.read_corpus(path, phoenix.corpus_2014, tmp_path)


@pytest.mark.parametrize("content", [b"PK rubbish", b""])
def test_a_damaged_file_of_key_points_is_refused(tmp_path, content):
    (tmp_path / "keypoints.npz").write_bytes(content)
    with pytest.raises(DataError, match="holds no key points"):
        read_points(tmp_path / "keypoints.npz")


@pytest.mark.parametrize("array", [np.zeros((3, 7)), np.zeros((3, 7, 2), np.int64), np.full((3, 7, 2), 150.0)])
def test_key_points_of_another_form_are_refused(tmp_path, array):
    np.savez(tmp_path / "keypoints.npz", a=array)
    with pytest.raises(DataError, match="holds no key points"):
        read_points(tmp_path / "keypoints.npz")["a"]


def test_an_archive_of_key_points_is_opened_once(tmp_path, monkeypatch):
    """A corpus has thousands of sentences, and reading the list of them each time takes longer than all arrays."""
    np.savez(tmp_path / "keypoints.npz", **{f"s{k}": np.full((2, 7, 2), k / 10, np.float32) for k in range(5)})
    points = read_points(tmp_path / "keypoints.npz")
    monkeypatch.setattr("zipfile.ZipFile.__init__", None)  # no other one can be opened
    assert sorted(points) == [f"s{k}" for k in range(5)]
    assert [float(points[f"s{k}"].mean()) for k in range(5)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert points.get("unknown") is None


# -- the real annotation files ----------------------------------------------------------------------------------------


def real(name: str) -> Path:
    if not (REAL / name).is_file():
        pytest.skip(f"needs LABKIT_DATA/sign/{name}, which is not ours to pass on")
    return REAL / name


@pytest.mark.parametrize(
    ("name", "row", "count"),
    [
        ("PHOENIX-2014-T.dev.corpus.csv", phoenix.corpus_2014t, 519),
        ("PHOENIX-2014-T.train.corpus.csv", phoenix.corpus_2014t, 7096),
        ("phoenix2014-dev.SI5.corpus.csv", phoenix.corpus_2014, 111),
        ("phoenix2014-train.SI5.corpus.csv", phoenix.corpus_2014, 4376),
    ],
)
def test_the_real_annotations_are_read(name, row, count):
    path = real(name)
    assert len(phoenix.read_corpus(path, row, Path("nowhere"))) == count


def test_the_glosses_of_2014_t_are_those_that_predictions_are_scored_against():
    sentences = phoenix.read_corpus(real("PHOENIX-2014-T.dev.corpus.csv"), phoenix.corpus_2014t, Path("nowhere"))
    lines = real("phoenix2014T.dev.gloss").read_text(encoding="utf-8").splitlines()
    assert sorted(" ".join(s.glosses) for s in sentences) == sorted(" ".join(line.split()) for line in lines)


@pytest.mark.parametrize(("name", "count"), [("dev", 540), ("train", 5671)])
def test_the_real_references_are_read(name, count):
    assert len(sign.read_stm(real(f"phoenix2014-groundtruth-{name}.stm"))) == count


@pytest.mark.parametrize(("name", "count"), [("test_csl_split1", 5000), ("csl_split2_unseen_sentence_test", 1500)])
def test_the_real_lists_of_csl_are_read(name, count):
    sentences = chinese.read_list(real(f"{name}.txt"), Path("nowhere"))
    assert len(sentences) == count
    assert {s.signer for s in sentences if name.endswith("split1")} <= {f"P{k}" for k in range(41, 51)}
