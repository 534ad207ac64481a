"""What labkit reads, small and whole, to be damaged: run files, records, tensors, pictures, annotations, configs."""

import gzip
import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import mutations
import numpy as np
import scipy.io
import torch
import toy_paper
from PIL import Image
from pydantic import BaseModel, Field
from torch import nn
from toy_paper import PAPER, ToyConfig

from labkit import papers, paths, tensor_files
from labkit.cli.translate import chunks
from labkit.data import action, image_folder, images, pictures, superresolution, translation
from labkit.data.action.datasets import read_ucf24_mat, read_ucf24_pickle
from labkit.data.sign import chinese, phoenix, read_frames, sign_folder
from labkit.data.tracking import Sequence, benchmark, lasot, nfs, otb, oxuva, uav, vot
from labkit.data.tracking.development import read as read_development
from labkit.metrics.detection import ava, frame_map, read_boxes, read_tubes, video_map
from labkit.papers.bertfused.method.bert import Bert, random_bert
from labkit.papers.bertfused.method.xlm import Xlm
from labkit.papers.mlvc.experiment.video import read as read_sequence
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network, Settings
from labkit.papers.mlvc.method.video_files import opened_coded
from labkit.text.feature_cache import FeatureCache, cached
from labkit.tracking.peers import StaticBox
from labkit.tracking.runner import Results
from labkit.tracking.video import follow
from labkit.vision.weights import load_float_weights
from labkit.workbench import export
from labkit.workbench.runs import Run


@dataclass(frozen=True)
class Subject:
    """Files to be damaged, and how they are read.

    make: fills a folder. use: reads all of it; what it returns is compared where the files are sealed.
    sealed: bytes that were altered without a new sum must be noticed, or be of no consequence.
    draw: instead of damaged files, values drawn from a generator.
    slow: making it trains something.
    """

    name: str
    make: Callable[[Path], None]
    use: Callable[[Path], object]
    sealed: bool = False
    draw: Callable[[Path, random.Random], object] | None = None
    slow: bool = False


class Unnoticed(Exception):
    """Altered bytes were read as good, and something else came out."""


