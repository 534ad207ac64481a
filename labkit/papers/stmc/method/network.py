"""The whole network: SMC on every frame, TMC over time, and a sequence head for the joint path and for every cue."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from labkit.papers.stmc.method.architecture import Architecture
from labkit.papers.stmc.method.spatial import SpatialMultiCue
from labkit.papers.stmc.method.temporal import TemporalMultiCue

BLANK = 0  # label 0 of every head


@dataclass
class Output:
    """What a network says about a batch of sentences.

    joint: log-probabilities of the joint head; cues: those of each cue's head (none on path "inter").
    lengths: steps T' of each sentence. points: J of every frame of the batch, in one row; None without a pose branch.
    """

    joint: Float[Tensor, "batch steps labels"]
    cues: list[Float[Tensor, "batch steps labels"]]
    lengths: Int64[Tensor, " batch"]
    points: Float[Tensor, "frames points 2"] | None


class Backbone(nn.Module):
    """SMC and TMC, which both training stages share."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.spatial, self.temporal = SpatialMultiCue(architecture), TemporalMultiCue(architecture)

    def forward(
        self,
        frames: Float[Tensor, "frames 3 height width"],
        lengths: Int64[Tensor, " batch"],
        at: Float[Tensor, "frames points 2"] | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor | None]:
        """Frames of all sentences in one row, `lengths` of them each; paths of the cues, joint path, T', J."""
        spatial = self.spatial(frames, at)
        each = lengths.tolist()
        cues = [pad_sequence(f.split(each), batch_first=True).transpose(1, 2) for f in spatial.cues]
        return *self.temporal(cues, lengths), spatial.points


class Heads(nn.Module):
    """A head for the joint path, and one for each cue: `joint`, `cues`.

    head: makes the head of a path of so many channels.
    """

    def __init__(self, architecture: Architecture, head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        a, count = architecture, len(architecture.cues) if architecture.path != "inter" else 0
        self.joint = head(a.inter_size)
        self.cues = nn.ModuleList([head(a.intra_size) for _ in range(count)])

    def forward(
        self, cues: list[Tensor], joint: Tensor, lengths: Tensor
    ) -> tuple[Float[Tensor, "batch steps labels"], list[Float[Tensor, "batch steps labels"]]]:
        """Log-probabilities, in float32 at least."""
        return self._of(self.joint, joint, lengths), [
            self._of(head, f, lengths) for head, f in zip(self.cues, cues, strict=True)
        ]

    def _of(self, head: nn.Module, path: Float[Tensor, "batch channels steps"], lengths: Tensor) -> Tensor:
        scores = head(path.transpose(1, 2), lengths)
        return (scores.float() if scores.element_size() < 4 else scores).log_softmax(-1)


def sequence_heads(architecture: Architecture, labels: int) -> Heads:
    """Stage 2: BLSTM and a linear layer, trained by CTC.  [author net]"""
    a = architecture
    return Heads(a, lambda size: RecurrentHead(size, labels, a.layers, a.recurrent_dropout))


def frame_heads(architecture: Architecture, labels: int) -> Heads:
    """Stage 1: a linear layer on every step, trained by cross-entropy on pseudo labels.  [recalled]"""
    return Heads(architecture, lambda size: StepHead(size, labels))


class RecurrentHead(nn.Module):
    """A BLSTM of half the input's size a direction, then one score a label.  [author net]"""

    def __init__(self, size: int, labels: int, layers: int, dropout: float) -> None:
        super().__init__()
        hidden = max(1, size // 2)
        self.rnn = nn.LSTM(
            size, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        self.linear = nn.Linear(2 * hidden, labels)

    def forward(self, path: Float[Tensor, "batch steps size"], lengths: Tensor) -> Float[Tensor, "batch steps labels"]:
        """Sentences are packed: the backward direction starts at each one's own end."""
        packed = pack_padded_sequence(path, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=path.shape[1])
        return self.linear(states)


class StepHead(nn.Linear):
    """A linear layer that takes, and does not need, the lengths."""

    def forward(self, path: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(path)


class STMC(nn.Module):
    """Backbone and heads.  `STMC(PAPER, labels)` is the paper's network; `labels` counts the blank.

    first_stage: the network of stage 1 in place of stage 2's; `next_stage` goes on from it.
    """

    def __init__(self, architecture: Architecture, labels: int, first_stage: bool = False) -> None:
        super().__init__()
        self.architecture, self.labels = architecture, labels
        self.backbone = Backbone(architecture)
        self.heads = (frame_heads if first_stage else sequence_heads)(architecture, labels)

    def forward(
        self,
        frames: Float[Tensor, "frames 3 height width"],
        lengths: Int64[Tensor, " batch"],
        at: Float[Tensor, "frames points 2"] | None = None,
    ) -> Output:
        """Scores of the joint head and of each cue's head at every step of every sentence.

        Args:
            frames: RGB, of all sentences in one row, `lengths` of them each.
            at: see `SpatialMultiCue`.

        Raises:
            InputError: frames of another size, or a sentence shorter than one step sees.
        """
        cues, joint, steps, points = self.backbone(frames, lengths, at)
        of_joint, of_cues = self.heads(cues, joint, steps)
        return Output(of_joint, of_cues, steps, points)

    @torch.no_grad()
    def posteriors(self, frames: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "steps labels"]:
        """Log-probabilities of one sentence by the joint head, the only one that is used after training."""
        return self(frames, torch.tensor([len(frames)])).joint[0]


def next_stage(model: STMC) -> STMC:
    """The network of stage 2: the backbone of stage 1's, with new heads."""
    new = STMC(model.architecture, model.labels)
    new.backbone = model.backbone
    return new
