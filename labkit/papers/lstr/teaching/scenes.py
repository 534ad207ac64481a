"""What the pictures look at: a generated video, a trained network at work on it, records of other arms."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import RunError
from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.metrics.detection import Boxes, Tube, frame_map, pairwise_iou
from labkit.metrics.detection.average_precision import average_precision, precision_recall
from labkit.papers.lstr.experiment import actors, evaluate
from labkit.papers.lstr.experiment.actors import Actors, Videos
from labkit.papers.lstr.experiment.config import ARMS, Config
from labkit.papers.lstr.experiment.detector import Detector
from labkit.papers.lstr.experiment.detector import trained as trained_arm
from labkit.papers.lstr.method import proposals as method
from labkit.papers.lstr.method.linking import Path, link_viterbi
from labkit.papers.lstr.method.network import Lstr
from labkit.papers.lstr.method.short_term import ShortTermRelation
from labkit.workbench.records import load_all
from labkit.workbench.runs import Run

SEED = 77
"""Of videos that are only looked at: none is trained or tested on."""


@cache
def story(settings: Actors = actors.STANDARD) -> tuple[Videos, int, int]:
    """A video in which one actor has an event in the second clip and the other never; and that actor's color."""
    videos = actors.videos(60, SEED, actors.TEST, settings)
    for v in range(len(videos)):
        for color in videos.identity[v, 0].tolist():
            late = [int(videos.labels[v, c][videos.identity[v, c] == color][0] % 2) for c in range(5)]
            other = [int(videos.labels[v, c][videos.identity[v, c] != color][0] % 2) for c in range(5)]
            if late == [0, 0, 1, 1, 1] and not any(other):
                return videos, v, int(color)
    raise RunError("no such video among those generated.")


def picture(videos: Videos, video: int, clip: int, frame: int = 0) -> Float[np.ndarray, "h w 3"]:
    return videos.clips[video, clip, :, frame].permute(1, 2, 0).numpy()


def ceilings(settings: Actors = actors.STANDARD) -> dict[str, float]:
    """Accuracies on L in the late clips of who knows less than all: exact, from the generator's probabilities.

    p: chance that an actor's event lies before clip c. Guessing the likelier answer gives max(p, 1 - p). Who counts the
    events so far, but cannot tell the actors apart, is right unless exactly one has had its event: then half the time.
    """
    first = max(settings.clips - 2, 1)
    chance = [0.5 * min(c, first) / first for c in range(evaluate.FIRST_LATE, settings.clips)]
    return {
        "guess": float(np.mean([max(p, 1 - p) for p in chance])),
        "count": float(np.mean([1 - p * (1 - p) for p in chance])),
    }


def counting(seed: int, count: int, settings: Actors = actors.STANDARD) -> float:
    """Accuracy on L in the late clips that who counts can expect on a seed's test videos.

    Where exactly one of two actors has had its event, one of two answers is right.
    """
    later = (actors.videos(count, seed, actors.TEST, settings).labels % 2)[:, evaluate.FIRST_LATE :].sum(-1)
    return float(torch.where(later == 1, 0.5, 1.0).mean())


@torch.no_grad()
def evenness(arm: str, starts: int = 4, videos: int = 8) -> list[float]:
    """Entropy of an untrained graph's weights in the last clip over the largest possible one, for several starts."""
    generated = actors.videos(60, SEED, actors.TEST)
    clips, boxes, labels = generated.clips[:videos], generated.boxes[:videos], generated.labels[:videos]
    values = []
    for seed in range(starts):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Lstr(ARMS[arm], len(actors.CLASSES), clips.shape[3])
        weights = net(clips, boxes, torch.ones(labels.shape, dtype=torch.bool)).adjacency[:, -labels.shape[2] :]
        visible = (weights > 0).sum(-1)  # oneself and all nodes of earlier clips
        values.append(float((torch.special.entr(weights).sum(-1) / visible.log()).mean()))
    return values


# -- a trained network at work ----------------------------------------------------------------------------------------


def trained(config: Config, run: Run, arm: str = "cascade") -> Detector | None:
    """The detector of an arm of a run on generated actors; None where the run has no such arm, or other data."""
    return trained_arm(config, run, arm) if arm in config.arms and config.data == "actors" else None