class Trial:
    """One subject in a folder of its own; `run` is one attempt to break it, the same for the same seed and number."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.whole, self.work = subject, folder / "whole", folder / "work"
        self.whole.mkdir(parents=True)
        subject.make(self.whole)
        self.expected = subject.use(self._fresh())  # which also proves that whole files are read

    def run(self, seed: int, number: int) -> object:
        """Raises what the reader raises, or Unnoticed."""
        rng, folder = random.Random(f"{seed} {self.subject.name} {number}"), self._fresh()
        if self.subject.draw:
            return self.subject.draw(folder, rng)
        path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        must_notice = mutations.spoil(path, rng)
        output = self.subject.use(folder)
        if self.subject.sealed and must_notice and output != self.expected:
            raise Unnoticed(f"{path.relative_to(folder)} was altered, and other values came out")
        return output

    def _fresh(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        return Path(shutil.copytree(self.whole, self.work))


# -- runs and records -------------------------------------------------------------------------------------------------

CONFIG = ToyConfig(steps=4, widths=(4,))


def finished_run(folder: Path) -> None:
    PAPER.run(CONFIG, Run.open(folder, CONFIG, checkpoint_seconds=0.0))


def use_finished(folder: Path) -> object:
    run = Run.open(folder, CONFIG)
    result = PAPER.run(CONFIG, run)
    for arm in ("plain", "noisy"):
        run.part(arm).metrics()
        run.part(arm).read_weights(toy_paper.build_model(CONFIG))
    PAPER.verdicts(result, "smoke")
    return result


def stopped_run(folder: Path) -> None:
    """Both arms have a checkpoint and no result."""
    finished_run(folder)
    for path in folder.rglob("*"):
        if path.name in ("result.json", "seal.json", "weights.safetensors"):
            path.unlink()


def use_stopped(folder: Path) -> object:
    return PAPER.run(CONFIG, Run.open(folder, CONFIG))


def records_of(slug: str, folder: Path) -> None:
    shutil.copytree(paths.root() / "data" / "records" / slug, folder / slug)


def use_records(slug: str, folder: Path) -> object:
    os.environ["LABKIT_RECORDS"] = str(folder)
    papers.load(slug).verdicts()
    return None


# -- tensors ----------------------------------------------------------------------------------------------------------


class Header(BaseModel, frozen=True, extra="forbid", strict=True):
    format: Literal["a subject"] = "a subject"
    levels: int = Field(3, ge=1, le=100)
    scales: tuple[float, ...] = (0.5, 2.0)


def tensor_file(folder: Path) -> None:
    tensors = {
        "weight": torch.arange(60.0).view(12, 5),
        "codes": torch.ones(7, dtype=torch.int8),
        "none": torch.zeros(0),
    }
    tensor_files.write(folder / "model.safetensors", tensors, Header())


def use_tensor_file(folder: Path) -> object:
    tensors, header = tensor_files.read(folder / "model.safetensors", Header)
    return {name: (str(value.dtype), value.tolist()) for name, value in tensors.items()}, header


def torch_file(folder: Path) -> None:
    torch.save({"weight": torch.arange(60.0).view(12, 5), "more": [torch.ones(3), 1]}, folder / "weights.pt")


def use_torch_file(folder: Path) -> object:
    content = tensor_files.read_torch(folder / "weights.pt")
    return sum(float(value.sum()) for value in tensor_files._tensors_in(content) if value.is_floating_point())


def float_weights(folder: Path) -> None:
    torch.manual_seed(0)
    Run.open(folder, CONFIG).write_weights(nn.Linear(5, 3))


def use_float_weights(folder: Path) -> object:
    model = nn.Linear(5, 3)
    load_float_weights(model, str(folder / "weights.safetensors"))
    return model.weight.tolist(), model.bias.tolist()


def exported(slug: str, folder: Path) -> None:
    """What a smoke run of a room trained, one folder an arm."""
    paper = papers.load(slug)
    config = paper.config("smoke", device="cpu")
    run = Run.open(folder.parent / "run", config)
    paper.run(config, run)
    for arm in paper.exports.arms(config, run):
        export.export(paper, config, run, folder / arm, arm)
        (folder / arm / "README.md").unlink()
        (folder / arm / "config.json").unlink()


def use_exported(slug: str, folder: Path) -> object:
    load = papers.load(slug).exports.load
    loaded = {str(path.relative_to(folder)): load(path) for path in sorted(folder.rglob("*.safetensors"))}
    return {
        name: {key: value.tolist() for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
        for name, model in loaded.items()
        if isinstance(model, nn.Module)
    }


# -- pictures and datasets --------------------------------------------------------------------------------------------


def noise(path: Path, size: tuple[int, int] = (20, 14)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def some_pictures(folder: Path) -> None:
    for ending in ("jpg", "png", "bmp", "gif", "ppm", "tiff", "webp"):
        noise(folder / f"a.{ending}")


def use_pictures(folder: Path) -> object:
    return [pictures.read_picture(path, "Get it anew.").size for path in sorted(folder.iterdir())]


def idx_files(folder: Path) -> None:
    (folder / "labels.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 50) + bytes(range(50))))
    (folder / "images.gz").write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2, 5, 4) + bytes(range(40))))


def use_idx(folder: Path) -> object:
    return [images.read_idx(path).tolist() for path in sorted(folder.iterdir())]


def photographs(folder: Path) -> None:
    for k in range(superresolution.COUNTS["Set5"]):
        noise(folder / "sr" / "Set5" / f"{k}.png")


def use_photographs(folder: Path) -> object:
    os.environ["LABKIT_DATA"] = str(folder)
    return [image.shape for image in superresolution.photographs("Set5").images]


def class_folders(folder: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01", "n02"):
            noise(folder / "imagenet" / split / wnid / f"{wnid}_1.jpeg")


def use_class_folders(folder: Path) -> object:
    os.environ["LABKIT_DATA"] = str(folder)
    dataset = image_folder.imagenet("train", size=24)
    return [dataset.image(k).shape for k in range(len(dataset))]


# -- tracking annotations ---------------------------------------------------------------------------------------------


def frames(folder: Path, numbers: range, width: int = 4, ending: str = ".png") -> None:
    for number in numbers:
        noise(folder / f"{number:0{width}d}{ending}", (8, 6))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


ROWS = "".join(f"{k + 1},2,3,4\n" for k in range(3))


def otb_tree(folder: Path) -> None:
    frames(folder / "Basketball" / "img", range(1, 4))
    text(folder / "Basketball" / "groundtruth_rect.txt", ROWS.replace(",", "\t"))


def tc_tree(folder: Path) -> None:
    frames(folder / "Hurdle" / "img", range(20, 26))
    text(folder / "Hurdle" / "Hurdle_gt.txt", ROWS)
    text(folder / "Hurdle" / "Hurdle_frames.txt", "22,24\n")


def uav_tree(folder: Path) -> None:
    frames(folder / "data_seq" / "UAV123" / "bike1", range(1, 4), width=6)
    text(folder / "anno" / "UAV123" / "bike1.txt", ROWS.replace("2,2,3,4", "NaN,NaN,NaN,NaN"))


def nfs_tree(folder: Path) -> None:
    frames(folder / "ball" / "30" / "ball", range(1, 4), width=5)
    text(folder / "ball" / "30" / "ball.txt", "".join(f'0 {k} 10 {k + 5} 16 {k} 0 0 1 "a ball"\n' for k in range(17)))


def lasot_tree(folder: Path) -> None:
    bird = folder / "bird" / "bird-2"
    frames(bird / "img", range(1, 4), width=8)
    text(bird / "groundtruth.txt", ROWS)
    text(bird / "full_occlusion.txt", "0,1,0")
    text(bird / "out_of_view.txt", "0,0,1")
    text(folder / "testing_set.txt", "bird-2\n")


def trackingnet_tree(folder: Path) -> None:
    frames(folder / "TEST" / "frames" / "video", range(3), width=1)
    text(folder / "TEST" / "anno" / "video.txt", "5.0,6.0,7.0,8.0\n")


def vot_tree(folder: Path) -> None:
    frames(folder / "zebra" / "color", range(1, 3), width=8)
    text(folder / "zebra" / "groundtruth.txt", 2 * "5,3,7,5,5,7,3,5\n")
    text(folder / "zebra" / "occlusion.tag", "0\n1\n")
    text(folder / "list.txt", "zebra\n")


def oxuva_tree(folder: Path) -> None:
    frames(folder / "images" / "dev" / "vid0", range(8), width=6, ending=".jpeg")
    text(folder / "tasks" / "dev.csv", "vid0,obj1,2,6,0.1,0.3,0.2,0.6\n")
    row = "vid0,obj1,3,bird,true,false"
    text(folder / "annotations" / "dev.csv", f"{row},4,present,0.5,0.75,0.1,0.2\n{row},6,absent,-1,-1,-1,-1\n")


def development_tree(folder: Path) -> None:
    frames(folder / "Jogging2" / "img", range(1, 4))
    text(folder / "Jogging2" / "groundtruth.txt", 3 * "5,3,7,5,5,7,3,5\n")


def sign_clips(folder: Path) -> None:
    """A reader's own signed clips: a table, a folder of frames and a video, key points."""
    text(folder / "glosses.csv", "name,glosses,split\na,HELLO WORLD,train\nclip,WORLD,dev\n")
    frames(folder / "a", range(3))
    video(folder)
    np.savez(folder / "keypoints.npz", a=np.full((3, 7, 2), 0.5, np.float32))


