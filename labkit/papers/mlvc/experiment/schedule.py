"""Step-by-step training as data: which modules learn in which stage, which parts are in use, by which loss.

The order of the stages is the paper's [recalled]. How many iterations each one gets is not known to us; the units below
are ours [inferred].
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

Loss = Literal["warp", "prediction", "rate-distortion"]
CODING = ("motion_coding", "residual_coding", "hyperprior", "residual_rgb")
SEARCH_AND_COMPENSATION = ("motion_estimation", "compensation")


@dataclass(frozen=True)
class Stage:
    """One stage of a schedule.

    trains: modules of `Network` that learn; all others stand still.
    units: how long it lasts, in units of `Config.unit_steps`.
    joint: fine-tuning of what has learned before, at the smaller step size.
    loss: `warp`: error of the reference warped by the flow that was found; `prediction`: error of x̄_t from that flow,
        nothing compressed; `rate-distortion`: J.
    parts: of the network in use: predict_motion, refine_motion, refine_residual.
    """

    name: str
    trains: tuple[str, ...]
    units: int
    joint: bool = False
    loss: Loss = "rate-distortion"
    parts: frozenset[str] = field(default_factory=frozenset)

    def use(self, network: nn.Module) -> None:
        """Switch the parts of a `Network`, and the gradients of its modules, to this stage."""
        names = ("predict_motion", "refine_motion", "refine_residual")
        network.use(**{name: name in self.parts for name in names})  # type: ignore[operator]
        for name, module in network.named_children():
            module.requires_grad_(name in self.trains)


def _grown() -> tuple[Stage, ...]:
    """S4 to S6: one more module each, alone and then together with all others."""
    stages, parts = [], frozenset[str]()
    learned: tuple[str, ...] = (*SEARCH_AND_COMPENSATION, *CODING)
    new = (
        ("S4", "motion_prediction", "predict_motion"),
        ("S5", "motion_refinement", "refine_motion"),
        ("S6", "residual_refinement", "refine_residual"),
    )
    for name, module, part in new:
        parts, learned = parts | {part}, (*learned, module)
        stages += [
            Stage(f"{name} alone", (module,), 1, parts=parts),
            Stage(f"{name} joint", learned, 1, joint=True, parts=parts),
        ]
    return tuple(stages)


EVERYTHING = frozenset({"predict_motion", "refine_motion", "refine_residual"})
ALL_MODULES = (
    *SEARCH_AND_COMPENSATION, *CODING, "motion_prediction", "motion_refinement", "residual_refinement"
)  # fmt: skip

STEPWISE: tuple[Stage, ...] = (
    Stage("S0", ("motion_estimation",), 1, loss="warp"),
    Stage("S1", ("compensation",), 2, loss="prediction"),
    Stage("S2", CODING, 3),
    Stage("S3", (*SEARCH_AND_COMPENSATION, *CODING), 2, joint=True),
    *_grown(),
)
"""[recalled] S0 is the paper's pretrained FlowNet 2.0; here the motion search learns it, without labels [ours]."""

SCRATCH: tuple[Stage, ...] = (
    STEPWISE[0],
    Stage("scratch", ALL_MODULES, sum(stage.units for stage in STEPWISE[1:]), parts=EVERYTHING),
)
"""Everything at once from a random start, for as many steps; the motion search is the same, as in the paper it is."""

UNREFINED: tuple[Stage, ...] = (
    *STEPWISE[:6],
    Stage("instead", STEPWISE[5].trains, sum(s.units for s in STEPWISE[6:]), joint=True, parts=STEPWISE[5].parts),
)
"""Without the two refinement nets; the steps that they would get go on with the rest."""


SHORT: tuple[Stage, ...] = (
    Stage("coding", CODING, 1),
    Stage("joint", (*SEARCH_AND_COMPENSATION, *CODING), 4, joint=True),
)
"""A codec in minutes: S2, S3 from the transforms that the auto-encoders start with; no claim rests on it.  [ours]"""


SCHEDULES = {
    "stepwise": STEPWISE, "scratch": SCRATCH, "single": STEPWISE, "unrefined": UNREFINED, "short": SHORT,
}  # fmt: skip
"""stepwise: the paper's. scratch: everything at once. single: stepwise, of one reference throughout. short: for the
networks that come with labkit."""
COMPARED = ("stepwise", "scratch", "single", "unrefined")
"""Trainings of equal length, which the claims are about."""


def for_another_rate(schedule: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """From a network that was trained at one lambda to another lambda: everything in use, together.  [ours]"""
    last = schedule[-1]
    return (Stage("rate", last.trains, 2, joint=True, parts=last.parts),)


def stages_for(network: nn.Module, schedule: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages that have something to train: a motion search by OpenCV has no parameters."""
    children = dict(network.named_children())
    return tuple(s for s in schedule if any(True for name in s.trains for _ in children[name].parameters()))
