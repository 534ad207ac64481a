"""The notebook's "your turn" cells: what is asked, how an answer is judged, wrong answers that people give."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from labkit.papers.itid.experiment.evaluate import measures_of, predict, prediction_table
from labkit.papers.itid.experiment.jobs import Job
from labkit.papers.itid.experiment.model import Single, Stack
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.modifiers import DistributionModifier, Edit, Neutral, Unchanged
from labkit.papers.itid.method.task import NuisanceLaw
from labkit.papers.itid.teaching import checks
from labkit.papers.itid.teaching.scenes import train_briefly
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


# -- 3 find the bug: donors of the same class -------------------------------------------------------------------------


def broken_swap(labels: Tensor, nuisance: Tensor, generator: torch.Generator) -> Tensor:
    """Give every image the nuisance of another one, so that nuisance and label become independent."""
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


def target_accuracy(modifier: DistributionModifier) -> float:
    """Accuracy under uniform colours of a network trained with `modifier`."""
    networks, job = train_briefly(modifier, "mild", 150)
    return measures_of(prediction_table(networks, [job])[0], job.scene)["target"]


@cache
def _grey_network() -> tuple[Stack | Single, Job]:
    """A network trained without any colour."""
    return train_briefly(Neutral(), "mild", 150)


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
        task=r"Write both sides of Theorem 1: a function `(p, f, q, q2)` that returns $\iota$ and "
        r"$\mathbb E[\mathrm{osc}_z f\cdot\mathrm{TV}(Q,Q')]$. `p` is $P_T(c,y)$ and has the axes (content, label). "
        "`f` holds the losses, `q` and `q2` the two laws; their axes are (content, label, nuisance).",
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
        task=r"Write a function `(f)` that returns two laws between which the risk changes by exactly $\Omega$. "
        "`f` holds the losses, with the axes (content, label, nuisance). Both laws have the same shape.",
        properties={"Omega is attained": checks.check_extreme_laws},
        solution=extreme,
        wrong={"one nuisance for all": one_nuisance_for_all, "the losses themselves": lambda f: (f, 1 - f)},
        difficulty=2,
        minutes=10,
        hints=(
            "Between which two nuisances does the loss change most, for one given (c, y)?",
            (
                "For each (c, y), one law puts all its mass on the worst nuisance and the other on the best: "
                "`one_hot(f.argmax(-1), ...)`."
            ),
        ),
    ),
    Exercise(
        key="swap",
        kind="find the bug",
        task="The function below runs and keeps the labels and the histogram of the colours. A network trained on its "
        "output still learns the colour. Find out why, and write one that does what the docstring says.",
        properties={"same histogram, independent of the label": checks.check_swap},
        solution=swap,
        wrong={
            "within classes": broken_swap,
            "labels go along": labels_along,
            "other histogram": draw_uniformly,
            "nothing": lambda labels, nuisance, generator: nuisance,
        },
        difficulty=2,
        minutes=10,
        hints=(
            "Count how often each colour occurs with each label, before and after the swap.",
            (
                "Which images may hand their colour to a given image, if colour and label are to be independent "
                "afterwards? One permutation is enough."
            ),
        ),
    ),
    Exercise(
        key="transition",
        kind="predict, then run",
        task="Digits in two colours, as in Theorem 5. The content is right about the label in 70 % of the data. In "
        "the test the colour agrees with the label in 20 % of the data. What is the test accuracy of the Bayes "
        "classifier of the training law when the colour agrees with the label in 65 % of the training data? And "
        "in 75 %? Answer with a pair of numbers.",
        properties={"both accuracies": pair(checks.check_phase_transition, "at 65 %, at 75 %")},
        solution=(0.70, 0.20),
        wrong={"the training accuracy": (0.70, 0.75), "a gentle slope": (0.65, 0.55), "one number": 0.70},
        difficulty=2,
        minutes=10,
        hints=(
            (
                "The classifier has two sources of evidence: the content and the colour. Each is right in a known "
                "share of the training data. Which one does it follow when they disagree?"
            ),
            (
                "Compare the colour's share in training with the content's. Then ask how often the source that it "
                "follows is right in the test."
            ),
        ),
    ),
    Exercise(
        key="edit",
        kind="ablation",
        task="Write an edit `(images, generator)` of images with the shape (n, 3, 8, 8) and values in [0, 1]. A "
        "network is trained on edited images for 150 steps. Under uniform colours its accuracy must be at least .05 "
        "higher than that of plain ERM. The edit must not change labels: a network that reads grey digits must still "
        "read them.",
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
        task="V-REx penalises how much the risk varies from one environment to another. Write its penalty: the biased "
        "variance of `risks`, a tensor with one risk per environment, so that the gradient passes through.",
        properties={"value and gradient": checks.check_variance_penalty},
        solution=variance_of_risks,
        wrong={
            "unbiased": lambda risks: risks.var(),
            "deviation": lambda risks: risks.std(correction=0),
            "detached": lambda risks: variance_of_risks(risks.detach()),
        },
        difficulty=1,
        minutes=5,
        hints=(
            "Start from each risk's distance to the mean of the risks.",
            "Take the mean of the squared distances. Divide by the number of risks, and detach nothing.",
        ),
    ),
)