def use_sign_clips(folder: Path) -> object:
    splits = sign_folder(folder)
    return [
        (one.name, one.glosses, read_frames(one, 8).shape, None if one.points is None else one.points.shape)
        for part in ("train", "dev")
        for one in splits[part]
    ]


def sign_annotations(folder: Path) -> None:
    text(folder / "2014.csv", "id|folder|signer|annotation\na|a/1/*.png|Signer01|REGEN SONNE\n")
    text(folder / "2014t.csv", "x-1|x-1/1/*.png|-1|-1|Signer08|REGEN|es regnet\n")
    text(folder / "csl.txt", "000000/P41_s1_00_0_color\tta shi\n")


def use_sign_annotations(folder: Path) -> object:
    corpora = (("2014.csv", phoenix.corpus_2014), ("2014t.csv", phoenix.corpus_2014t))
    read = [phoenix.read_corpus(folder / name, row, folder) for name, row in corpora]
    read.append(chinese.read_list(folder / "csl.txt", folder))
    return [one.glosses for part in read for one in part]


def use_tree(read: Callable[[Path], Iterator[Any]], folder: Path) -> object:
    return [(one.name, len(one), one.annotated.tolist(), one.frames[0].shape) for one in read(folder)]


def use_development(folder: Path) -> object:
    return use_tree(lambda tree: iter([read_development(tree / "Jogging2", "groundtruth.txt")]), folder)


