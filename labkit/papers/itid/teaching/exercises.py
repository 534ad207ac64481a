"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from labkit.papers.itid.experiment import data
from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
from labkit.papers.itid.experiment.evaluate import answers, measures_of, prediction_table
from labkit.papers.itid.experiment.model import Single
from labkit.papers.itid.experiment.train import Job, fit, networks_for
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.modifiers import Edit, Unchanged
from labkit.papers.itid.method.task import NuisanceLaw
from labkit.papers.itid.teaching import checks
from labkit.workbench import runs, training
from labkit.workbench.exercises import Exercise

# -- 1 fill in: iota, and the bound of Theorem 1 ----------------------------------------------------------------------


def iota_and_bound(p: Tensor, f: Tensor, q: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    """The solution: both sides of Theorem 1's inequality."""
    iota = (p * ((q - q2) * f).sum(-1).abs()).sum()
    oscillation, tv = f.amax(-1) - f.amin(-1), (q - q2).abs().sum(-1) / 2
    return iota, (p * oscillation * tv).sum()


def both(number: int, check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A check of one of the two things that an answer returns."""
    return lambda answer: check(lambda *arguments: answer(*arguments)[number])


def absolute_outside(p: Tensor, f: Tensor, q: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    return (p * ((q - q2) * f).sum(-1)).sum().abs(), iota_and_bound(p, f, q, q2)[1]


def whole_sum(p: Tensor, f: Tensor, q: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    iota, bound = iota_and_bound(p, f, q, q2)
    return iota, 2 * bound


# -- 2 fill in: laws that attain Omega --------------------------------------------------------------------------------


def extreme(f: Tensor) -> tuple[Tensor, Tensor]:
    first, second = bounds.extreme_laws(f)
    return first.table, second.table


def one_nuisance_for_all(f: Tensor) -> tuple[Tensor, Tensor]:
    """Wrong: the worst nuisance on average, instead of for each (c, y)."""
    mean = f.mean((0, 1))
    laws = (NuisanceLaw.points(torch.full((4, 2), int(k)), f.shape[-1]) for k in (mean.argmax(), mean.argmin()))
    first, second = laws
    return first.table, second.table


# -- 3 find the bug: a swap that changes nothing ----------------------------------------------------------------------


def swap_within_classes(labels: Tensor, nuisance: Tensor, generator: torch.Generator) -> Tensor:
    """The bug: donors come from the same class, where they all have the same colour."""
    swapped = nuisance.clone()
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        swapped[mine] = nuisance[mine[torch.randperm(len(mine), generator=generator)]]
    return swapped


def swap(labels: Tensor, nuisance: Tensor, generator: torch.Generator) -> Tensor:
    return nuisance[torch.randperm(len(nuisance), generator=generator)]


def draw_uniformly(labels: Tensor, nuisance: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(10, nuisance.shape, generator=generator)


def labels_along(labels: Tensor, nuisance: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(nuisance), generator=generator)
    labels.copy_(labels.clone()[order])
    return nuisance[order]


# -- 5 ablation with a bar: an edit family ----------------------------------------------------------------------------

SMALL = Config(experiments=("mild",), replicas=1, stacked=False, probes=0)


@cache
def _clean_judge() -> tuple[Any, Tensor, Tensor]:
    """A network trained without any colour: does an edited image still show its digit?"""
    return _trained("oracle", None)


def _trained(name: str, family: Any) -> tuple[Any, Tensor, Tensor]:
    """(networks, contents, labels) of a network trained on the mild backgrounds for 150 steps."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from labkit.papers.itid.method.modifiers import Neutral

    experiment = replace(EXPERIMENTS["mild"], steps=150)
    scene = data.build(experiment, 0)
    modifier = Neutral() if name == "oracle" else Edit(family) if family else Unchanged()
    jobs = [Job("ERM", 0, 0, scene, modifier)]
    networks = networks_for(jobs, experiment, SMALL)
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        run = runs.Run.open(folder, SMALL)
        fit(networks, jobs, experiment, SMALL, workers, run)
        run.close()
    assert isinstance(networks, Single)
    if name != "oracle":
        row = measures_of(prediction_table(networks, jobs)[0], scene)
        return row["target"], scene.test_content, scene.test_labels
    return networks, scene.test_content, scene.test_labels


@cache
def _target_of_erm() -> float:
    return float(_trained("ERM", None)[0])


def check_edit_keeps_digits(family: Any) -> None:
    networks, content, labels = _clean_judge()
    assert callable(family), f"a function edit(images, generator) is asked for; got {family!r}"
    grey = data.Backgrounds().neutral(content)
    edited = family(grey.clone(), torch.Generator().manual_seed(0))
    assert edited.shape == grey.shape, f"an edit keeps the shape: {tuple(grey.shape)} became {tuple(edited.shape)}"
    before = float((answers(networks, grey[None])[0] == labels).double().mean())
    after = float((answers(networks, edited[None])[0] == labels).double().mean())
    assert after > before - 0.1, (
        f"a network that reads grey digits falls from {before:.2f} to {after:.2f} on your edits: labels change"
    )


def check_edit_helps(family: Any) -> None:
    found, plain = float(_trained("edit", family)[0]), _target_of_erm()
    assert found >= plain + 0.08, (
        f"trained on your edits {found:.3f} under uniform colours, without {plain:.3f}: need +.08"
    )


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


# -- 6 fill in: V-REx, and what interpolation does to it --------------------------------------------------------------


def variance_of_risks(risks: Tensor) -> Tensor:
    return ((risks - risks.mean()) ** 2).mean()


EXERCISES = (
    Exercise(
        key="theorem-1",
        kind="fill in",
        task="Return iota and E[osc * TV] for a task p (c, y), losses f (c, y, z) and two laws (c, y, z).",
        properties={
            "iota": both(0, checks.check_iota),
            "the bound": both(1, checks.check_osc_times_tv),
        },
        solution=iota_and_bound,
        wrong={"absolute value outside": absolute_outside, "TV without the half": whole_sum},
    ),
    Exercise(
        key="extreme-laws",
        kind="fill in",
        task="For losses f (c, y, z), find two nuisance laws between which the risk changes by Omega.",
        properties={"Omega is attained": checks.check_extreme_laws},
        solution=extreme,
        wrong={"one nuisance for all": one_nuisance_for_all, "the losses themselves": lambda f: (f, 1 - f)},
    ),
    Exercise(
        key="swap",
        kind="find the bug",
        task="This swap leaves the network as blind as before. Find out why, and mend it.",
        properties={"same histogram, independent of the label": checks.check_swap},
        solution=swap,
        wrong={
            "within classes": swap_within_classes,
            "labels go along": labels_along,
            "other histogram": draw_uniformly,
            "nothing": lambda labels, nuisance, generator: nuisance,
        },
    ),
    Exercise(
        key="transition",
        kind="predict, then run",
        task="25 % of the labels are wrong. Accuracy of the Bayes classifier on flipped colours (10 % agree) when it "
        "was trained with colours that agree in 74 % of the data, and in 76 %?",
        properties={"on both sides of the jump": checks.check_phase_transition},
        solution=(0.75, 0.10),
        wrong={"the training accuracy": (0.75, 0.76), "a gentle slope": (0.74, 0.70), "one number": 0.75},
    ),
    Exercise(
        key="edit",
        kind="ablation",
        task="Write an edit that makes a network ignore the colour without touching the digit: after 150 steps at "
        "least .08 better than plain ERM.",
        properties={"labels stay true": check_edit_keeps_digits, "it helps": check_edit_helps},
        solution=edits.colour_matrix,
        wrong={"half a turn": edits.half_turn, "a shift": edits.shift, "nothing": identity},
    ),
    Exercise(
        key="v-rex",
        kind="fill in",
        task="Write V-REx's penalty for a tensor of environment risks.",
        properties={"the biased variance, with its gradient": checks.check_variance_penalty},
        solution=variance_of_risks,
        wrong={
            "unbiased": lambda risks: risks.var(),
            "deviation": lambda risks: risks.std(correction=0),
            "detached": lambda risks: variance_of_risks(risks.detach()),
        },
    ),
)
