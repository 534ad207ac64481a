"""Files and words that were made to do harm: they run nothing, lead nowhere, fetch nothing and do not fill the memory.

Damage by chance is the matter of `fuzz.py`. Other files that want to harm are tried where their reader is tested:
pictures (test_pictures), checkpoints, weights and links in a run's folder (test_tensor_files, test_runs), records
(test_records), configs (test_config), pickles (test_action), linked and long downloads (test_fetching), idx bombs
(test_images), bitstreams (test_container, test_range_coder, test_codec of mlvc), labels and folders from the command
line (test_cli, test_track).
"""

import ast
import gzip
import http.server
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest
import subjects
import torch
from papermill.translators import translate_parameters

from labkit.data import cifar, registry, translation
from labkit.data.action.datasets import read_ucf24_mat
from labkit.data.action.frames import VideoFrames
from labkit.data.sign.keypoints import read_points
from labkit.data.sign.sentence import video_frames
from labkit.data.tracking import oxuva
from labkit.errors import DataError, InputError, LabkitError
from labkit.papers.bertfused.method.bert import Bert, random_bert
from labkit.papers.mlvc.experiment.video import read as read_sequence
from labkit.tracking.peers import StaticBox
from labkit.tracking.video import follow

# -- archives ----------------------------------------------------------------------------------------------------------


def packed_text(path: Path, megabytes: int) -> None:
    with gzip.open(path, "wb") as stream:
        for _ in range(megabytes):
            stream.write(b"a sentence\n" * 2**16)


def test_packed_text_does_not_fill_the_memory(tmp_path):
    packed_text(tmp_path / "bomb.gz", 40)
    assert (tmp_path / "bomb.gz").stat().st_size < 2**18
    with pytest.raises(InputError, match=r"bomb\.gz' unpacks to more than"):
        translation.parallel(f"{tmp_path}/bomb.gz,{tmp_path}/bomb.gz")


def test_packed_text_that_is_text_is_read(tmp_path):
    """Even where every line is there twice."""
    lines = [f"line {number // 2} of a text" for number in range(20_000)]
    (tmp_path / "a.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    text = translation.parallel(f"{tmp_path}/a.gz,{tmp_path}/a.gz")
    assert list(text.sources) == list(text.targets) == lines


def test_a_matlab_file_does_not_fill_the_memory(tmp_path, monkeypatch):
    """A kilobyte that would become a gigabyte is refused after the bytes that are allowed."""
    monkeypatch.setattr("labkit.data.action.matlab.LARGEST", 2**20)
    content = zlib.compress(bytes(2**22), 9)
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "a.mat").write_bytes(head + struct.pack("<II", 15, len(content)) + content)
    with pytest.raises(DataError, match=r"a\.mat is damaged.*unpacks to more than 1,048,576 bytes"):
        read_ucf24_mat(tmp_path / "a.mat")


def test_key_points_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("labkit.data.sign.keypoints.MOST", 2**20)
    path = tmp_path / "k.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as stream:
        stream.write(bytes(2**21))
    with pytest.raises(DataError, match="an array of more than"):
        read_points(path)


