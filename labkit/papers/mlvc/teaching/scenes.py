"""What the notebook's pictures look at: small clips coded by the small codec, a file that is damaged on purpose."""

import bisect
import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.metrics.intervals import student
from labkit.papers.mlvc.experiment import anchors
from labkit.papers.mlvc.experiment.bjontegaard import bd_rate
from labkit.papers.mlvc.experiment.closed_loop import Coded, Combiner, Symbols, code, newest
from labkit.papers.mlvc.experiment.combiners import Lessons, LinearCombiner
from labkit.papers.mlvc.experiment.comparison import ARMS
from labkit.papers.mlvc.experiment.data import coded_set
from labkit.papers.mlvc.experiment.entropy import Tables
from labkit.papers.mlvc.experiment.evaluate import as_arrays, as_tensor, protocol_effects
from labkit.papers.mlvc.experiment.measures import rgb_psnr
from labkit.papers.mlvc.experiment.scenes import Clips, Family, scenes, uncovered
from labkit.papers.mlvc.experiment.video import Video, from_rgb
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.container import DamagedFile, Packet, packets
from labkit.workbench.records import Record, load_all
from labkit.workbench.runs import Run

QUICK = Family(velocity=3.0, noise=2.0)
"""A disc and a plane that move fast, so that much is uncovered in every frame."""
STEP = 10.0


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame and what its four references say. errors: absolute, of each aligned reference.

    disagreement: of the two newest. extrapolated: the error of w_1 + (w_1 - w_2). hidden: not visible in the newest.
    """

    number: int
    frame: Float[np.ndarray, "height width"]
    aligned: Float[np.ndarray, "refs height width"]
    errors: Float[np.ndarray, "refs height width"]
    disagreement: Float[np.ndarray, "height width"]
    extrapolated: Float[np.ndarray, "height width"]
    hidden: Bool[np.ndarray, "height width"]


@functools.cache
def film(frames: int = 10, seed: int = 1) -> tuple[Clips, Coded]:
    """A clip with much occlusion, coded with the plain warp."""
    clips = scenes(QUICK, 1, frames, seed)
    return clips, code(clips, torch.full((1, 1, 1, 1), STEP), keep=True)


def moment(number: int = 7) -> Moment:
    """A frame of `film`; from frame 4 on all four references differ."""
    clips, coded = film()
    assert coded.aligned is not None
    frame, aligned = clips.frames[number, 0, 0].numpy(), coded.aligned[number - 1, 0].numpy()
    errors = np.abs(aligned - frame)
    ahead = np.abs(2 * aligned[0] - aligned[1] - frame)
    hidden = uncovered(clips)[number, 0].numpy() > 0
    return Moment(number, frame, aligned, errors, np.abs(aligned[0] - aligned[1]), ahead, hidden)


def errors_inside_and_outside(now: Moment) -> dict[str, tuple[float, float]]:
    """Mean errors of the two newest references and of their extrapolation: just uncovered, and everywhere else."""
    pictures = {"newest": now.errors[0], "the one before": now.errors[1], "extrapolated": now.extrapolated}
    return {name: (float(e[now.hidden].mean()), float(e[~now.hidden].mean())) for name, e in pictures.items()}


# -- motion -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Motion:
    """Flow of a frame, its prediction and their difference, (2, height, width); bits of both ways to send it."""

    flow: Float[np.ndarray, "2 height width"]
    predicted: Float[np.ndarray, "2 height width"]
    difference: Float[np.ndarray, "2 height width"]
    bits_raw: float
    bits_predicted: float


@functools.cache
def motion(number: int = 5, noise: float = 0.0) -> Motion:
    """Of a frame of `film`. noise: of the motion search, in pixels; every frame's flow has its own."""
    from labkit.papers.mlvc.experiment.closed_loop import predicted_motion, send_motion

    clips, _ = film()
    generator = torch.Generator().manual_seed(0)
    flows = clips.flows + noise * torch.randn(clips.flows.shape, generator=generator)
    sent: dict[bool, list[Tensor]] = {True: [], False: []}
    shown = None
    for use in (True, False):
        last = torch.zeros_like(flows[0])
        for t in range(1, len(flows)):
            predicted = predicted_motion(last) if use else torch.zeros_like(last)
            symbols, last = send_motion(flows[t], predicted)
            sent[use].append(symbols)
            if use and t == number:
                shown = flows[t], predicted, flows[t] - predicted
    assert shown is not None
    bits = {use: entropy(torch.cat(symbols)) * symbols[0].numel() for use, symbols in sent.items()}
    arrays = [x[0].numpy() for x in shown]
    return Motion(arrays[0], arrays[1], arrays[2], bits[False], bits[True])


