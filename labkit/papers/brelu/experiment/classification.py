"""Classification, measured: a residual network with additions, and where weights hurt more than activations."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.papers.brelu.experiment import baselines
from labkit.papers.brelu.experiment.config import Config
from labkit.papers.brelu.experiment.data import ratio_of
from labkit.papers.brelu.experiment.loops import fit_classes
from labkit.papers.brelu.experiment.model import MobileNet, classifier, parameter_count
from labkit.papers.brelu.method.bounded_relu import set_rounding
from labkit.papers.brelu.method.bounds import Statistics
from labkit.papers.brelu.method.convert import convert
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.network import Network, calibrate, set_bounds
from labkit.papers.brelu.method.snap import InputScale, Scales, snap
from labkit.papers.brelu.method.trace import trace
from labkit.papers.brelu.method.weights import quantize_layers
from labkit.vision.weights import load_float_weights
from labkit.workbench.images import ImageTask, accuracy
from labkit.workbench.runs import Run
from labkit.workbench.training import seed_everything

MOBILENET_TUNE_LEARNING_RATE = 1e-3  # at five times as much its training loss can triple: batch norm is frozen


def measure(config: Config, task: ImageTask, run: Run) -> dict[str, Any]:
    """Accuracy in percent of the float network and of everything that is done to it.

    Returns:
        "float"; "weights" and "weights_per_channel" by bits, "activations" by rule and levels: one of them quantised
        at a time; "tuned" by rule and levels; "integer" and "integer_agreement" (share of images with the simulation's
        answer) by rule; "peers", untrained; "shortcuts": the (mul, shift) of the additions.
    """
    part, options = run.part("classification-tables"), config.classification
    if part.result is not None:
        return part.result
    network = float_network(config, task, run)
    share = options.batch_size // task.workers.size
    statistics = calibrate(network, list(task.calibration_inputs(config.calibration_examples, share)))

    def percent(candidate: nn.Module | IntegerNetwork) -> float:
        return accuracy(scores_of(candidate, task), task.test_batches(), task.workers)

    result: dict[str, Any] = {"float": percent(network), "parameters": parameter_count(network)}
    for key, per_channel in (("weights", False), ("weights_per_channel", True)):
        result[key] = {}
        for bits in (8, 4, 3):
            quantized = copy.deepcopy(network)
            quantize_layers(quantized, bits, per_channel)
            result[key][str(bits)] = percent(quantized)
    result["activations"] = {
        rule: {str(levels): percent(rounded(network, statistics, rule, levels)) for levels in options.levels}
        for rule in options.rules
    }
    result |= {"tuned": {}, "integer": {}, "integer_agreement": {}}
    for rule in options.tuned_rules:
        tuned = prepared(network, statistics, rule, task)
        tuning = run.part(f"classification-tuned-{rule}")
        fit_classes(tuned, task, config, tuning, options.tune_steps, options.tune_learning_rate)
        result["tuned"][rule] = {"no rounding": percent(tuned)}
        for levels in options.levels:
            set_rounding(tuned, True, levels)
            result["tuned"][rule][str(levels)] = percent(tuned)
        scales = snap_classes(tuned, task)
        set_rounding(tuned, True, 127)
        integer = to_integer(tuned, scales).to(task.workers.device)
        result["integer"][rule] = percent(integer)
        if run.writes and rule == "3.5sigma":
            integer.save(run.directory / "classification.int8.safetensors")
        result["integer_agreement"][rule] = agreement(tuned, integer, task)
        result["shortcuts"] = {name: list(shortcut) for name, (_, shortcut) in scales.factors.items()}
    peers = baselines.untrained(config.peers, network, statistics, (127,))
    result["peers"] = {name: percent(peer) for name, peer in peers.items()}
    return part.finish(result)


def measure_mobilenet(config: Config, task: ImageTask, run: Run) -> dict[str, float]:
    """A MobileNet, trained and handed to `convert` with its own loop, as a reader would bring it.

    Returns:
        "float" and "integer": accuracy in percent.
    """
    options = config.classification
    seed_everything(config.seed)
    model = MobileNet(task.classes, task.channels).to(task.workers.device)
    fit_classes(model, task, config, run.part("mobilenet-float"), options.steps, options.learning_rate)

    def finetune(network: Network) -> None:
        part = run.part("mobilenet-tuned")
        fit_classes(network, task, config, part, options.tune_steps, MOBILENET_TUNE_LEARNING_RATE)

    batches = task.calibration_inputs(config.calibration_examples, options.batch_size // task.workers.size)
    integer = convert(model, list(batches), finetune=finetune)
    if run.writes:
        integer.save(run.directory / "mobilenet.int8.safetensors")
    return {
        "float": accuracy(scores_of(model, task), task.test_batches(), task.workers),
        "integer": accuracy(scores_of(integer, task), task.test_batches(), task.workers),
    }


def scores_of(network: nn.Module | IntegerNetwork, task: ImageTask) -> Callable[[Tensor], Tensor]:
    """From pixels to scores, whatever the network computes in."""
    return lambda pixels: network.eval()(task.to_input(pixels))


def agreement(first: nn.Module | IntegerNetwork, second: nn.Module | IntegerNetwork, task: ImageTask) -> float:
    """Share of test images for which two networks choose the same class, in percent."""
    scores = scores_of(second, task)
    answers = ((pixels, scores(pixels).flatten(1).argmax(1)) for pixels, _ in task.test_batches())
    return accuracy(scores_of(first, task), answers, task.workers)


def float_network(config: Config, task: ImageTask, run: Run) -> Network:
    """The float classifier, trained here unless the config names a file of weights; batch norm frozen from here on."""
    options = config.classification
    seed_everything(config.seed)
    model = classifier(options.network, task.classes, task.channels, task.image_size)
    if options.float_weights:
        load_float_weights(model, options.float_weights)
    else:
        fit_classes(model, task, config, run.part("classification-float"), options.steps, options.learning_rate)
    network = trace(model).to(task.workers.device).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def rounded(network: Network, statistics: Statistics, rule: str, levels: int) -> Network:
    """A copy whose activations alone are quantised."""
    network = copy.deepcopy(network)
    set_bounds(network, statistics, rule, levels)
    set_rounding(network, True, levels)
    return network


def prepared(network: Network, statistics: Statistics, rule: str, task: ImageTask) -> Network:
    """A copy with weights on their 8-bit grid and the bounds of `rule`, both snapped; not trained."""
    network = copy.deepcopy(network)
    quantize_layers(network)
    set_bounds(network, statistics, rule)
    snap_classes(network, task)
    return network


def snap_classes(network: Network, task: ImageTask) -> Scales:
    """`snap` at 127 levels for images of the task's size; rounding is switched off."""
    set_rounding(network, False, 127)
    return snap(network, InputScale(ratio_of(task)))
