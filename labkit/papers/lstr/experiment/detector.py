"""A trained detector for anybody's video: frames in, action tubes out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError, RunError
from labkit.metrics.detection import Tube
from labkit.papers.lstr.experiment import train
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.evaluate import BETA, video_tubes
from labkit.papers.lstr.experiment.real import clips_of
from labkit.papers.lstr.method.heads import Labels
from labkit.papers.lstr.method.network import Lstr, Proposer, Settings
from labkit.papers.lstr.method.proposals import ProposalSettings
from labkit.vision import boxes
from labkit.workbench.run_files import read_object
from labkit.workbench.runs import Run

Pictures = Iterable[np.ndarray]
FILE = "model.safetensors"
BEST = ("cascade", "parallel", "short")


class Header(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """What a detector's tensors belong to. size: side of the frames that it sees; clips: over which it reasons."""

    format: Literal["labkit lstr detector 1"] = "labkit lstr detector 1"
    settings: Settings
    proposals: ProposalSettings
    classes: tuple[str, ...] = Field(min_length=1, max_length=1000)
    labels: Labels
    frames: int = Field(ge=1, le=64)
    stride: int = Field(ge=1, le=64)
    clips: int = Field(ge=2, le=64)
    size: int = Field(ge=32, le=1024)
    most: int = Field(ge=1, le=1000)