# -- actions and detections --------------------------------------------------------------------------------------------


def action_annotations(folder: Path) -> None:
    """UCF-101-24 in both forms, a pickle of ACT's, a frame list; one video of a few frames in each."""
    boxes = np.array([[10, 5, 20, 30]] * 4, np.uint8)
    content = {"C/v": {"numf": 4, "label": 3, "annotations": [{"label": 3, "sf": 0, "ef": 4, "boxes": boxes}]}}
    (folder / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))
    tubes = np.zeros((1, 1), dtype=[("ef", "O"), ("sf", "O"), ("class", "O"), ("boxes", "O")])
    tubes[0, 0] = (np.array([[4]]), np.array([[1]]), np.array([[4]]), boxes)
    annot = np.zeros((1, 1), dtype=[("num_imgs", "O"), ("name", "O"), ("tubes", "O")])
    annot[0, 0] = (np.array([[4]]), np.array(["C/v"]), tubes)
    scipy.io.savemat(folder / "a.mat", {"annot": annot})
    act = {"labels": ["run"], "gttubes": {"v": {0: [np.array([[1.0, 2, 3, 9, 9], [2.0, 2, 3, 9, 9]])]}}}
    act |= {"nframes": {"v": 2}, "train_videos": [["v"]], "test_videos": [["v"]], "resolution": {"v": (20, 30)}}
    (folder / "UCFSports-GT.pkl").write_bytes(pickle.dumps(act))
    rows = [f'v 0 {t} v/v_{t + 1:06d}.jpg ""' for t in range(3)]
    text(folder / "frame-list.csv", "\n".join(["original_vido_id video_id frame_id path labels", *rows]) + "\n")


def use_action_annotations(folder: Path) -> object:
    annotations = [read_ucf24_pickle(folder / "a.pkl"), read_ucf24_mat(folder / "a.mat")]
    annotations.append(dict(action.ucf_sports(folder).videos))
    action.read_frame_list(folder / "frame-list.csv")
    return [[(v.name, v.frames, len(v.tubes)) for v in videos.values()] for videos in annotations]