def entropy(symbols: Tensor) -> float:
    """Bits a symbol, from how often each value occurs."""
    _, counts = symbols.flatten().unique(return_counts=True)
    p = counts.double() / counts.sum()
    return float(-(p * p.log2()).sum())


# -- rate and distortion of a run -------------------------------------------------------------------------------------


def curves(result: Mapping[str, Any], family: str) -> dict[str, tuple[list[float], list[float]]]:
    """Bits a pixel and PSNR of every arm of a family; empty where the run did not code it."""
    arms = result.get("scenes", {}).get(family, {}).get("arms", {})
    return {arm: (row["bpp"]["total"], row["psnr"]) for arm, row in arms.items()}


def savings(result: Mapping[str, Any], family: str, anchor: str) -> dict[str, list[float]]:
    """What every arm saves against `anchor`, scene by scene, in percent of the bits at equal PSNR."""
    arms = result.get("scenes", {}).get(family, {}).get("arms", {})
    if anchor not in arms:
        return {}
    theirs = arms[anchor]["each"]
    saved = {}
    for arm, row in arms.items():
        each = zip(theirs["total"], theirs["psnr"], row["each"]["total"], row["each"]["psnr"], strict=True)
        saved[arm] = [-bd_rate(*one) for one in each]
    return saved


def saving_rows(result: Mapping[str, Any], anchor: str = "warp") -> list[str]:
    """A table: each arm of each family against the plain warp, and in how many scenes it is ahead."""
    lines = []
    for family in result.get("scenes", {}):
        for arm, values in savings(result, family, anchor).items():
            if arm != anchor:
                ahead = sum(value > 0 for value in values)
                lines.append(
                    f"| {family} | `{arm}` | {percent(float(np.nanmean(values)))} | {ahead} of {len(values)} |"
                )
    return lines


def percent(value: float) -> str:
    """With its sign and one decimal; a zero has no sign."""
    text = f"{value:+.1f}"
    return f"{text if float(text) else '0.0'} %"


def records(label: str = "") -> Record | None:
    """The record of the lesson with that label."""
    return next((r for r in load_all("mlvc") if r.scale == "lesson" and r.label == label), None)


