"""Videos to bytes and back: `Codec.load().encode(frames, quality=2)`, and `.decode(data)` anywhere else.

Frames are uint8 RGB (height, width, 3), of any size: they are padded at the border to multiples of 64 and cut again,
never rescaled. One frame is in memory at a time, besides the four references.
"""

import functools
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.mlvc.method.autoencoders import STRIDE
from labkit.papers.mlvc.method.container import (
    LARGEST_SIDE,
    PACKET_BYTES,
    DamagedFile,
    Data,
    Gap,
    Header,
    Packet,
    WrongModel,
    packets,
    read_header,
)
from labkit.papers.mlvc.method.frame_coder import FrameCoder
from labkit.papers.mlvc.method.intra import decode_intra, encode_intra
from labkit.papers.mlvc.method.network import INTRA_QP, LAMBDAS, Network, Settings
from labkit.papers.mlvc.method.range_coder import StreamError
from labkit.papers.mlvc.method.references import References
from labkit.papers.mlvc.method.tables import Tables

DEFAULT_MODEL = Path(__file__).with_name("default.safetensors")
"""Small networks that this repository trained; README and the room's notebook say how."""
LARGEST_FRAME = 4096 * 2304
"""Pixels of a frame that `decode` takes unless told otherwise: what a hostile file can make it work on."""
MOST_LOST = 10_000
"""Frames in a row that concealment fills."""