def detection_tables(folder: Path) -> None:
    """Two tables of each measure, AVA's label map and list of exclusions."""
    head = "video,{}frame,x1,y1,x2,y2,label"
    for name, column, cell in (("boxes", "", ""), ("tubes", "tube,", "0,")):
        rows = [f"v,{cell}{t},1,2,30,40,run" for t in range(4)]
        text(folder / f"{name}-truth.csv", "\n".join([head.format(column), *rows]) + "\n")
        scored = [f"{head.format(column)},score", *(f"{row},0.5" for row in rows)]
        text(folder / f"{name}-detections.csv", "\n".join(scored) + "\n")
    text(folder / "ava-truth.csv", "v,0902,0.1,0.2,0.3,0.4,12,0\nv,0903,0.1,0.2,0.3,0.4,80,1\n")
    text(folder / "ava-detections.csv", "v,0902,0.1,0.2,0.3,0.4,12,0.9\n")
    text(folder / "map.pbtxt", 'item {\n  name: "stand"\n  id: 12\n}\n')
    text(folder / "excluded.csv", "v,0903\n")


def use_detection_tables(folder: Path) -> object:
    true_boxes, boxes, _ = read_boxes(folder / "boxes-truth.csv", folder / "boxes-detections.csv")
    true_tubes, tubes, _ = read_tubes(folder / "tubes-truth.csv", folder / "tubes-detections.csv")
    tables = [folder / name for name in ("ava-truth.csv", "ava-detections.csv", "map.pbtxt", "excluded.csv")]
    return frame_map(true_boxes, boxes).mean, video_map(true_tubes, tubes).mean, ava.evaluate(*tables).mean


# -- videos, and what trackers left ------------------------------------------------------------------------------------


