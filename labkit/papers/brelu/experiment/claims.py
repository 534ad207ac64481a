"""The abstract, statement by statement. PSNR in dB, accuracy in percent.

Margins were set before the recorded runs, from the noise of earlier ones: over seeds an entry of the tables moves by
less than 0.1 dB, a difference between two networks that share their float weights by a few hundredths. One claim notes
that a setting came later. Published figures are None: the abstract gives "2 times" and "1/4" and no table of it is
known to us.
"""

from labkit.workbench.claims import Claim, Measure, Result, difference, largest, least, number


def minus(first: str, second: str) -> Measure:
    """`first` minus `second`, both paths into the result such as "artifacts/weights/4"."""
    return difference(number(*first.split("/")), number(*second.split("/")))


def quotient(first: str, second: str) -> Measure:
    """`first` over `second`, both paths into the result."""
    numerator, denominator = number(*first.split("/")), number(*second.split("/"))

    def measure(result: Result) -> float | None:
        a, b = numerator(result), denominator(result)
        return None if a is None or b is None else a / b

    return measure


def negative(measure: Measure) -> Measure:
    """For an effect of which less speaks for the claim."""
    return difference(lambda result: 0.0, measure)


def fine_tuned(rule: str, over: str, levels: int) -> Measure:
    """What one bound rule gains over another, both fine-tuned."""
    return minus(f"superresolution/tuned/{rule}/{levels}", f"superresolution/tuned/{over}/{levels}")


def retrained(factor: str, over: str) -> Measure:
    """What one multiple of the rule's bound gains over another, both retrained: the least of all numbers of levels."""
    table = "superresolution/map/retrained"
    return least(*(minus(f"{table}/{factor}/{levels}", f"{table}/{over}/{levels}") for levels in (127, 31, 15)))


def gained_by_training(factor: str) -> Measure:
    """What retraining gains at a multiple of the rule's bound, at 127 levels."""
    return minus(f"superresolution/map/retrained/{factor}/127", f"superresolution/map/untrained/{factor}/127")


def speed_up(workload: str, device: str) -> Measure:
    """How many times as fast as the fastest float network, from a record of `labkit bench` on that kind of device."""

    def measure(result: Result) -> float | None:
        rows = [row for row in result.get("rows", ()) if row["workload"] == workload and "float32" in row["peer_name"]]
        return min((row["ratio"] for row in rows), default=None) if result.get("device") == device else None

    return measure


BETTER_THAN_PEERS = least(
    minus("classification/integer/3.5sigma", "classification/peers/gemmlowp 255"),
    minus("classification/integer/3.5sigma", "classification/peers/TensorRT 127"),
)