class Detector(nn.Module):
    """`Detector.load("RUN")(frames)`: the action tubes of a video.

    A video is cut into clips as in training. The graph reaches over the clips of a window; a long video is a row of
    windows, each of which begins with the last half of the one before, so that no clip but the first ones lacks a past.
    """

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header
        self.proposer = Proposer(header.settings.backbone, header.frames, header.proposals)
        self.network = Lstr(header.settings, len(header.classes), header.frames, header.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ..."""
        return self.header.classes

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "Detector":
        """From a run's folder (its best arm), a folder that `labkit export` wrote, or its model.safetensors.

        Raises:
            InputError: there is none, it is damaged, or of another kind.
        """
        return load(path, device)

    def forward(self, video: Pictures, name: str = "video", least: float = 0.1, most: int = 10) -> list[Tube]:
        """The tubes of a video, best first, boxes in its own pixels.

        Args:
            video: RGB frames, uint8 (height, width, 3), all of one size; read one by one, so a generator will do.
            least: tubes with a lower score are left out.
            most: tubes a class.

        Raises:
            InputError: no frames, or frames of another kind.
        """
        parts, shape, count = self._scored(video)
        tubes = self._tubes(parts, name, most, count)
        scale = np.array([shape[1], shape[0]] * 2) / self.header.size
        kept = [Tube(t.video, t.label, t.start, t.boxes * scale, t.score) for t in tubes if t.score >= least]
        return sorted(kept, key=lambda tube: -tube.score)

    @torch.no_grad()
    def _scored(self, video: Pictures) -> tuple[list[tuple[Tensor, Tensor, Tensor]], tuple[int, int], int]:
        """Per clip (probabilities, tubelets, valid); the frames' size; their number."""
        window: list[Tensor] = []
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        fresh, shape, count = 0, (0, 0), 0
        for clip, shape, count in self._clips(video):  # noqa: B007 - the last ones are needed
            window, fresh = [*window, clip][-self.header.clips :], fresh + 1
            if len(window) == self.header.clips and (not parts or fresh == (self.header.clips + 1) // 2):
                parts, fresh = parts + self._window(window)[-fresh:], 0
        if not count:
            raise InputError("the video has no frames.")
        if fresh:
            parts += self._window(window)[-fresh:]
        return parts, shape, count

    def _clips(self, video: Pictures) -> Iterator[tuple[Tensor, tuple[int, int], int]]:
        """Clips of T frames, every stride-th; the last one repeats the last frame where the video ends too early."""
        span, count = self.header.frames * self.header.stride, 0
        held: list[np.ndarray] = []
        shape: tuple[int, int] | None = None
        for frame in video:
            picture = np.asarray(frame)
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
                raise InputError(
                    f"frames must be RGB, uint8 (height, width, 3); got {picture.dtype} {picture.shape}. Grey frames: "
                    "np.stack([frame] * 3, -1)"
                )
            shape = shape or picture.shape[:2]
            if picture.shape[:2] != shape:
                raise InputError(f"frames must be of one size; got {shape} and {picture.shape[:2]}.")
            held, count = [*held, picture], count + 1
            if len(held) == span:
                yield self._clip(held), shape, count
                held = []
        if held and shape is not None:
            yield self._clip(held + [held[-1]] * (span - len(held))), shape, count

    def _clip(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return clips_of(np.stack(pictures[:: self.header.stride]), 1, self.header.size)[0]

    def _window(self, window: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Probabilities, refined tubelets and validity of each clip of a window."""
        device, size = next(self.parameters()).device, self.header.size
        clips = torch.stack(list(window)).to(device)
        proposed = self.proposer.proposals.propose(self.proposer(clips), self.header.most, (size, size))
        trust = proposed.scores.clamp(min=1e-6).log()
        output = self.network(clips[None], proposed.tubelets[None], proposed.valid[None], trust[None])
        refined = boxes.clip(boxes.decode(output.offsets[0], proposed.tubelets), size, size)
        return list(zip(self.network.head.probabilities(output.logits[0]), refined, proposed.valid, strict=True))

    def _tubes(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]], name: str, most: int, count: int) -> list[Tube]:
        """Linked over the whole video; frames between those that a clip saw are interpolated, those after it cut."""
        probabilities, tubelets, valid = (torch.stack(column) for column in zip(*parts, strict=True))
        if self.header.stride > 1:
            tubelets = _between(tubelets, self.header.stride)
        span = self.header.frames * self.header.stride
        starts = np.arange(len(parts), dtype=np.int64) * span
        tubes = video_tubes(probabilities, tubelets, valid, name, beta=BETA, starts=starts, most=most)
        cut = [(tube, tube.boxes[: count - tube.start]) for tube in tubes]
        return [Tube(tube.video, tube.label, tube.start, kept, tube.score) for tube, kept in cut if len(kept)]


def _between(tubelets: Tensor, stride: int) -> Tensor:
    """Boxes of all frames from those of every stride-th, linear between them; the last one stays."""
    frames = tubelets.shape[2]
    at = torch.arange(frames * stride, device=tubelets.device) / stride
    low = at.long()
    high = (low + 1).clamp(max=frames - 1)
    part = (at - low)[:, None]
    return tubelets[:, :, low] * (1 - part) + tubelets[:, :, high] * part


# -- from files -------------------------------------------------------------------------------------------------------


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The arms of a run that can be used, the best first by what the records say.  [ours]"""
    return (*(arm for arm in BEST if arm in config.arms), *(arm for arm in config.arms if arm not in BEST))


def trained(config: Config, run: Run, arm: str) -> Detector:
    """The detector of an arm of a run."""
    if run.result is None:
        raise RunError(f"{run.directory} is not finished. Go on with --resume, then load it.")
    detector = Detector(
        Header(
            settings=config.settings(arm),
            proposals=train.proposal_settings(config),
            classes=tuple(run.result["classes"]),
            labels=run.result["labels"],
            frames=config.frames,
            stride=config.frame_stride,
            clips=config.clips,
            size=config.size,
            most=config.proposals,
        )
    )
    run.part("proposals").read_weights(detector.proposer)
    run.part(f"arm-{arm}").read_weights(detector.network)
    return detector.eval()


def load(path: str | Path, device: str | torch.device = "cpu") -> Detector:
    """The detector of a file, of a folder that `labkit export` wrote, or of a run's own folder (its best arm).

    Raises:
        InputError: no such file or run, a damaged one, or one of another kind.
    """
    folder = Path(path)
    if folder.is_dir() and not (folder / FILE).exists() and (identity := read_object(folder / "config.json")):
        config = _config_of(identity, folder)
        run = Run.open(folder, config, writes=False)
        return trained(config, run, arms(config, run)[0]).to(device)
    file = folder / FILE if folder.is_dir() else folder
    tensors, header = tensor_files.read(file, Header)
    with torch.device("meta"):  # takes no memory, whatever sizes the header names
        detector = Detector(header)
    wanted = detector.state_dict()
    wrong = [
        name for name in sorted(wanted.keys() | tensors.keys()) if not _same_kind(wanted.get(name), tensors.get(name))
    ]
    if wrong:
        raise tensor_files.TensorFileError(f"'{file}' does not hold this detector's networks ({', '.join(wrong[:3])}).")
    detector.load_state_dict(tensors, assign=True)
    return detector.to(device).eval()


def _same_kind(wanted: Tensor | None, given: Tensor | None) -> bool:
    return wanted is not None and given is not None and (wanted.shape, wanted.dtype) == (given.shape, given.dtype)


def _config_of(identity: dict[str, object], folder: Path) -> Config:
    from labkit.papers.lstr import PAPER

    config = PAPER.config_of(identity)
    if config is None:
        raise InputError(f"{folder} is a run of another paper, or of another version of this one.")
    assert isinstance(config, Config)
    return config
