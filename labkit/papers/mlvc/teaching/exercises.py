"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.kernels.flow_warp import warp
from labkit.papers.mlvc.experiment.bjontegaard import bd_rate
from labkit.papers.mlvc.teaching import checks, scenes
from labkit.workbench.exercises import Exercise, number

# -- 1 fill in: the law of averaging ----------------------------------------------------------------------------------


def gain(k: int) -> float:
    return 10 * math.log10(2 / (1 + 1 / k))


# -- 2 fill in: the chain ---------------------------------------------------------------------------------------------


def chain(flows: Tensor) -> Tensor:
    """(batch, 4, 2, height, width) to f_1..f_4."""
    links = [flows[:, 0]]
    for k in range(1, 4):
        links.append(links[-1] + warp(flows[:, k], links[-1]))
    return torch.stack(links, 1)


def summed(flows: Tensor) -> Tensor:
    return flows.cumsum(1)


def last_flow_only(flows: Tensor) -> Tensor:
    """Each flow is read where the previous one leads, not the chain."""
    links = [flows[:, 0]]
    for k in range(1, 4):
        links.append(links[-1] + warp(flows[:, k], flows[:, k - 1]))
    return torch.stack(links, 1)


# -- 3 find the bug: flows of a pyramid -------------------------------------------------------------------------------


def broken_enlarge(flow: Tensor) -> Tensor:
    """The flow of a level of the pyramid, (batch, 2, height, width), on the next finer level, twice as large."""
    return F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)


def enlarge(flow: Tensor) -> Tensor:
    return 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)


# -- 4 predict: the order of the predictor ----------------------------------------------------------------------------

EXTRA_BITS = 0.5 * math.log2(6 / 2)
"""Noise of v_t and v_{t-1}: 2 sigma^2. Of v_t, twice v_{t-1} and v_{t-2}: (1 + 4 + 1) sigma^2."""

# -- 5 fill in: the wrong scale ---------------------------------------------------------------------------------------


def extra_bits(sigma: float, believed: float) -> float:
    ratio = sigma / believed
    return -math.log2(ratio) + (ratio**2 - 1) / (2 * math.log(2))


# -- 6 open: a lost packet --------------------------------------------------------------------------------------------


def conceal(packets: Sequence[str]) -> list[int | None]:
    shown: list[int | None] = []
    last, whole = None, False
    for index, packet in enumerate(packets):
        whole = packet == "I" or (packet == "P" and whole)
        last = index if whole else last
        shown.append(last)
    return shown


def shows_what_arrives(packets: Sequence[str]) -> list[int | None]:
    """A P-frame whose references are gone is shown: garbage."""
    shown: list[int | None] = []
    for index, packet in enumerate(packets):
        shown.append(index if packet != "lost" else shown[-1] if shown else None)
    return shown


def gives_up(packets: Sequence[str]) -> list[int | None]:
    """Shows nothing new after the first loss."""
    good = packets.index("lost") if "lost" in packets else len(packets)
    return [min(t, good - 1) if good else None for t in range(len(packets))]


# -- 7 ablation: rules of the protocol -------------------------------------------------------------------------------

BAR = 10.0


def moved_by(protocol: str) -> float:
    """Percent that x265 'saves' against itself when its source or its groups are treated so."""
    curves = scenes.protocol_curves()
    return -bd_rate(*curves["gop-12"], *curves[protocol])


def names_both(answer: Any) -> None:
    assert isinstance(answer, list | tuple | set), f"a list of names is asked for; got {answer!r}"
    unknown = set(answer) - set(scenes.SETTINGS)
    assert not unknown, f"there is no protocol {sorted(map(str, unknown))}; there are {', '.join(scenes.SETTINGS)}"


def all_named(answer: Any) -> None:
    for name in answer:
        assert moved_by(name) > BAR, f"'{name}' moves the curve by {moved_by(name):+.1f} %, not by more than {BAR:g} %"
    missing = [name for name in scenes.SETTINGS if moved_by(name) > BAR and name not in answer]
    assert not missing, f"{len(missing)} more of them move the curve by more than {BAR:g} %"


