"""The abstract, statement by statement. Accuracies are in percent, effects in points of accuracy.

Margins were set from the noise before the recorded runs: on Fashion-MNIST's 10,000 test images one accuracy has a
standard error of about 0.33 points, a paired difference less. One claim notes that its margin came later. Published
figures are None: the abstract gives none.
"""

from labkit.workbench.claims import Claim, Measure, difference, largest, least, number


def accuracy(arm: str, stage: str = "hard") -> Measure:
    """Accuracy of an arm in percent: "hard" as deployed, "soft" as trained, "ptq_bn" untrained, see `train`."""
    return number(arm, stage)


def gain(arm: str, over: str) -> Measure:
    """Accuracy of one arm as deployed, minus that of another."""
    return difference(accuracy(arm), accuracy(over))


def gain_of_training(arm: str) -> Measure:
    """Accuracy as deployed, minus that of the same quantiser untrained with batch norm re-estimated."""
    return difference(accuracy(arm), accuracy(arm, "ptq_bn"))


def soft_minus_hard(arm: str) -> tuple[Measure, Measure]:
    """Soft minus hard accuracy and hard minus soft: the largest of the two is the gap, the least is minus the gap."""
    soft, hard = accuracy(arm, "soft"), accuracy(arm)
    return difference(soft, hard), difference(hard, soft)


CLAIMS = (
    Claim(
        key="trained-end-to-end",
        sentence="Low-bit quantisation can be trained end to end, as one more differentiable function of the network.",
        published=None,
        measure=gain_of_training("W1"),
        margin=2.0,
        scale="lesson",
        unit="points",
        note="Trained 1-bit weights against the same quantiser untrained with batch norm re-estimated: without that "
        "the gain looks many times larger, and is not training's.",
    ),
    Claim(
        key="lossless",
        sentence="Nothing is lost between training and deployment: the soft function ends as the hard one.",
        published=None,
        measure=least(*soft_minus_hard("W1")),
        margin=-0.3,
        scale="lesson",
        unit="points",
        note="Minus the gap between soft and hard accuracy of 1-bit weights at a final temperature of 300.",
    ),
    Claim(
        key="temperature-must-end-high",
        sentence="The function has to be made steep while training: stopped early, soft and hard disagree.",
        published=None,
        measure=largest(*soft_minus_hard("W1-T20")),
        margin=5.0,
        scale="lesson",
        unit="points",
        note="The gap at a final temperature of 20.",
    ),
    Claim(
        key="approximations-mismatch",
        sentence="The gradient of an approximated hard quantiser does not match the loss; this one's does.",
        published=None,
        measure=difference(number("BWN", "gradient_error"), number("W1", "gradient_error")),
        margin=0.5,
        scale="lesson",
        unit="relative error",
        note="Slope of the loss along the gradient: backward pass against finite differences.",
    ),
    Claim(
        key="any-bits",
        sentence="One formulation serves any number of bits and any set of levels.",
        published=None,
        measure=least(*(gain(arm, "float") for arm in ("W1", "W2", "W3pm2", "W3pm4"))),
        margin=-2.0,
        scale="lesson",
        unit="points",
        note="Worst of four level sets for the weights (1, 2 and 3 bits, uniform and powers of two) against float.",
    ),
    Claim(
        key="any-activations",
        sentence="The same annealed function also quantises activations.",
        published=None,
        measure=gain_of_training("A2"),
        margin=0.0,
        scale="lesson",
        unit="points",
        note="Annealed 2-bit activations against their own untrained start: the gradient through a steep staircase "
        "explodes without a common direction.",
    ),
    Claim(
        key="wide-bell-mends-activations",
        sentence="Ours, not the paper's: activations can be trained when only the forward pass sharpens.",
        published=None,
        measure=gain("A2-bell", "A2"),
        margin=1.0,
        scale="lesson",
        unit="points",
        note="A wide bell in the backward pass is a straight-through surrogate: the argument of no gradient mismatch "
        "is given up for activations.",
    ),
    Claim(
        key="better-than-approximation-1-bit",
        sentence="It beats methods that approximate the gradient (1-bit weights).",
        published=None,
        measure=gain("W1", "BWN"),
        margin=0.0,
        scale="lesson",
        unit="points",
        note="Against BWN with a straight-through gradient, same budget, nothing tuned for either.",
    ),
    Claim(
        key="better-than-approximation-2-bit",
        sentence="It beats methods that approximate the gradient (ternary weights).",
        published=None,
        measure=gain("W2", "TWN"),
        margin=0.0,
        scale="lesson",
        unit="points",
        note="Against TWN with a straight-through gradient, same budget, nothing tuned for either.",
    ),
    Claim(
        key="better-than-approximation-activations",
        sentence="It beats methods that approximate the gradient (2-bit activations).",
        published=None,
        measure=gain("A2", "A2-LSQ"),
        margin=0.0,
        scale="lesson",
        unit="points",
        note="Against LSQ, same budget, nothing tuned for either.",
    ),
    Claim(
        key="weights-and-activations",
        sentence="It works for weights and activations together.",
        published=None,
        measure=gain_of_training("W1A1"),
        margin=0.0,
        scale="lesson",
        unit="points",
        note="Annealed 1-bit weights and activations against their own untrained start.",
    ),
    Claim(
        key="stage-two-must-move-weights",
        sentence="Ours, not the paper's: with 1-bit weights and activations, weights must be able to move in stage 2.",
        published=None,
        measure=gain("W1A1-again", "W1A1-hard"),
        margin=1.0,
        scale="lesson",
        unit="points",
        note="Weights annealed once more from a low temperature against weights held at the final one. The margin is "
        "that of the other repair; it was written down after two of the three seeds had been seen.",
    ),
    Claim(
        key="no-costly-training",
        sentence="Optimising the quantisation inside the training is costly; this function adds little to a step.",
        published=None,
        measure=lambda _: None,
        margin=0.0,
        scale="lesson",
        unit="%",
        note="A time, so it is no result of a run: `labkit bench qnet` puts a quantised step beside a float one.",
    ),
    Claim(
        key="imagenet-classification",
        sentence="It outperforms the state of the art of its time in image classification.",
        published=None,
        measure=difference(accuracy("W1"), lambda _: 64.5),
        margin=0.0,
        scale="full",
        unit="points",
        note="Against the 64.5 % top-1 that the authors' own script reaches for 1-bit ResNet-18 in 35 epochs.",
    ),
    Claim(
        key="object-detection",
        sentence="It outperforms the state of the art of its time in object detection.",
        published=None,
        measure=lambda _: None,
        margin=0.0,
        scale="full",
        unit="mAP",
        note="Not built here: SSD300 on Pascal VOC is outside this room.",
    ),
)