def recorded_rows(label: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A table from a record: what one arm saves against another, mean and interval over seeds, for each family."""
    record = records(label)
    if record is None:
        return []
    lines = []
    for family in record.results[0].get("scenes", {}):
        for ours, anchor in pairs:
            means = [
                float(np.nanmean(savings(result, family, anchor).get(ours, [math.nan]))) for result in record.results
            ]
            if not any(map(math.isnan, means)):
                over = student(means)
                lines.append(
                    f"| {family} | `{ours}` | `{anchor}` | {percent(over.value)} "
                    f"[{percent(over.low)}, {percent(over.high)}] | {len(means)} |"
                )
    return lines


def footage_rows() -> list[str]:
    """A table from the record of real clips: several references against one, both with the choice by block."""
    record = records("footage")
    if record is None:
        return []
    lines = []
    for clip in record.results[0]["footage"]:
        values = []
        for result in record.results:
            arms = result["footage"][clip]
            pairs = (("multi", "single"), ("multi+flag", "single+flag"), ("multi+flag", "warp"), ("single", "warp"))
            values.append([-_bd(arms[anchor], arms[ours]) for ours, anchor in pairs])
        cells = " | ".join(percent(value) for value in np.nanmean(values, axis=0))
        lines.append(f"| {clip} | {cells} |")
    return lines


def _bd(anchor: Mapping[str, Any], ours: Mapping[str, Any]) -> float:
    return bd_rate(anchor["bpp"]["total"], anchor["psnr"], ours["bpp"]["total"], ours["psnr"])


def mean_curves(result: Mapping[str, Any], name: str) -> dict[str, tuple[list[float], list[float]]]:
    """Bits a pixel and PSNR of every codec, the mean over the videos of a set, point by point."""
    videos = list(result["coded"][name]["videos"].values())
    candidates = [name for name in (videos[0] if videos else {}) if name != "predictors"]
    codecs = [codec for codec in candidates if all(codec in video for video in videos)]
    return {
        codec: tuple(  # type: ignore[misc]
            [float(np.mean(column)) for column in zip(*([p[key] for p in v[codec]] for v in videos), strict=True)]
            for key in ("bpp", "psnr")
        )
        for codec in codecs
    }


# -- one clip, looked into --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LookInside:
    """The same clip coded by several arms at one quantiser step: predictions, residual, bits of every frame."""

    clips: Clips
    coded: dict[str, Coded]
    bits: dict[str, dict[str, list[float]]]


def look_inside(config: Any, run: Run, step: float = 16.0, family: str = "disc") -> LookInside:
    """A new clip of a family by the arms `raw-motion`, `warp`, and by the networks of a run that trained them.

    Of eight, the one on which the predictions of one and of four references differ most. Each frame's bits are priced
    with tables of the clip's own arm; what a stream of this clip alone would cost.
    """
    from labkit.papers.mlvc.experiment.combiners import new_combiner

    clips = scenes(family, 8, 10, seed=77_777)
    steps = torch.full((len(clips), 1, 1, 1), step)
    coded: dict[str, Coded] = {}
    for name in ("raw-motion", "warp", "single", "multi"):
        arm = ARMS[name]
        combine: Combiner = newest
        if arm.combiner == "net":
            part = run.part(f"scenes-{family}-{name}")
            if not (part.directory / "weights.safetensors").exists():
                continue
            net = new_combiner(config.seed, config.combiner_channels)
            part.read_weights(net)
            combine = net.eval()
        coded[name] = code(clips, steps, combine, arm.n_refs, arm.predict_motion, keep=True)
    one, four = (coded.get(name, coded["warp"]).prediction_error.mean(1) for name in ("single", "multi"))
    chosen = int((one - four).argmax())
    only = slice(chosen, chosen + 1)
    coded = {name: whole.part(only) for name, whole in coded.items()}
    return LookInside(clips.part(only), coded, {name: _frame_bits(each.symbols) for name, each in coded.items()})


def telling_frame(look: LookInside) -> int:
    """The frame of a clip whose predictions from one and from four references differ most."""
    one, four = (look.coded.get(name, look.coded["warp"]).prediction_error[0] for name in ("single", "multi"))
    return int((one - four).argmax()) + 1


def _frame_bits(symbols: Symbols) -> dict[str, list[float]]:
    tables = Tables.learned([symbols])
    bits: dict[str, list[float]] = {"motion": [], "residual": []}
    total = {"motion": 0.0, "residual": 0.0}
    for t in range(1, symbols.residual.shape[1] + 1):  # contexts look back, so a frame's price is a difference
        priced = tables.bits(Symbols(symbols.residual[:, :t], symbols.motion[:, :t], None))
        for name in bits:
            now = float(getattr(priced, name)[0])
            bits[name].append(now - total[name])
            total[name] = now
    return bits


# -- a file, damaged --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Damage:
    """A coded clip with one byte flipped: where, what the strict decoder says, what concealment shows.

    shown: number of the frame that stands at each position; equal to the position where it was decoded.
    """

    at: int
    says: str
    shown: list[int]
    psnr: list[float]


@dataclass(frozen=True, eq=False)
class BitstreamLab:
    """data: a whole file. layout: (start, end, what) of every stretch of it. damaged: by position."""

    data: bytes
    layout: list[tuple[int, int, str]]
    damaged: list[Damage]
    gop: int


@functools.cache
def bitstream_lab(positions: int = 24, frames: int = 8, gop: int = 4) -> BitstreamLab:
    """A clip of eight small frames coded by the codec that comes with labkit, and one flipped byte after another."""
    codec = Codec.load()
    clip = scenes(Family(layers=2, noise=1.0), 1, frames, 5, 64, 3).frames[:, 0] / 255
    sink = io.BytesIO()
    codec.write(sink, as_arrays(clip), codec.qualities[0], gop=gop, adaptive=False)
    data = sink.getvalue()
    whole = codec.decode(data)
    at = np.linspace(30, len(data) - 1, positions).astype(int)
    return BitstreamLab(data, _layout(data), [_damage(codec, data, int(one), whole) for one in at], gop)


def _layout(data: bytes) -> list[tuple[int, int, str]]:
    whole = [item for item in packets(data) if isinstance(item, Packet)]
    start = len(data) - sum(item.size for item in whole)
    layout = [(0, start, "header")]
    for item in whole:
        head = item.size - sum(map(len, item.streams))
        layout.append((start, start + head, f"{item.kind}{item.index} packet header"))
        at = start + head
        for stream, name in zip(item.streams, ("picture",) if item.kind == "I" else STREAMS, strict=False):
            layout.append((at, at + len(stream), f"{item.kind}{item.index} {name}"))
            at += len(stream)
        start += item.size
    return layout


STREAMS = ("motion", "scales", "residual")


def _damage(codec: Codec, data: bytes, at: int, whole: Sequence[np.ndarray]) -> Damage:
    bad = bytearray(data)
    bad[at] ^= 1
    try:
        codec.decode(bytes(bad))
        says = "decodes: the byte is of no consequence"
    except DamagedFile as error:
        says = str(error).split(". ")[0]
    except Exception as error:  # whatever it is, the reader shall see its name
        says = f"{type(error).__name__}: {error}"
    try:
        pictures = codec.decode(bytes(bad), conceal=True)
    except DamagedFile:
        return Damage(at, says, [], [])
    shown = [next((k for k in range(t, -1, -1) if np.array_equal(p, whole[k])), -1) for t, p in enumerate(pictures)]
    errors = [np.square(p.astype(float) - w).mean() for p, w in zip(pictures, whole, strict=True)]
    return Damage(at, says, shown, [100.0 if not e else 10 * math.log10(255**2 / e) for e in errors])


# -- the networks that come with labkit, along a group ----------------------------------------------------------------


@functools.cache
def drift(p_frames: int = 12, size: int = 128) -> dict[str, tuple[float, list[float]]]:
    """A generated clip that no network was trained on, as one group: bits a pixel, and the PSNR of each frame.

    Of every quality of the codec that comes with labkit; of x265 (veryfast) after each, at the best integer rate factor
    that takes no more bytes; and of the first decoded frame shown again and again.
    """
    (video,) = coded_set("scenes", p_frames + 1, 0, 1, size)
    codec, curves = Codec.load(), {}
    for quality in codec.qualities:
        sink = io.BytesIO()
        report = codec.write(sink, as_arrays(video.rgb), quality, gop=p_frames + 1, adaptive=False)
        shown = as_tensor(codec.decode(sink.getvalue()))
        name = f"quality {quality}"
        curves[name] = report.bits_per_pixel, rgb_psnr(video.rgb, shown).tolist()
        at = range(52)
        factor = bisect.bisect_left(at, True, key=lambda f: _x265(video, f).bits_per_pixel <= report.bits_per_pixel)
        coded = _x265(video, factor)
        curves[f"x265 below {name}"] = coded.bits_per_pixel, rgb_psnr(video.rgb, coded.frames).tolist()
        still = shown[:1].expand_as(shown)
        curves[f"first frame of {name}"] = (
            8 * report.frames[0].bytes / shown[:, 0].numel(), rgb_psnr(video.rgb, still).tolist(),
        )  # fmt: skip
    return curves


def _x265(video: Video, factor: int) -> anchors.Coded:
    return anchors.code(video, "x265-veryfast", factor, len(video))


def drift_rows() -> list[str]:
    """`drift` as rows of a table: coder, bits a pixel, PSNR of the I-frame and of P-frames 1, 4, 8 and 12."""
    at = (0, 1, 4, 8, 12)
    return [
        f"| {name} | {rate:.3f} | {' | '.join(f'{quality[t]:.1f}' for t in at)} |"
        for name, (rate, quality) in drift().items()
    ]


def speed_rows() -> list[str]:
    """From the recorded bench, a table: which networks, CPU seconds a frame of 352 x 288 to encode and to decode it."""
    record = next((r for r in load_all("mlvc") if r.scale == "bench" and r.device == "cpu"), None)
    if record is None:
        return []
    seconds: dict[str, dict[str, list[float]]] = {}
    rows = [row for result in record.results for row in result["rows"] if row["unit"] == "frames/CPU s"]
    for row, side in ((row, side) for side in ("ours", "peer") for row in rows):
        way, _, networks = row["workload"].split(", ")
        name = networks if side == "ours" else row["peer_name"]
        seconds.setdefault(name, {}).setdefault(way, []).append(1 / row[side])
    return [
        f"| {name} | {' | '.join(f'{np.median(ways[way]):.2g}' for way in ('encode', 'decode'))} |"
        for name, ways in seconds.items()
    ]


# -- protocol ---------------------------------------------------------------------------------------------------------

SETTINGS = {"gop-12": "group of 12", "gop-100": "group of 100", "crop": "cropped", "rescale": "rescaled"}


@functools.cache
def protocol_curves() -> dict[str, tuple[list[float], list[float]]]:
    """One generated clip by x265 under four protocols: rates and PSNR. Its size, 135 lines, is 1080 in small."""
    clip = scenes(Family(texture="fine", noise=3.0, velocity=0.4), 1, 24, 3, 135, 3).frames[:, 0] / 255
    effects = protocol_effects(from_rgb("clip", clip))
    return {name: ([p["bpp"] for p in points], [p["psnr"] for p in points]) for name, points in effects.items()}


# -- the law of averaging ---------------------------------------------------------------------------------------------


@functools.cache
def averaging(noise: float = 8.0) -> list[float]:
    """Gain in dB of k aligned references over one, k = 1..4, on a texture whose pixels tell nothing of one another."""
    generator = torch.Generator().manual_seed(0)
    texture = 255 * torch.rand(16, 1, 64, 64, generator=generator)
    aligned = texture + noise * torch.randn(16, 4, 64, 64, generator=generator)
    target = texture + noise * torch.randn(16, 1, 64, 64, generator=generator)
    lessons = Lessons(aligned, target, torch.full((16, 1, 1, 1), STEP))
    errors = [
        float((LinearCombiner.fitted(lessons, k)(aligned, lessons.step) - target).square().mean()) for k in range(1, 5)
    ]
    return [10 * math.log10(errors[0] / error) for error in errors]