class ModelHeader(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """Of a model file: the settings of the network of each quality it holds."""

    format: Literal["labkit mlvc codec 1"] = "labkit mlvc codec 1"
    settings: dict[Literal["1", "2", "3", "4"], Settings] = Field(min_length=1)


@dataclass(frozen=True)
class Shown:
    """A frame on the screen. problem: why it repeats the one before, empty where it was decoded; packet: it came in."""

    index: int
    picture: np.ndarray
    problem: str
    packet: Packet | None


@dataclass(frozen=True)
class FrameReport:
    """Bytes of a frame in the file; of its streams m̂, ẑ, ŷ (an I-frame has one); what the tables promised, in bits."""

    kind: Literal["I", "P"]
    bytes: int
    streams: tuple[int, int, int]
    estimated_bits: tuple[float, float, float]
    mse: float
    """Mean squared error of what the receiver shows, on the scale 0..255."""


@dataclass
class Report:
    """What encoding wrote."""

    width: int = 0
    height: int = 0
    bytes: int = 0
    frames: list[FrameReport] = field(default_factory=list)

    @property
    def bits_per_pixel(self) -> float:
        """Of the file, everything counted."""
        return 8 * self.bytes / max(1, len(self.frames) * self.width * self.height)

    @property
    def psnr(self) -> float:
        """Mean over the frames of 10 log10(255^2 / mse) in RGB; 100 dB where nothing differs."""
        each = [10 * math.log10(255**2 / max(frame.mse, 255**2 * 1e-10)) for frame in self.frames]
        return sum(each) / max(1, len(each))


class Codec:
    """Networks for up to four qualities, and the way from frames to bytes and back.

        codec = Codec.load()
        data = codec.encode(frames, quality=2)      # bytes
        frames = codec.decode(data)                 # list of uint8 (height, width, 3)

    Decoding gives the same pixels on every machine, with any number of threads (`fixed_point` says why); a checksum
    over each frame's pixels proves it.

    Args:
        networks: by quality, 1 (smallest file) to 4 (best picture).
        tables: of a model file; missing ones are made from the networks.
    """

    def __init__(self, networks: Mapping[int, Network], tables: Mapping[int, Tables] | None = None) -> None:
        if not networks or not set(networks) <= {1, 2, 3, 4}:
            raise InputError(f"a codec has a network for one to four of the qualities 1..4; got {sorted(networks)}.")
        self.coders = {q: FrameCoder(networks[q].eval(), (tables or {}).get(q)) for q in sorted(networks)}

    @property
    def qualities(self) -> tuple[int, ...]:
        return tuple(self.coders)

    # -- model files ------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> "Codec":
        """The codec of a model file; None: the small one that comes with labkit.

        Raises:
            TensorFileError: no such file, a damaged one, or one of another kind.
        """
        file = DEFAULT_MODEL if path is None else Path(path)
        tensors, header = tensor_files.read(file, ModelHeader)
        networks, tables = {}, {}
        for quality, settings in header.settings.items():
            network = _empty_network(settings)
            own = {name.removeprefix(f"{quality}."): t for name, t in tensors.items() if name.startswith(f"{quality}.")}
            weights = {name: t.float() for name, t in own.items() if not name.startswith("tables.")}
            wanted = network.state_dict()
            wrong = [n for n in wanted.keys() | weights.keys()
                     if n not in wanted or n not in weights or wanted[n].shape != weights[n].shape]  # fmt: skip
            if wrong:
                raise tensor_files.TensorFileError(
                    f"'{file}' does not hold the networks that it announces ({wrong[0]})."
                )
            network.load_state_dict(weights, assign=True)
            networks[int(quality)] = network.to(device)
            rows = {n.removeprefix("tables."): t for n, t in own.items() if n.startswith("tables.")}
            try:
                tables[int(quality)] = Tables.from_tensors(rows)
            except InputError as error:
                raise tensor_files.TensorFileError(f"'{file}' cannot be used: {error}") from None
        return cls(networks, tables)

    def save(self, path: str | Path) -> int:
        """Write a model file; returns its size in bytes. Weights that fit float16 without loss take half the room."""
        tensors: dict[str, Tensor] = {}
        for quality, coder in self.coders.items():
            for name, value in coder.network.state_dict().items():
                short = value.half()
                tensors[f"{quality}.{name}"] = short if torch.equal(short.to(value.dtype), value) else value
            tensors |= {f"{quality}.tables.{name}": t for name, t in coder.tables.tensors().items()}
        settings = {str(quality): coder.network.settings for quality, coder in self.coders.items()}
        return tensor_files.write(Path(path), tensors, ModelHeader.model_validate({"settings": settings}))

    # -- sending ----------------------------------------------------------------------------------------------------

    def encode(
        self,
        frames: Iterable[np.ndarray],
        quality: int = 2,
        *,
        gop: int = 12,
        rate: float | int | Fraction = 25,
        adaptive: bool = True,
    ) -> bytes:
        """The coded video as bytes. Arguments and errors: `write`."""
        sink = io.BytesIO()
        self.write(sink, frames, quality, gop=gop, rate=rate, adaptive=adaptive)
        return sink.getvalue()

    def write(
        self,
        sink: io.BufferedIOBase,
        frames: Iterable[np.ndarray],
        quality: int = 2,
        *,
        gop: int = 12,
        rate: float | int | Fraction = 25,
        adaptive: bool = True,
    ) -> Report:
        """Code frame after frame into a file that can seek; memory does not grow with their number.

        Args:
            frames: uint8 RGB (height, width, 3), all of one size.
            quality: 1 (smallest file) to 4 (best picture), as far as this codec has networks for it.
            gop: frames from one I-frame to the next, at most; damage ends there.
            rate: frames a second; kept in the file.
            adaptive: a P-frame becomes an I-frame where J = D + lambda R, by which the networks were trained, is
                smaller so: at a cut, or where errors have added up. Off: an I-frame every `gop` frames and no other, as
                comparisons of codecs ask for.  [ours]

        Raises:
            InputError: a quality that is not there, frames of another kind or of changing size, a bad gop or rate.
        """
        if not sink.seekable():
            raise InputError("the number of frames is written at the end into the header: give a file that can seek.")
        coder, speed, start = self._coder(quality), _fraction(rate), sink.tell()
        header = Header(quality, gop, 0, 0, 0, speed, coder.model)
        sink.write(header.pack())
        report = Report(bytes=len(header.pack()))
        lam, qp = LAMBDAS[quality - 1], INTRA_QP[quality - 1]
        references: References | None = None
        since, intra_cost = 0, 0.0  # frames of this group; D + lambda R of the last I-frame that was tried
        for index, frame in enumerate(frames):
            _check_frame(frame, index, report)
            report.height, report.width = frame.shape[:2]
            if references is None or since >= gop:
                sent = _send_intra(coder, frame, index, qp)
                intra_cost = sent.cost(lam)
            else:
                sent = _send(coder, frame, index, references)
                if adaptive and sent.cost(lam) > intra_cost:
                    other = _send_intra(coder, frame, index, qp)
                    intra_cost = other.cost(lam)
                    sent = min(sent, other, key=lambda one: one.cost(lam))
            since = 1 if sent.report.kind == "I" else since + 1
            references = sent.references
            report.frames.append(sent.report)
            report.bytes += sink.write(sent.packet.pack())
        sink.seek(start)
        sink.write(Header(quality, gop, report.width, report.height, len(report.frames), speed, coder.model).pack())
        sink.seek(start + report.bytes)
        return report

    # -- receiving --------------------------------------------------------------------------------------------------

    def decode(self, data: Data, *, conceal: bool = False, largest_frame: int = LARGEST_FRAME) -> list[np.ndarray]:
        """All frames, uint8 (height, width, 3). Arguments and errors: `play`, which holds one frame at a time."""
        return [shown.picture for shown in self.play(data, conceal=conceal, largest_frame=largest_frame)]

    def play(self, data: Data, *, conceal: bool = False, largest_frame: int = LARGEST_FRAME) -> Iterator[Shown]:
        """Frame after frame, as they are decoded.

        Args:
            conceal: where bytes are damaged or missing, repeat the last whole frame until the next I-frame (grey
                before the first) and go on; always as many frames as the header announces.
            largest_frame: pixels of a frame that are accepted.

        Raises:
            DamagedFile: a header that cannot be read; without `conceal` also the first packet that is damaged, missing
                or out of order, or decodes to other pixels than the sender's.
            WrongModel: other networks wrote the file.
            InputError: frames larger than `largest_frame`.
        """
        header = read_header(data)
        coder = self._checked(header, largest_frame)
        return _conceal(_received(data, header, coder), header) if conceal else _strict(data, header, coder)

    def _coder(self, quality: int) -> FrameCoder:
        if quality not in self.coders:
            have = ", ".join(map(str, self.qualities))
            raise InputError(f"this codec has networks for quality {have}; got {quality}.")
        return self.coders[quality]

    def _checked(self, header: Header, largest_frame: int) -> FrameCoder:
        coder = self.coders.get(header.quality)
        if coder is None or coder.model != header.model:
            have = f"model {coder.model.hex()[:8]}" if coder else "no network for this quality"
            raise WrongModel(
                f"the file was written at quality {header.quality} by model {header.model.hex()[:8]}; at hand is "
                f"{have}. Load the model file that it was encoded with."
            )
        if header.width * header.height > largest_frame:
            raise InputError(
                f"frames of {header.width} x {header.height} are larger than the {largest_frame:,} pixels that are "
                "accepted. If you trust the file: largest_frame=..."
            )
        return coder


def _empty_network(settings: Settings) -> Network:
    """A network without memory: a header that announces a large one costs nothing before its weights are there."""
    with torch.device("meta"):
        network = Network(settings)
    for module in network.modules():
        module.training = False  # not `eval()`: medians stay as they come from the file
    return network


def _fraction(rate: float | int | Fraction) -> tuple[int, int]:
    try:
        fraction = Fraction(rate).limit_denominator(1_000_000)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"rate, the frames a second, must be a number above 0; got {rate!r}.") from None
    if not 0 < fraction < 2**32:
        raise InputError(f"rate, the frames a second, must be a number above 0; got {rate!r}.")
    return fraction.numerator, fraction.denominator


