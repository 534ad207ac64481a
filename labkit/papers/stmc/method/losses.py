"""What is minimised: CTC of the joint head, of every cue's head, and the key points' error.  [form: recalled]

L = L_CTC(joint) + alpha sum_n L_CTC(cue n) + L_R,   alpha = 0.6
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from labkit.papers.stmc.method.network import BLANK, Output

Beta = Literal["inside", "outside"]


def pose_loss(
    points: Float[Tensor, "frames points 2"],
    targets: Float[Tensor, "frames points 2"],
    beta: float = 30.0,
    reading: Beta = "inside",
) -> Float[Tensor, ""]:
    """L_R = 1 / (2 T K) sum smoothL1(beta (J - J')), or beta smoothL1(J - J') for the reading "outside".

    smoothL1(x) = x^2 / 2 for |x| < 1, else |x| - 1/2. Which of the two the paper means is not established; for small
    errors they differ by the factor beta. Targets that are not finite (a point nobody saw) do not count.
    """
    known = torch.isfinite(targets)
    error = torch.where(known, points - torch.where(known, targets, 0.0), 0.0)
    zero = torch.zeros_like(error)
    if reading == "inside":
        total = F.smooth_l1_loss(beta * error, zero, reduction="sum")
    else:
        total = beta * F.smooth_l1_loss(error, zero, reduction="sum")
    return total / known.sum().clamp(min=1)


def ctc(
    log_probs: Float[Tensor, "batch steps labels"],
    lengths: Int64[Tensor, " batch"],
    glosses: list[Int64[Tensor, "_"]],
) -> Float[Tensor, ""]:
    """-ln p(l | X) / n of each sentence of n glosses, mean over the batch; 0 where no path is long enough.

    Division by n as torch.nn.CTCLoss does [inferred]. Targets on the CPU in int32 let cuDNN's implementation be used.
    """
    counts = torch.tensor([len(one) for one in glosses], dtype=torch.int32)
    targets = torch.cat(glosses).to("cpu", torch.int32)
    return F.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths.to("cpu", torch.int32), counts, BLANK, zero_infinity=True
    )


def joint_loss(output: Output, glosses: list[Int64[Tensor, "_"]], alpha: float = 0.6) -> Float[Tensor, ""]:
    """Stage 2 without the key points' part."""
    loss = ctc(output.joint, output.lengths, glosses)
    for cue in output.cues:
        loss = loss + alpha * ctc(cue, output.lengths, glosses)
    return loss


def frame_loss(output: Output, labels: list[Int64[Tensor, "_"]]) -> Float[Tensor, ""]:
    """Stage 1: cross-entropy of every head with a label for each step, mean over steps, then over sentences."""
    loss = output.joint.new_zeros(())
    for log_probs in (output.joint, *output.cues):
        for k, wanted in enumerate(labels):
            row = log_probs[k, : len(wanted)]
            loss = loss + F.nll_loss(row, wanted.to(row.device)) / len(labels)
    return loss
