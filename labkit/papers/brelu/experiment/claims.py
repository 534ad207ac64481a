"""The abstract, statement by statement. PSNR in dB, accuracy in percent.

Margins were set before the recorded runs, from the noise of earlier ones: over seeds an entry of the tables moves by
less than 0.1 dB, a difference between two networks that share their float weights by a few hundredths. Published
figures are None: the abstract gives "2 times" and "1/4" and no table of it is known to us.
"""

from collections.abc import Callable, Mapping
from typing import Any

from labkit.workbench.claims import Claim, Result

Measure = Callable[[Result], float | None]


def lookup(result: Result, path: str) -> float | None:
    """result["a"]["b"] for "a/b"; None where the run did not measure it."""
    value: Any = result
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value)


def difference(first: str, second: str) -> Measure:
    """`first` minus `second`, both paths into the result."""

    def measure(result: Result) -> float | None:
        a, b = lookup(result, first), lookup(result, second)
        return None if a is None or b is None else a - b

    return measure


def least(*measures: Measure) -> Measure:
    """The smallest of several effects: the claim must hold for each."""

    def measure(result: Result) -> float | None:
        values = [one(result) for one in measures]
        return None if any(value is None for value in values) else min(v for v in values if v is not None)

    return measure


def recovered(result: Result) -> float | None:
    """What retraining wins at a bound four times too tight, minus what it wins at one eight times too wide."""
    tight = difference("superresolution/map/retrained/0.25/127", "superresolution/map/untrained/0.25/127")(result)
    wide = difference("superresolution/map/retrained/8/127", "superresolution/map/untrained/8/127")(result)
    return None if tight is None or wide is None else tight - wide


def quotient(first: str, second: str, sign: float = 1.0) -> Measure:
    def measure(result: Result) -> float | None:
        a, b = lookup(result, first), lookup(result, second)
        return None if a is None or b is None else sign * a / b

    return measure


def fine_tuned(rule: str, over: str, levels: int) -> Measure:
    return difference(f"superresolution/tuned/{rule}/{levels}", f"superresolution/tuned/{over}/{levels}")