CLAIMS = (
    Claim(
        key="activations-not-weights",
        sentence="What conversion to integers costs is due to quantising activations, not weights.",
        published=None,
        measure=minus("superresolution/weights/4", "superresolution/activations/max/15"),
        margin=0.2,
        scale="lesson",
        unit="dB",
        note="Super-resolution, one of them at 4 bits at a time, the activations up to their largest value.",
    ),
    Claim(
        key="activations-not-weights-artifacts",
        sentence="Artifact reduction: the cost is due to quantising activations, not weights.",
        published=None,
        measure=minus("artifacts/weights/4", "artifacts/activations/max/15"),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="As above, for the network with concatenations.",
    ),
    Claim(
        key="activations-not-weights-classes",
        sentence="Classification: the cost is due to quantising activations, not weights.",
        published=None,
        measure=minus("classification/weights/4", "classification/activations/max/15"),
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
        note="A network as small as the lesson's has no long tails: the largest value is 1.1 to 2.4 times the bound.",
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
        measure=retrained("1", over="0.25"),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="The rule's bound against a quarter of it, both retrained; the least of 127, 31 and 15 levels.",
    ),
    Claim(
        key="too-wide",
        sentence="A bound that is too large costs resolution.",
        published=None,
        measure=retrained("1", over="8"),
        margin=0.1,
        scale="lesson",
        unit="dB",
        note="The rule's bound against eight times as much, both retrained; the least of 127, 31 and 15 levels.",
    ),
    Claim(
        key="training-mends-clipping",
        sentence="Fine-tuning makes up for clipping, and not for rounding: a tight bound can be learned around.",
        published=None,
        measure=difference(gained_by_training("0.25"), gained_by_training("8")),
        margin=0.3,
        scale="lesson",
        unit="dB",
        note="What 80 steps win at a quarter of the bound, minus what they win at eight times the bound; 127 levels.",
    ),
    Claim(
        key="addition",
        sentence="Feature maps can be added in integers, as residual networks need.",
        published=None,
        measure=number("classification", "integer_agreement", "3.5sigma"),
        margin=99.5,
        scale="lesson",
        unit="% of answers",
        note="Share of test images for which the integer network gives the simulation's answer.",
    ),
    Claim(
        key="concatenation",
        sentence="Feature maps can be concatenated in integers, as VRCNN needs.",
        published=None,
        measure=minus("artifacts/integer/127", "artifacts/tuned/3.5sigma/127"),
        margin=-0.01,
        scale="lesson",
        unit="dB",
        note="Integers against their simulation, whose biases are float.",
    ),
    Claim(
        key="integer-superresolution",
        sentence="Integer-only VDSR is as good as in floating point.",
        published=None,
        measure=minus("superresolution/integer/127", "superresolution/float"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="8 layers of 16 channels in place of 20 of 64.",
    ),
    Claim(
        key="integer-superresolution-same-budget",
        sentence="Integer-only VDSR is as good as a float network that got the same extra training.",
        published=None,
        measure=minus("superresolution/integer/127", "superresolution/float_longer"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="The stricter comparison.",
    ),
    Claim(
        key="integer-artifacts",
        sentence="Integer-only VRCNN is as good as in floating point.",
        published=None,
        measure=minus("artifacts/integer/127", "artifacts/float"),
        margin=-0.05,
        scale="lesson",
        unit="dB",
        note="Half the channels, JPEG in place of HEVC.",
    ),
    Claim(
        key="integer-classification",
        sentence="Integer-only residual networks classify as well as in floating point.",
        published=None,
        measure=minus("classification/integer/3.5sigma", "classification/float"),
        margin=-0.5,
        scale="lesson",
        unit="points",
        note="A small residual network on small images. Fine-tuning is training too, which the float one has not had.",
    ),
    Claim(
        key="integer-mobilenet",
        sentence="An integer-only MobileNet, which the paper does not name, classifies as well as in floating point.",
        published=None,
        measure=minus("mobilenet/integer", "mobilenet/float"),
        margin=-0.5,
        scale="lesson",
        unit="points",
        note="Depthwise convolutions, ReLU6, additions without a ReLU. `convert` with as many steps of fine-tuning as "
        "the residual network, steps that the float one has not had; its learning rate, a fifth of that network's, was "
        "set after a first record on seeds 0 to 4 had failed.",
    ),
    Claim(
        key="better-than-8-bit-peers-small",
        sentence="8-bit networks made this way beat those of TensorFlow and TensorRT (small network, small images).",
        published=None,
        measure=BETTER_THAN_PEERS,
        margin=0.5,
        scale="lesson",
        unit="points",
        note="The peers are not fine-tuned; at 8 bits nothing separates the methods on an easy task.",
    ),
    Claim(
        key="same-everywhere",
        sentence="Integer arithmetic gives the same bits on every platform.",
        published=None,
        measure=number("superresolution", "same_on_backends"),
        margin=1.0,
        scale="lesson",
        unit="of values",
        note="Plain int64, PyTorch's int8 products and ONNX Runtime: share of output values on which all agree.",
    ),
    Claim(
        key="quarter-of-the-memory",
        sentence="The integer network needs a quarter of the memory.",
        published="1/4",
        measure=negative(largest(*(
            quotient(f"superresolution/published_bytes/{size}", "superresolution/published_bytes/float_memory")
            for size in ("integer_file", "integer_memory")
        ))),
        margin=-0.27,
        scale="lesson",
        unit="of float",
        note="VDSR in its published size (random weights), on disk and in memory; minus the larger share.",
    ),
    Claim(
        key="twice-as-fast-cpu",
        sentence="The integer network runs twice as fast (the abstract says so of GPUs; this is a CPU).",
        published="2 times",
        measure=speed_up("VDSR 20x64, 256x256", "cpu"),
        margin=2.0,
        scale="bench",
        unit="times",
        note="VDSR in its published size, one thread, against the fastest of PyTorch (two layouts) and ONNX Runtime.",
    ),
    Claim(
        key="twice-as-fast",
        sentence="The integer network runs twice as fast on modern GPUs.",
        published="2 times",
        measure=speed_up("VDSR 20x64, 1024x1024", "cuda"),
        margin=2.0,
        scale="bench",
        unit="times",
        note="The fused Triton convolution against the faster of PyTorch's two layouts in float32.",
    ),
    Claim(
        key="better-than-8-bit-peers",
        sentence="8-bit ResNets made this way beat the 8-bit ResNets of TensorFlow and TensorRT on ImageNet.",
        published=None,
        measure=BETTER_THAN_PEERS,
        margin=0.0,
        scale="full",
        unit="points",
        note="The peers are rebuilt here and calibrated without training.",
    ),
)  # fmt: skip