@dataclass(frozen=True, eq=False)
class Look:
    """One clip as one network sees it.

    picture (h, w, 3); boxes (k, 4); weights, each (k, rows, columns), by their source: "both", "content", "geometry".
    """

    picture: np.ndarray
    boxes: np.ndarray
    weights: Mapping[str, np.ndarray]
    objects: tuple[str, ...]


@torch.no_grad()
def looks(detector: Detector, clips: int = 6) -> list[Look]:
    """Attention of true boxes in the first clips of videos that are only looked at."""
    videos, net = actors.videos(60, SEED, actors.TEST), detector.network
    shown = []
    for v in range(clips):
        maps = net.backbone(videos.clips[v, :1])
        given = videos.boxes[v, :1]
        weights = {name: w[0, :, 0] for name, w in attention(net, maps, given).items()}
        shape = maps.shape[2:]
        shown.append(
            Look(
                picture(videos, v, 0),
                given[0, :, 0].numpy(),
                {name: w.unflatten(-1, shape).sum(1).numpy() for name, w in weights.items()},
                tuple(actors.KINDS[int(label) // 2] for label in videos.labels[v, 0]),
            )
        )
    return shown


def attention(net: Lstr, maps: Tensor, tubelets: Tensor) -> dict[str, Tensor]:
    """a_ij of the relation as it is, and of the two terms of its score by themselves."""
    short = net.short
    assert isinstance(short, ShortTermRelation)
    x = net.pool(maps, tubelets)
    whole = short(x, maps, tubelets).weights
    bias = short.bias(maps, tubelets)
    return {
        "both": whole,
        "content": (whole.transpose(1, 2).log() - bias).softmax(-1).transpose(1, 2),
        "geometry": bias.softmax(-1).transpose(1, 2),
    }


@dataclass(frozen=True, eq=False)
class Web:
    """The graph of one video: per node its clip, color number, label, event in this clip; adjacency (nodes, nodes)."""

    clip: Int[np.ndarray, " nodes"]
    identity: Int[np.ndarray, " nodes"]
    labels: Int[np.ndarray, " nodes"]
    event: np.ndarray
    adjacency: Float[np.ndarray, "nodes nodes"]


@torch.no_grad()
def web(detector: Detector, videos: Videos, video: int) -> Web:
    """What each tubelet of a video listens to, with true boxes given."""
    valid = torch.ones(1, *videos.labels.shape[1:], dtype=torch.bool)
    output = detector.network(videos.clips[[video]], videos.boxes[[video]], valid)
    if output.adjacency is None:
        raise RunError("this network has no long-term relation.")
    clips, k = videos.labels.shape[1:]
    late = videos.labels[video] % 2
    event = np.zeros((clips, k), dtype=bool)
    for color in videos.identity[video].unique():
        mine = videos.identity[video] == color
        begins = (late[mine].reshape(clips, -1)[:, 0]).diff(prepend=torch.zeros(1, dtype=torch.long)).nonzero()
        for c in begins[:, 0].tolist():
            event[c - 1, mine[c - 1].numpy()] = True
    return Web(
        np.arange(clips).repeat(k), videos.identity[video].flatten().numpy(), videos.labels[video].flatten().numpy(),
        event.flatten(), output.adjacency[0].numpy(),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Proposed:
    """A clip's picture, its truth, and proposals with their scores and best overlaps."""

    picture: np.ndarray
    truth: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    overlaps: np.ndarray


@torch.no_grad()
def proposed(detector: Detector, video: int = 0, most: int = 6) -> Proposed:
    """More proposals than are kept, without suppression among far ones: what the scores rank."""
    videos = actors.videos(60, SEED, actors.TEST)
    maps = detector.proposer(videos.clips[video, :1])
    proposals = detector.proposer.proposals.propose(maps, most, (56, 56))
    truth = videos.boxes[video, :1]
    overlaps = tubelet_iou(proposals.tubelets, truth)[0].amax(-1)
    ok = proposals.valid[0]
    return Proposed(
        picture(videos, video, 0), truth[0, :, 0].numpy(), proposals.tubelets[0, ok, 0].numpy(),
        proposals.scores[0, ok].numpy(), overlaps[ok].numpy(),
    )  # fmt: skip


def assigned_anchors(video: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(picture, anchors (n, 4), kind: 1 positive, 0 negative, -1 neither; truth) of a clip."""
    videos = actors.videos(60, SEED, actors.TEST)
    still = method.anchors(14, 14, 4, (10.0,), (1.0,))
    overlaps = tubelet_iou(still[None, :, None].expand(-1, -1, 2, -1), videos.boxes[video, :1])
    positive, negative, _ = method.assign(overlaps, torch.ones(1, 2, dtype=torch.bool), 0.5, 0.3)
    kind = positive[0].long() - (~positive[0] & ~negative[0]).long()
    return picture(videos, video, 0), still.numpy(), kind.numpy(), videos.boxes[video, 0, :, 0].numpy()


# -- linking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Walk:
    """A walking video: pictures by clip, boxes (clips, k, frames, 4) of given tubelets, the scores of one class."""

    pictures: list[np.ndarray]
    boxes: np.ndarray
    scores: np.ndarray
    label: str


@cache
def hard_walk(seed: int = 37) -> Walk:
    """Two walkers whose scores of one class cross: noise makes the other one look better in some clips.  [ours]

    The scores are drawn, not a network's, so that the picture is the same everywhere.
    """
    videos = actors.videos(4, SEED, actors.WALKING)
    rng = np.random.default_rng(seed)
    scores = np.clip(np.array([0.62, 0.5]) + rng.normal(0, 0.16, (5, 2)), 0.02, 0.98)
    return Walk([picture(videos, 1, c) for c in range(5)], videos.boxes[1].numpy().astype(np.float64), scores, "square")


def linked(walk: Walk, beta: float) -> list[Path]:
    """The paths of a walk at this weight of the overlap."""
    return link_viterbi(list(walk.scores), list(walk.boxes), beta)


# -- precision and recall ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Recall and precision after each detection, with the envelope; overlap of the box that was moved; AP."""

    recall: np.ndarray
    precision: np.ndarray
    envelope: np.ndarray
    overlap: float
    ap: float


TRUTH = np.array([[10.0, 10, 30, 30], [40, 10, 60, 30], [70, 10, 90, 30]])
DETECTED = np.array([[10.0, 10, 30, 30], [41, 12, 61, 32], [70, 40, 90, 60], [72, 10, 92, 30], [12, 12, 32, 32]])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])


def curve(shift: float = 0.0, threshold: float = 0.5, score: float = 0.9) -> Curve:
    """Five detections of three truths; the first is moved to the right by `shift` and scored `score`."""
    moved, scores = DETECTED.copy(), SCORES.copy()
    moved[0, [0, 2]] += shift
    scores[0] = score
    zeros = np.zeros(3, dtype=np.int64)
    truth = Boxes(zeros, zeros, TRUTH)
    detected = Boxes(np.zeros(5, dtype=np.int64), np.zeros(5, dtype=np.int64), moved, scores)
    ap = frame_map(truth, detected, threshold).mean
    hits = hits_of(moved, scores, threshold)
    precision, recall = precision_recall(hits, 3)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    assert average_precision(hits, 3) == ap
    return Curve(recall, precision, envelope, float(pairwise_iou(moved[:1], TRUTH[:1]).item()), ap)


def hits_of(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections are true, best score first."""
    free, hits = [True] * len(TRUTH), []
    for k in np.argsort(-scores, kind="stable"):
        overlaps = np.where(free, pairwise_iou(boxes[[k]], TRUTH)[0], 0.0)
        best = int(overlaps.argmax())
        hits.append(bool(overlaps[best] >= threshold))
        if hits[-1]:
            free[best] = False
    return np.array(hits)


# -- records ----------------------------------------------------------------------------------------------------------


def recorded(label: str, *name: str) -> dict[str, list[float]]:
    """A number of every arm of the lesson's record with that label, one value a seed; empty where there is none."""
    for record in load_all("lstr"):
        if record.scale == "lesson" and record.label == label:
            values: dict[str, list[float]] = {}
            for result in record.results:
                for arm, numbers in result["arms"].items():
                    value: Any = numbers
                    for key in name:
                        value = value[key]
                    values.setdefault(arm, []).append(float(value))
            return values
    return {}


def tubes_of(detector: Detector, seed: int = SEED, video: int = 0) -> tuple[list[np.ndarray], list[Tube], list[Tube]]:
    """A walking video as frames, its true tubes, and those that a detector finds."""
    videos = actors.videos(4, seed, actors.WALKING)
    frames = videos.clips[video].transpose(1, 2).flatten(0, 1).permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    truth = evaluate.true_tubes(videos.boxes[video], videos.labels[video], "walk")
    return list(frames), truth, detector(iter(frames), "walk", least=0.3)