EXERCISES = (
    Exercise(
        key="averaging",
        kind="fill in",
        task="A static scene is filmed with independent noise of variance $\\sigma^2$ in every frame. The target is "
        "predicted by the mean of `k` references. By how many decibels is the error smaller than with one reference? "
        "The target's own noise counts as well.",
        properties={"is the law": checks.check_gain},
        solution=gain,
        wrong={
            "forgets the target's noise": lambda k: 10 * math.log10(k),
            "as amplitude": lambda k: 20 * math.log10(2 / (1 + 1 / k)),
            "upside down": lambda k: -gain(k),
        },
        difficulty=1,
        minutes=8,
        hints=(
            "Variances of independent noises add up. What is the variance of a mean of $k$ of them?",
            "The error has variance $\\sigma^2+\\sigma^2/k$. Compare it with $k=1$, as 10 log10 of a ratio.",
        ),
    ),
    Exercise(
        key="chain",
        kind="fill in",
        task="Write the chain of flows: from `flows`, (batch, 4, 2, height, width), newest first, to $f_1..f_4$ of the "
        "same shape. `warp(image, flow)` reads an image, or a flow, at $p+$ flow$(p)$.",
        properties={"leads where the pixel was": checks.check_chain},
        solution=chain,
        wrong={
            "adds the flows up": summed,
            "reads along one flow only": last_flow_only,
            "repeats the first": lambda f: f[:, :1].expand_as(f),
        },
        difficulty=2,
        minutes=15,
        hints=(
            "After $f_1$ you stand in frame $t-1$, at $p+f_1(p)$. Which flow do you follow from there, and where do "
            "you read it?",
            "$f_{k+1}=f_k+W(v_{k+1},f_k)$: `warp(flows[:, k], links[-1])`, then stack along dimension 1.",
        ),
    ),
    Exercise(
        key="pyramid",
        kind="find the bug",
        task="MAMVP-Net estimates a flow from coarse to fine. Between two levels `broken_enlarge` is called. With it a "
        "flow that is right on one level leads to a wrong place on the next finer one. Correct the function.",
        properties={"an object stays where it is": checks.check_enlarged},
        solution=enlarge,
        wrong={
            "the bug": broken_enlarge,
            "half": lambda flow: broken_enlarge(flow) / 2,
            "one axis": lambda flow: broken_enlarge(flow) * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1),
        },
        difficulty=1,
        minutes=8,
        hints=(
            "In which unit is a flow measured?",
            "An object that moves by one pixel of the small image moves by how many pixels of the large one?",
        ),
    ),
    Exercise(
        key="order",
        kind="predict, then run",
        task="A scene moves uniformly, and the motion search adds independent noise of variance $\\sigma^2$ to the "
        "flow of "
        "every frame. The difference to $v_{t-1}$ is coded, or the difference to $2v_{t-1}-v_{t-2}$, which also "
        "follows "
        "acceleration. How many bits a value more does the second cost, if half of log2 of the ratio of the "
        "variances is what "
        "a value costs more?",
        properties={
            "is half the log of the ratio": number(
                EXTRA_BITS, 0.01, "write down the variance of both differences; all noises are independent"
            )
        },
        solution=EXTRA_BITS,
        wrong={"forgets the target's noise": 0.5 * math.log2(5), "the whole log": math.log2(3), "no difference": 0.0},
        difficulty=2,
        minutes=8,
        hints=(
            "The motion itself cancels in both differences. What is left is noise.",
            "$v_t-v_{t-1}$ has variance $2\\sigma^2$. In $v_t-2v_{t-1}+v_{t-2}$ one of the noises counts with "
            "weight 2.",
        ),
    ),
    Exercise(
        key="wrong-scale",
        kind="fill in",
        task="The hyperprior tells the coder a scale for every symbol. If it says `believed` where the symbols have "
        "scale "
        "`sigma`, bits are wasted. How many a symbol, for Gaussian symbols that are wide against the rounding step?",
        properties={"is what is wasted": checks.check_mismatch},
        solution=extra_bits,
        wrong={
            "the ratio's log": lambda sigma, believed: abs(math.log2(sigma / believed)),
            "nats": lambda sigma, believed: extra_bits(sigma, believed) * math.log(2),
            "the other way round": lambda sigma, believed: extra_bits(believed, sigma),
        },
        difficulty=3,
        minutes=20,
        hints=(
            "What a symbol costs is $-\\log_2$ of the density that the coder believes in. Take the mean over the "
            "true one.",
            "The waste is the Kullback-Leibler divergence of two Gaussians with mean 0: a logarithm of the ratio of "
            "the scales, and its square minus one, over $2\\ln2$.",
        ),
    ),
    Exercise(
        key="lost-packet",
        kind="open",
        task="Make the player resist a lost packet. It gets a list such as `['I', 'P', 'lost', 'P', 'I']` and "
        "returns for "
        "each position the number of the frame that is on the screen, `None` before anything can be shown. A "
        "P-frame needs "
        "all frames back to the last I-frame.",
        properties={"shows what can be shown": checks.check_concealment},
        solution=conceal,
        wrong={
            "shows what arrives": shows_what_arrives,
            "never comes back": gives_up,
            "black": lambda packets: [None] * len(packets),
        },
        difficulty=2,
        minutes=15,
        hints=(
            "Keep two things: the last good frame, and whether the references are whole.",
            "An I-frame makes the references whole, a lost packet breaks them, and a P-frame is good only while "
            "they are.",
        ),
    ),
    Exercise(
        key="tricks",
        kind="ablation",
        task="The same encoder codes the same clip under other rules: `gop-100` (one I-frame for all frames), "
        "`crop` and "
        "`rescale` (135 lines become 128; the result is judged by the cropped or rescaled source). Which of them "
        "let it "
        "'save' more than 10 % of the bits against itself in groups of 12? Give a list of names; "
        "`exercises.moved_by(name)` measures.",
        properties={"are protocols": names_both, "move the curve": all_named},
        solution={"gop-100", "crop", "rescale"},
        wrong={"only the groups": ["gop-100"], "none": [], "a typo": ["gop100"], "the anchor": ["gop-12", "rescale"]},
        difficulty=1,
        minutes=5,
        hints=(
            "Bits are saved by sending fewer I-frames, and by having less to code: what enters at the border, the "
            "finest "
            "detail.",
            "Measure all three. Is any of them a rule by which you may compare with a curve made by another rule?",
        ),
    ),
)
