"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from labkit.papers.itid.experiment.config import EXPERIMENTS, Config
from labkit.papers.itid.experiment.evaluate import measures_of, predict, prediction_table
from labkit.papers.itid.experiment.jobs import Job, build_networks, build_scene
from labkit.papers.itid.experiment.loop import fit
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.modifiers import DistributionModifier, Edit, Neutral, Unchanged
from labkit.papers.itid.method.task import NuisanceLaw
from labkit.papers.itid.teaching import checks
from labkit.workbench import runs, training
from labkit.workbench.exercises import Exercise, pair

# -- 1 fill in: iota, and the bound of Theorem 1 ----------------------------------------------------------------------


def iota_and_bound(p: Tensor, f: Tensor, q: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    """The solution: both sides of Theorem 1's inequality."""
    iota = (p * ((q - q2) * f).sum(-1).abs()).sum()
    oscillation, tv = f.amax(-1) - f.amin(-1), (q - q2).abs().sum(-1) / 2
    return iota, (p * oscillation * tv).sum()


def element(index: int, check: Callable[[Any], None]) -> Callable[[Any], None]:
    """The check of one element of the pair that an answer returns."""
    return lambda answer: check(lambda *arguments: answer(*arguments)[index])


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
    """Give every image the nuisance of another one."""
    swapped = nuisance.clone()
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        swapped[members] = nuisance[members[torch.randperm(len(members), generator=generator)]]
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


def train_briefly(modifier: DistributionModifier) -> tuple[Stack | Single, Job]:
    """A network trained on the mild backgrounds for 150 steps."""
    experiment = replace(EXPERIMENTS["mild"], steps=150)
    job = Job("ERM", SMALL.seed, 0, build_scene(experiment, SMALL.seed, 0), modifier)
    networks = build_networks([job], experiment, SMALL)
    with TemporaryDirectory() as folder, training.workers("cpu") as workers:
        run = runs.Run.open(folder, SMALL)
        fit(networks, [job], experiment, SMALL, workers, run)
        run.close()
    return networks, job


def target_accuracy(modifier: DistributionModifier) -> float:
    """Accuracy under uniform colours of a network trained with `modifier`."""
    networks, job = train_briefly(modifier)
    return measures_of(prediction_table(networks, [job])[0], job.scene)["target"]


@cache
def _grey_network() -> tuple[Stack | Single, Job]:
    """A network trained without any colour."""
    return train_briefly(Neutral())


@cache
def _target_of_erm() -> float:
    return target_accuracy(Unchanged())


def check_edit_keeps_digits(family: Any) -> None:
    assert callable(family), f"a function edit(images, generator) is asked for; got {family!r}"
    networks, job = _grey_network()
    grey, labels = job.scene.renderer.neutral(job.scene.test_content), job.scene.test_labels
    edited = family(grey.clone(), torch.Generator().manual_seed(0))
    assert edited.shape == grey.shape, f"an edit keeps the shape: {tuple(grey.shape)} became {tuple(edited.shape)}"
    before, after = (float((predict(networks, images[None])[0] == labels).double().mean()) for images in (grey, edited))
    assert after > before - 0.1, (
        f"a network that reads grey digits falls from {before:.2f} to {after:.2f} on your edits: labels change"
    )


def check_edit_helps(family: Any) -> None:
    edited, plain = target_accuracy(Edit(family)), _target_of_erm()
    assert edited >= plain + 0.05, (
        f"trained on your edits {edited:.3f} under uniform colours, without {plain:.3f}: need +.05"
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
            "iota": element(0, checks.check_iota),
            "the bound": element(1, checks.check_osc_times_tv),
        },
        solution=iota_and_bound,
        wrong={"absolute value outside": absolute_outside, "TV without the half": whole_sum},
        difficulty=1,
        minutes=10,
        hints=(
            "The absolute value stands inside the expectation over (c, y), and outside the sum over the nuisance.",
            (
                "`((q - q2) * f).sum(-1)` is one number for each (c, y). The oscillation is max minus min over the "
                "nuisance; total variation is half of the sum of |q - q2|."
            ),
        ),
    ),
    Exercise(
        key="extreme-laws",
        kind="fill in",
        task="For losses f (c, y, z), find two nuisance laws between which the risk changes by Omega.",
        properties={"Omega is attained": checks.check_extreme_laws},
        solution=extreme,
        wrong={"one nuisance for all": one_nuisance_for_all, "the losses themselves": lambda f: (f, 1 - f)},
        difficulty=2,
        minutes=10,
        hints=(
            "Between which two nuisances does the loss change most, for one given (c, y)?",
            (
                "All mass on the worst nuisance in one law, all on the best in the other, for each (c, y) apart: "
                "`one_hot(f.argmax(-1), ...)`."
            ),
        ),
    ),
    Exercise(
        key="swap",
        kind="find the bug",
        task="This swap does not make the network more invariant. Find out why, and mend it.",
        properties={"same histogram, independent of the label": checks.check_swap},
        solution=swap,
        wrong={
            "within classes": swap_within_classes,
            "labels go along": labels_along,
            "other histogram": draw_uniformly,
            "nothing": lambda labels, nuisance, generator: nuisance,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Count colours per label before and after the swap.",
            (
                "From whom may an image get its colour, if colour and label shall be independent afterwards? One "
                "permutation is enough."
            ),
        ),
    ),
    Exercise(
        key="transition",
        kind="predict, then run",
        task="25 % of the labels are wrong. Accuracy of the Bayes classifier on flipped colours (10 % agree) when it "
        "was trained with colours that agree in 74 % of the data, and in 76 %?",
        properties={"on both sides of the jump": pair(checks.check_phase_transition, "at .74, at .76")},
        solution=(0.75, 0.10),
        wrong={"the training accuracy": (0.75, 0.76), "a gentle slope": (0.74, 0.70), "one number": 0.75},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "The classifier has two witnesses for the label: the content, right in a known share of cases, and "
                "the colour. Which one does it believe when they disagree?"
            ),
            (
                "Compare the colour's share with the content's. Then ask how often the witness that is believed is "
                "right under flipped colours."
            ),
        ),
    ),
    Exercise(
        key="edit",
        kind="ablation",
        task="Write an edit that makes a network ignore the colour without touching the digit: after 150 steps at "
        "least .05 better than plain ERM.",
        properties={"labels stay true": check_edit_keeps_digits, "it helps": check_edit_helps},
        solution=edits.color_matrix,
        wrong={"half a turn": edits.half_turn, "a shift": edits.shift, "nothing": identity},
        difficulty=3,
        minutes=25,
        hints=(
            (
                "What a network should ignore must vary in its training data, and nothing else. What may change in "
                "the three channels, and what may not?"
            ),
            (
                "Mix the channels by a random 3 x 3 matrix with rows that sum to 1, another one for each image: "
                "colours change, shapes stay."
            ),
        ),
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
        difficulty=1,
        minutes=5,
        hints=(
            "How far apart are the risks?",
            "The mean of the squared distances from the mean: divided by their number, and nothing is detached.",
        ),
    ),
)