def _check_frame(frame: object, index: int, report: Report) -> None:
    """The first thing that is wrong with a frame, as an InputError that says how to mend it."""
    wanted = "frames must be uint8 RGB, (height, width, 3)"
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"{wanted}; frame {index} is {got}.{_advice(frame)}")
    if 0 in frame.shape or max(frame.shape[:2]) > LARGEST_SIDE:
        raise InputError(f"{wanted}, with sides from 1 to {LARGEST_SIDE}; frame {index} is {frame.shape}.")
    if report.frames and frame.shape[:2] != (report.height, report.width):
        raise InputError(
            f"all frames of a video have one size: frame {index} is {frame.shape[1]} x {frame.shape[0]}, the ones "
            f"before {report.width} x {report.height}."
        )


def _advice(frame: object) -> str:
    if isinstance(frame, Tensor):
        return " From a tensor in [0, 1]: (x.permute(1, 2, 0) * 255).round().byte().numpy()"
    if not isinstance(frame, np.ndarray):
        return ""
    if frame.ndim == 3 and frame.shape[2] == 4:
        return " Drop the alpha channel: frame[..., :3]"
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        return " Make grey RGB: np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return " Channels last: frame.transpose(1, 2, 0)"
    if frame.ndim == 3 and frame.shape[2] == 3:
        return " Convert values in [0, 1]: (frame * 255).round().astype(np.uint8)"
    return ""