CLAIMS = (
    Claim(
        key="activations-not-weights",
        sentence="What conversion to integers costs is due to quantising activations, not weights.",
        published=None,
        measure=difference("superresolution/weights/4", "superresolution/activations/max/15"),
        margin=0.2,
        scale="lesson",
        unit="dB",
        note="Super-resolution, one of them at 4 bits at a time, the activations up to their largest value.",
    ),
    Claim(
        key="activations-not-weights-artifacts",
        sentence="The same, in artifact reduction.",
        published=None,
        measure=difference("artifacts/weights/4", "artifacts/activations/max/15"),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="As above, for the network with concatenations.",
    ),
    Claim(
        key="activations-not-weights-classes",
        sentence="The same, in classification.",
        published=None,
        measure=difference("classification/weights/4", "classification/activations/max/15"),
        margin=0.5,
        scale="lesson",
        unit="points",
        note="Below 8 bits weights hurt more: one step per layer is coarse where batch norm spreads the channels.",
    ),
    Claim(
        key="tuned-bound-7-bits",
        sentence="A bound set by the rule keeps more quality than the largest value seen: 8-bit storage (127 levels).",
        published=None,
        measure=fine_tuned("3.5sigma", "max", 127),
        margin=0.02,
        scale="lesson",
        unit="dB",
        note="A network as small as the lesson's has no long tails: the largest value is 1 to 2 times the bound.",
    ),
    Claim(
        key="tuned-bound-5-bits",
        sentence="A bound set by the rule keeps more quality than the largest value seen: 31 levels.",
        published=None,
        measure=fine_tuned("3.5sigma", "max", 31),
        margin=0.05,
        scale="lesson",
        unit="dB",
        note="Both fine-tuned with the same budget.",
    ),
    Claim(
        key="tuned-bound-4-bits",
        sentence="A bound set by the rule keeps more quality than the largest value seen: 15 levels.",
        published=None,
        measure=fine_tuned("3.5sigma", "max", 15),
        margin=0.2,
        scale="lesson",
        unit="dB",
        note="Both fine-tuned with the same budget.",
    ),
    Claim(
        key="too-tight",
        sentence="A bound that is too small costs learning ability: it has to be tuned, not minimised.",
        published=None,
        measure=least(*(
            difference(f"superresolution/map/retrained/1/{n}", f"superresolution/map/retrained/0.25/{n}")
            for n in (127, 31, 15)
        )),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="The rule's bound against a quarter of it, both retrained; the least of 127, 31 and 15 levels.",
    ),
    Claim(
        key="too-wide",
        sentence="A bound that is too large costs resolution.",
        published=None,
        measure=least(*(
            difference(f"superresolution/map/retrained/1/{n}", f"superresolution/map/retrained/8/{n}")
            for n in (127, 31, 15)
        )),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="The rule's bound against eight times as much, both retrained; the least of 127, 31 and 15 levels.",
    ),
    Claim(
        key="training-mends-clipping",
        sentence="Fine-tuning makes up for clipping, and not for rounding: a tight bound can be learnt around.",
        published=None,
        measure=recovered,
        margin=0.3,
        scale="lesson",
        unit="dB",
        note="What 80 steps win at a quarter of the bound, minus what they win at eight times the bound; 127 levels.",
    ),
    Claim(
        key="addition",
        sentence="Feature maps can be added in integers, as residual networks need.",
        published=None,
        measure=lambda result: lookup(result, "classification/integer_agreement/3.5sigma"),
        margin=99.5,
        scale="lesson",
        unit="% of answers",
        note="Share of test images for which the integer network gives the simulation's answer.",
    ),
    Claim(
        key="concatenation",
        sentence="Feature maps can be concatenated in integers, as VRCNN needs.",
        published=None,
        measure=difference("artifacts/integer/127", "artifacts/tuned/3.5sigma/127"),
        margin=-0.01,
        scale="lesson",
        unit="dB",
        note="Integers against their simulation, whose biases are float.",
    ),
    Claim(
        key="integer-superresolution",
        sentence="Integer-only VDSR is as good as in floating point.",
        published=None,
        measure=difference("superresolution/integer/127", "superresolution/float"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="8 layers of 16 channels in place of 20 of 64.",
    ),
    Claim(
        key="integer-superresolution-same-budget",
        sentence="The same, against a float network that got the same extra training.",
        published=None,
        measure=difference("superresolution/integer/127", "superresolution/float_longer"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="The stricter comparison.",
    ),
    Claim(
        key="integer-artifacts",
        sentence="Integer-only VRCNN is as good as in floating point.",
        published=None,
        measure=difference("artifacts/integer/127", "artifacts/float"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="Half the channels, JPEG in place of HEVC.",
    ),
    Claim(
        key="integer-classification",
        sentence="Integer-only residual networks classify as well as in floating point.",
        published=None,
        measure=difference("classification/integer/3.5sigma", "classification/float"),
        margin=-0.5,
        scale="lesson",
        unit="points",
        note="A small residual network on small images.",
    ),
    Claim(
        key="better-than-8-bit-peers-small",
        sentence="8-bit networks made this way beat those of TensorFlow and TensorRT (small network, small images).",
        published=None,
        measure=least(
            difference("classification/integer/3.5sigma", "classification/peers/gemmlowp 255"),
            difference("classification/integer/3.5sigma", "classification/peers/TensorRT 127"),
        ),
        margin=0.5,
        scale="lesson",
        unit="points",
        note="The peers are not fine-tuned; at 8 bits nothing separates the methods on an easy task.",
    ),
    Claim(
        key="same-everywhere",
        sentence="Integer arithmetic gives the same bits on every platform.",
        published=None,
        measure=lambda result: lookup(result, "superresolution/same_on_backends"),
        margin=1.0,
        scale="lesson",
        unit="of values",
        note="Plain int64 convolutions against the device's own int8 ones: share of equal output values.",
    ),
    Claim(
        key="quarter-of-the-memory",
        sentence="The integer network needs a quarter of the memory.",
        published="1/4",
        measure=least(*(
            quotient(f"superresolution/published_bytes/{size}", "superresolution/published_bytes/float_memory", -1.0)
            for size in ("integer_file", "integer_memory")
        )),
        margin=-0.27,
        scale="lesson",
        unit="of float",
        note="VDSR in its published size (random weights), on disk and in memory; minus the larger share.",
    ),
    Claim(
        key="twice-as-fast-cpu",
        sentence="The integer network runs twice as fast (the abstract says so of GPUs; this is a CPU).",
        published="2 times",
        measure=quotient("superresolution/speed/float_ms", "superresolution/speed/integer_ms"),
        margin=2.0,
        scale="lesson",
        unit="times",
        note="Layers of 64 channels against the faster of two float layouts of PyTorch; `labkit bench brelu` has more.",
    ),
    Claim(
        key="twice-as-fast",
        sentence="The integer network runs twice as fast on modern GPUs.",
        published="2 times",
        measure=quotient("superresolution/speed/float_ms", "superresolution/speed/integer_ms"),
        margin=2.0,
        scale="gpu",
        unit="times",
        note="The fused Triton convolution against PyTorch in float32.",
    ),
    Claim(
        key="better-than-8-bit-peers",
        sentence="8-bit ResNets made this way beat the 8-bit ResNets of TensorFlow and TensorRT on ImageNet.",
        published=None,
        measure=least(
            difference("classification/integer/3.5sigma", "classification/peers/gemmlowp 255"),
            difference("classification/integer/3.5sigma", "classification/peers/TensorRT 127"),
        ),
        margin=0.0,
        scale="full",
        unit="points",
        note="The peers are rebuilt here and calibrated without training.",
    ),
)  # fmt: skip