def video(folder: Path) -> None:
    with av.open(str(folder / "clip.mp4"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(6):
            pixels = np.full((48, 64, 3), 40 * k, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        sink.mux(stream.encode())


def use_video(folder: Path) -> object:
    report = follow(folder / "clip.mp4", (4.0, 4.0, 10.0, 8.0), folder / "out.mp4", StaticBox())
    return report.frames


def coded_video(folder: Path) -> None:
    """Three frames, I P I, and the networks that decode them, small ones with random weights."""
    torch.manual_seed(0)
    codec = Codec({2: Network(Settings(width=0.05))})
    codec.save(folder / "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 1, 3), dtype=np.uint8)
    frames = [np.broadcast_to(colour, (20, 30, 3)).copy() for colour in pixels]
    (folder / "clip.mlvc").write_bytes(codec.encode(frames, gop=2))


def use_coded_video(folder: Path) -> object:
    codec = Codec.load(folder / "model.safetensors")
    with opened_coded(folder / "clip.mlvc") as data:
        shown = codec.decode(data, conceal=True)  # what strict decoding refuses is concealed, or refused as well
        assert all(frame.shape == shown[0].shape for frame in shown)
        return [frame.tobytes() for frame in codec.decode(data)]


def common_sequences(folder: Path) -> None:
    """Raw, described and compressed videos, and a septuplet, small and in the layout of their data sets."""
    planes = np.random.default_rng(0).integers(0, 256, (2, 24, 16), dtype=np.uint8)
    (folder / "Raw_16x16_30.yuv").write_bytes(planes.tobytes())
    frames = b"".join(b"FRAME\n" + plane.tobytes() for plane in planes)
    (folder / "Described.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F30:1 Ip A1:1 C420jpeg\n" + frames)
    video(folder)


def use_common_sequences(folder: Path) -> object:
    sizes = [read_sequence(path).size for path in sorted(folder.iterdir()) if path.suffix in (".yuv", ".y4m", ".mp4")]
    assert all(0 < side <= 8192 for size in sizes for side in size)
    return sizes


def clip() -> Sequence:
    boxes = np.array([[20.0 + t, 30.0, 10.0, 10.0] for t in range(12)])
    return Sequence("clip", [np.zeros((100, 200, 3), np.uint8)] * 12, boxes, np.zeros(12, dtype=bool))


def results(folder: Path) -> None:
    for name in ("otb2015", "vot2018"):
        use_results_of(name, folder)


def use_results_of(name: str, folder: Path) -> None:
    """Reads what is there, and runs what is not."""
    kept = Results(folder, "static", benchmark(name), {"size": 1})
    kept.open()
    if name == "vot2018":
        kept.supervised(StaticBox, clip(), 2)
    else:
        kept.one_pass(StaticBox, clip())


# -- encoders and text ------------------------------------------------------------------------------------------------


def bert_folder(folder: Path) -> None:
    bert = random_bert(["two dogs run .", "a cat sleeps on the mat ."], width=8, layers=1, heads=1)
    bert.model.save_pretrained(folder)
    bert.tokenizer.save_pretrained(folder)


def use_bert_folder(folder: Path) -> object:
    return Bert.from_folder(folder)(["two cats run on the mat ."]).states.shape


def xlm_folder(folder: Path) -> None:
    import transformers

    letters = [*"abcdeghinorstuwy.", *(f"{letter}</w>" for letter in "abcdeghinorstuwy.")]
    tokens = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10)), *letters, "do"]
    config = transformers.XLMConfig(
        vocab_size=len(tokens), emb_dim=8, n_layers=1, n_heads=2, n_langs=2, max_position_embeddings=40,
        lang2id={"de": 0, "en": 1}, id2lang={"0": "de", "1": "en"},
    )  # fmt: skip
    transformers.XLMWithLMHeadModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("d o 9\n")


def use_xlm_folder(folder: Path) -> object:
    xlm = Xlm.from_folder(folder)
    source = torch.tensor([[*xlm.bpe.encode("two dogs"), 2]])
    return xlm.start("both", "en", "de")(source, source).shape


def lines_of_text(folder: Path) -> None:
    (folder / "in.txt").write_bytes("two dogs run .\n\nein Hündchen schläft .\r\n".encode())


def use_lines(folder: Path) -> object:
    return list(chunks((folder / "in.txt").open("rb"), 2))


# -- what people type -------------------------------------------------------------------------------------------------


def nothing(folder: Path) -> None: ...


def features(folder: Path) -> None:
    lengths = [3, 1, 2]
    states = [torch.arange(float(4 * n)).view(n, 4) for n in lengths]
    cached(folder, "0" * 64, lengths, 4, lambda rows: [states[i] for i in rows], [[0, 1, 2]])


def use_features(folder: Path) -> object:
    return FeatureCache.open(folder, "0" * 64).padded([2, 0, 1])[0].tolist()


def parallel_text(folder: Path) -> None:
    """A table of pairs, two files of which one is packed, and IWSLT's layout."""
    lines = [f"sentence {i}" for i in range(30)]
    (folder / "pairs.tsv").write_text("".join(f"{line}\tSatz {i}\n" for i, line in enumerate(lines)))
    (folder / "a.en").write_text("\n".join(lines))
    (folder / "a.de.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    root = folder / "iwslt14" / "de-en"
    root.mkdir(parents=True)
    for language in ("de", "en"):
        (root / f"train.tags.de-en.{language}").write_text("<talkid>1</talkid>\n" + "\n".join(lines))
        xml = "".join(f"<seg id='{i}'>{line} &amp; co</seg>" for i, line in enumerate(lines))
        (root / f"IWSLT14.TED.tst2010.de-en.{language}.xml").write_text(f"<doc>{xml}</doc>")


def use_parallel_text(folder: Path) -> object:
    os.environ["LABKIT_DATA"] = str(folder)
    own = [translation.parallel(given) for given in (f"{folder}/pairs.tsv", f"{folder}/a.en,{folder}/a.de.gz")]
    return [translation.split(text) for text in own], translation.iwslt14("en", "de")


def typed_config(folder: Path, rng: random.Random) -> object:
    """`-p name text` for any paper: an impossible text is a sentence, and a possible one a config."""
    config = papers.load(rng.choice(papers.names())).config(rng.choice(("smoke", "lesson", "full")))
    names = sorted(type(config).model_fields)
    texts = [*mutations.WORDS, *map(str, mutations.VALUES), str(rng.randrange(-5, 10**6)), "a,b", "1,2", "[1,", "true"]
    pairs = {
        rng.choice(names) if rng.random() < 0.95 else "nmae": rng.choice(texts) for _ in range(rng.choice((1, 1, 2)))
    }
    return config.override_text(pairs)


def notebook_parameters(folder: Path, rng: random.Random) -> object:
    """The first cells of every notebook: a config from a scale, a seed and overrides, and a run directory for it."""
    paper = papers.load(rng.choice(papers.names()))
    scale = "smoke" if rng.random() < 0.9 else rng.choice(mutations.VALUES)
    seed = rng.randrange(10) if rng.random() < 0.9 else rng.choice(mutations.VALUES)
    names = sorted(set(type(paper.config()).model_fields) - {"seed"})
    overrides = {rng.choice(names): rng.choice(mutations.VALUES) for _ in range(rng.choice((0, 1, 2)))}
    config = paper.config(scale, seed=seed, **overrides)
    name = rng.choice(("run", "a b", "é", "\0", "n" * 300, "x/" * 3000, "deep/er", "\udc80", "-p", "%s"))
    return paper.open_run("smoke", config, f"{folder}/{name}").directory


def subjects() -> list[Subject]:
    """Every subject, the light ones first. A room that can export brings its own."""
    trees = {
        "otb": (otb_tree, otb.otb2015),
        "tc128": (tc_tree, otb.tc128),
        "uav": (uav_tree, uav.uav123),
        "nfs": (nfs_tree, nfs.nfs),
        "lasot": (lasot_tree, lasot.lasot),
        "trackingnet": (trackingnet_tree, lasot.trackingnet),
        "vot": (vot_tree, vot.vot),
        "oxuva": (oxuva_tree, oxuva.oxuva),
    }
    return [
        Subject("finished-run", finished_run, use_finished, sealed=True),
        Subject("stopped-run", stopped_run, use_stopped, sealed=True),
        Subject("tensor-file", tensor_file, use_tensor_file, sealed=True),
        Subject("torch-file", torch_file, use_torch_file),
        Subject("float-weights", float_weights, use_float_weights, sealed=True),
        Subject("pictures", some_pictures, use_pictures),
        Subject("idx", idx_files, use_idx),
        Subject("photographs", photographs, use_photographs),
        Subject("class-folders", class_folders, use_class_folders),
        *(Subject(name, make, partial(use_tree, read)) for name, (make, read) in trees.items()),
        Subject("development", development_tree, use_development),
        Subject("action-annotations", action_annotations, use_action_annotations),
        Subject("detection-tables", detection_tables, use_detection_tables),
        Subject("video", video, use_video),
        Subject("test-sequences", common_sequences, use_common_sequences),
        Subject("coded-video", coded_video, use_coded_video, sealed=True),
        Subject("sign-clips", sign_clips, use_sign_clips),
        Subject("sign-annotations", sign_annotations, use_sign_annotations),
        Subject("results", results, results),
        Subject("features", features, use_features, sealed=True),
        Subject("parallel-text", parallel_text, use_parallel_text),
        Subject("bert-folder", bert_folder, use_bert_folder),
        Subject("xlm-folder", xlm_folder, use_xlm_folder),
        Subject("lines-to-translate", lines_of_text, use_lines),
        Subject("typed-config", nothing, nothing, draw=typed_config),
        Subject("notebook-parameters", nothing, nothing, draw=notebook_parameters),
        *(Subject(f"records-{slug}", partial(records_of, slug), partial(use_records, slug)) for slug in papers.names()),
        *(
            Subject(f"export-{slug}", partial(exported, slug), partial(use_exported, slug), sealed=True, slow=True)
            for slug in papers.names()
            if (paths.root() / "labkit" / "papers" / slug / "experiment" / "export.py").exists()
        ),
    ]