def _padded(frame: np.ndarray) -> np.ndarray:
    """Continued at the lower and right border to sides that are multiples of 64."""
    below, right = (-side % STRIDE for side in frame.shape[:2])
    return np.pad(frame, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else frame


def _crc(padded: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(padded).data)


@dataclass(frozen=True)
class _Sent:
    """A frame on its way: its packet, the references after it, and what is reported of it."""

    packet: Packet
    references: References
    report: FrameReport
    pixels: int

    def cost(self, lam: int) -> float:
        """J = D + lambda R, D of the pixels that are shown, R everything that is written."""
        return self.report.mse + lam * 8 * self.report.bytes / self.pixels


def _send_intra(coder: FrameCoder, frame: np.ndarray, index: int, qp: int) -> _Sent:
    padded = _padded(frame)
    stream = encode_intra(padded, qp)
    shown = decode_intra(stream, *padded.shape[:2])
    packet = Packet("I", index, (stream, b"", b""), _crc(shown))
    return _reported(packet, coder.start(shown), frame, shown, (8.0 * len(stream), 0.0, 0.0))


def _send(coder: FrameCoder, frame: np.ndarray, index: int, references: References) -> _Sent:
    sent = coder.send(_padded(frame), references)
    shown = coder.picture(sent.references)
    return _reported(Packet("P", index, sent.streams, _crc(shown)), sent.references, frame, shown, sent.bits)


def _reported(
    packet: Packet, references: References, frame: np.ndarray, shown: np.ndarray, bits: tuple[float, float, float]
) -> _Sent:
    height, width = frame.shape[:2]
    error = np.square(shown[:height, :width].astype(np.int32) - frame).mean()
    first, second, third = map(len, packet.streams)
    report = FrameReport(packet.kind, packet.size, (first, second, third), bits, float(error))
    return _Sent(packet, references, report, height * width)


@dataclass(frozen=True)
class _Received:
    """One packet's outcome: a picture, or why there is none."""

    index: int | None
    picture: np.ndarray | None
    problem: str
    packet: Packet | None


def _received(data: Data, header: Header, coder: FrameCoder) -> Iterator[_Received]:
    """What each packet gives; after a problem nothing until the next I-frame."""
    references: References | None = None
    expected = 0
    padded = header.height + -header.height % STRIDE, header.width + -header.width % STRIDE
    for item in packets(data):
        if isinstance(item, Gap):
            references = None
            yield _Received(None, None, f"bytes {item.start} to {item.end} are damaged", None)
            continue
        if item.index < expected or item.index >= header.frames:
            references = None
            yield _Received(None, None, f"a packet claims to be frame {item.index}, out of order", None)
            continue
        if item.index > expected and item.kind == "P":
            references = None
        problem, picture = "", None
        try:
            references, picture = _decoded(item, coder, references, padded)
        except StreamError as error:
            references, problem = None, str(error)
        cut = None if picture is None else picture[: header.height, : header.width]
        yield _Received(item.index, cut, problem, item)
        expected = item.index + 1


def _decoded(
    packet: Packet, coder: FrameCoder, references: References | None, padded: tuple[int, int]
) -> tuple[References, np.ndarray]:
    if packet.kind == "I":
        picture = decode_intra(packet.streams[0], *padded)
        references = coder.start(picture)
    elif references is None:
        raise StreamError("its references are lost")
    else:
        references = coder.receive(packet.streams, references)
        picture = coder.picture(references)
    if _crc(picture) != packet.pixels_crc:
        raise StreamError("it decodes to other pixels than the sender saw")
    return references, picture


def _strict(data: Data, header: Header, coder: FrameCoder) -> Iterator[Shown]:
    expected = 0
    for got in _received(data, header, coder):
        if got.picture is None or got.index != expected:
            problem = got.problem or f"frame {expected} is missing"
            raise DamagedFile(
                f"the file is damaged at frame {expected} of {header.frames}: {problem}. The frames before are good; "
                "conceal=True (--conceal) shows what can be shown of the rest."
            )
        yield Shown(expected, got.picture, "", got.packet)
        expected += 1
    if expected < header.frames:
        raise DamagedFile(
            f"the file breaks off after {expected} of {header.frames} frames. conceal=True (--conceal) repeats the "
            "last one."
        )


def _conceal(received: Iterator[_Received], header: Header) -> Iterator[Shown]:
    last, expected, problem = np.full((header.height, header.width, 3), 128, np.uint8), 0, ""

    def frozen(until: int) -> Iterator[Shown]:
        if until - expected > MOST_LOST:
            raise DamagedFile(
                f"{until - expected:,} frames in a row are lost; no more than {MOST_LOST:,} are concealed."
            )
        for index in range(expected, until):
            yield Shown(index, last, problem or "its packet is lost", None)

    for got in received:
        problem = got.problem or problem
        if got.index is None:
            continue
        yield from frozen(got.index)
        expected = got.index + 1
        if got.picture is not None:
            last, problem = got.picture, ""
        yield Shown(got.index, last, got.problem, got.packet)
    yield from frozen(header.frames)


def overhead(report: Report) -> int:
    """Bytes of headers and checksums in a file."""
    return report.bytes - sum(entry.bytes for entry in report.frames) + PACKET_BYTES * len(report.frames)


@functools.cache
def default_codec() -> Codec:
    """`Codec.load()`, once."""
    return Codec.load()