def test_an_archive_with_links_and_ways_out_is_refused_and_writes_nothing(tmp_path, monkeypatch):
    """Its sum is that of another archive, so it would not even be opened; here it passes."""
    root = tmp_path / "data" / "cifar10"
    root.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(3073))
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, kind, target in (
            ("../../owned", tarfile.REGTYPE, ""), (f"{tmp_path}/owned", tarfile.REGTYPE, ""),
            ("test_batch.bin", tarfile.SYMTYPE, f"{tmp_path}/secret"), ("x/test_batch.bin", tarfile.LNKTYPE, "nothing"),
            ("y/test_batch.bin", tarfile.REGTYPE, ""),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = (10_001 * 3073 if name[0] == "y" else 3073) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(registry, "require", lambda name: root)
    with pytest.raises(DataError, match=r"lacks a whole test_batch\.bin"):
        cifar.cifar10("test")
    assert sorted(tmp_path.rglob("*")) == before


# -- names that lead out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../../owned", "/owned", "..", "a/b", "\\..\\x", "a\tb"])
@pytest.mark.parametrize("column", [0, 1])
def test_a_track_cannot_name_a_place_outside(tmp_path, name, column):
    """Its video is a folder's name, and both together are that of the results."""
    words = ["vid0", "obj1", "2", "6", "0.1", "0.3", "0.2", "0.6"]
    words[column] = name
    (tmp_path / "dev.csv").write_text(",".join(words) + "\n")
    with pytest.raises(DataError, match=r"dev\.csv, line 1: .* is no sequence's name"):
        oxuva.read_tracks(tmp_path / "dev.csv")


# -- videos that are lists of other places -----------------------------------------------------------------------------

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
READERS = {
    "labkit track": lambda path: follow(path, (4.0, 4.0, 10.0, 8.0), path.with_name("out.mp4"), StaticBox()),
    "signed clip": video_frames,
    "action": lambda path: VideoFrames(path)._opened(),
    "test sequence": read_sequence,
}


@pytest.fixture
def asked():
    """What a server on this machine is asked for, and its address."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield paths, f"http://127.0.0.1:{server.server_port}/a.mp4"
        server.shutdown()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [HLS, DASH, "ffconcat version 1.0\nfile '{}'\n"], ids=["hls", "dash", "concat"])
def test_a_video_that_names_other_places_is_no_video(tmp_path, asked, reader, content):
    """FFmpeg can follow lists of files and addresses: it asks nobody, and opens nothing outside of the folder."""
    paths, address = asked
    folder = tmp_path / "videos"
    folder.mkdir()
    subjects.video(tmp_path)
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "secret.mp4")
    for source in (address, f"{tmp_path}/secret.mp4", f"file:{tmp_path}/secret.mp4", "../secret.mp4"):
        (folder / "list.mp4").write_text(content.format(source))
        with pytest.raises(LabkitError):
            READERS[reader](folder / "list.mp4")
    assert paths == []
    assert os.listdir(folder) == ["list.mp4"]


# -- an encoder from a stranger ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_encoder_s_folder_runs_no_code(tmp_path, monkeypatch):
    """Neither pickled weights nor a program beside the config, which transformers runs where somebody says yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO())

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    bert = random_bert(["a b c d"] * 3)
    folder = tmp_path / "encoder"
    bert.model.save_pretrained(folder)
    bert.tokenizer.save_pretrained(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Model", "AutoModel": "evil.Model", "AutoTokenizer": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    Bert.from_folder(folder)  # a BERT, which needs no program of its own
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine"}))
    with pytest.raises(InputError, match="cannot be read as an encoder"):
        Bert.from_folder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    for write in (
        lambda path: path.write_bytes(pickle.dumps(Evil(), protocol=2)),
        lambda path: torch.save({"x": Evil()}, path),
    ):
        write(folder / "pytorch_model.bin")
        with pytest.raises(InputError, match="cannot be read as an encoder"):
            Bert.from_folder(folder)
    assert not (tmp_path / "owned").exists()


# -- words in place of values ------------------------------------------------------------------------------------------

WORDS = [
    "')\nopen('owned', 'w')#", '")\nopen("owned", "w")#', "'''\nopen('owned')\n'''", "\\", "\\'", "{7*7}", "%s",
    "__import__('os').system('touch owned')", "a\nb", "\r\nopen('owned')", "\N{LINE SEPARATOR}open('owned')", "\0",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_a_notebook_gets_its_parameters_as_values_never_as_code(word):
    """papermill writes parameters into a cell that is run: every statement of it must be a name and a literal."""
    given = {"scale": word, "seed": 3, "run_dir": word, "overrides": {word: [word, {"a": word}], "x": True, "y": None}}
    written = translate_parameters("python3", "python", given, "Parameters")
    statements = ast.parse(written).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    assert {s.targets[0].id: ast.literal_eval(s.value) for s in statements} == given
