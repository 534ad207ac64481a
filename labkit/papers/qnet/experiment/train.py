"""Train the float network, then each arm from it: same batches, same budget, one plain loop."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.papers.qnet.experiment import baselines, data
from labkit.papers.qnet.experiment.config import ARMS, Arm, Config
from labkit.papers.qnet.experiment.diagnostics import learning_fraction
from labkit.papers.qnet.experiment.evaluate import accuracy_in_mode, evaluate_hard, gradient_error
from labkit.papers.qnet.experiment.model import build_model
from labkit.papers.qnet.method import temperature
from labkit.papers.qnet.method.activations import quantize_activations
from labkit.papers.qnet.method.levels import level_set
from labkit.papers.qnet.method.soft_quantizer import (
    EXACT,
    Backward,
    SoftQuantizer,
    official_backward,
    other_parameters,
    quantizer_parameters,
    quantizers,
    set_temperature,
    wide_bell,
)
from labkit.papers.qnet.method.temperature import Schedule
from labkit.papers.qnet.method.weights import OfficialClipping, float_weight, quantize_weights
from labkit.progress import progress
from labkit.vision.weights import load_float_weights
from labkit.workbench import training
from labkit.workbench.images import ImageTask
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

HISTOGRAM_BINS = torch.linspace(-1.5, 1.5, 61)  # stored weights as beta * w / largest level, see `weight_histogram`


def train(config: Config, run: Run) -> dict[str, Any]:
    """Every arm of `config`, one after another, each in its own part of the run directory; finished parts are skipped.

    Returns:
        {"data": name, "float": {"hard": %}, arm: {"soft": %, "hard": %, "hard_bn": %, "ptq": %, "ptq_bn": %,
        "gradient_error": see `evaluate.gradient_error`, halfway through the temperatures}, ...}
    """
    with training.workers(config.device) as workers:
        task = data.load(config, workers)
        result: dict[str, Any] = {"data": task.name, "float": train_float(config, task, workers, run)}
        for name in progress(config.arms, "arms"):
            result[name] = train_arm(name, config, task, workers, run)
    return result


def train_float(config: Config, task: ImageTask, workers: Workers, run: Run) -> dict[str, float]:
    """The network that every arm starts from, trained here unless `config.float_weights` names a file."""
    part = run.part("float")
    if part.result is not None:
        return part.result
    training.seed_everything(config.seed)
    model = build_model(config.model, task.classes, task.image_size, task.channels)
    if config.float_weights:
        load_float_weights(model, config.float_weights)
        model.to(workers.device)
    else:
        batches = data.training_batches(task, config)
        optimize(model, batches, workers, config, config.float_steps, config.float_learning_rate, run=part)
    part.write_weights(model)
    return part.finish({"hard": accuracy_in_mode(model, "hard", task, workers)})


def train_arm(name: str, config: Config, task: ImageTask, workers: Workers, run: Run) -> dict[str, float]:
    """Quantise as `ARMS[name]` says and train: accuracy before (post-training quantisation) and after."""
    part = run.part(name)
    if part.result is not None:
        return part.result
    arm = ARMS[name]
    training.seed_everything(config.seed)
    model = start_of(arm, config, task, workers, run).to(memory_format=data.memory_format(config))  # type: ignore[call-overload]
    untrained = evaluate_hard(model, task, workers, config.calibration_examples)

    anneal = annealing(model, *schedules(arm, config, task))
    anneal(0.5)
    mismatch = gradient_error(model, *next(data.training_batches(task, config)))
    clip = OfficialClipping(model).clip if arm.official else None
    batches = data.training_batches(task, config)
    optimize(model, batches, workers, config, config.steps, config.learning_rate, anneal, clip, run=part)
    trained = evaluate_hard(model, task, workers, config.calibration_examples)
    soft = accuracy_in_mode(model, "soft", task, workers)
    part.write_weights(model)
    before = {"ptq": untrained["hard"], "ptq_bn": untrained["hard_bn"], "gradient_error": mismatch}
    return part.finish(before | trained | {"soft": soft})


def schedules(arm: Arm, config: Config, task: ImageTask) -> tuple[Schedule, Schedule]:
    """The temperatures of the arm's weights and activations, from the fraction of its training done."""
    end = arm.weight_temperature or config.weight_temperature
    if arm.official:
        epochs = config.steps / (task.train_examples // config.batch_size)
        weights = temperature.staircase(end, stages=max(1, round(epochs)))
    elif arm.start and not arm.anneal_weights_again:
        weights = temperature.constant(end)
    else:
        weights = temperature.linear(end)
    end = arm.activation_temperature or config.activation_temperature
    return weights, temperature.constant(end) if math.isinf(end) else temperature.linear(end)


def annealing(model: nn.Module, weights: Schedule, activations: Schedule) -> Callable[[float], None]:
    """Sets the temperatures of `model` for the fraction of its training done, in (0, 1]."""

    def anneal(fraction: float) -> None:
        set_temperature(model, weights(fraction), which="weights")
        set_temperature(model, activations(fraction), which="activations")

    return anneal


def optimize(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Any]],
    workers: Workers,
    config: Config,
    steps: int,
    learning_rate: float,
    anneal: Callable[[float], None] = lambda fraction: None,
    clip: Callable[[float], object] | None = None,
    loss_of: Callable[[Any, Any], Tensor] = F.cross_entropy,
    run: Run | None = None,
) -> None:
    """Train `model` in place: the one loop of this room, for its own arms and for `fit`.

    Args:
        batches: endless pairs of inputs and targets, on the workers' device.
        anneal: sets the temperatures for the fraction of the training done, in (0, 1].
        clip: limits the norm of all gradients to the number it is given; None: that of the parameters' gradients.
        loss_of: from the network's outputs and the targets to a scalar.
        run: where checkpoints and metrics go, and where a killed training is taken up again; None: nowhere.
    """
    model.to(memory_format=data.memory_format(config))  # type: ignore[call-overload]
    network = workers.wrap(model.train())  # it notes how parameters lie in memory, and moves them: before the optimiser
    optimizer = torch.optim.SGD(parameter_groups(model, config, learning_rate), lr=learning_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    clip = clip or partial(nn.utils.clip_grad_norm_, list(model.parameters()))
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": batches}
    first = run.resume(state) if run else 0
    if config.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    for step in progress(range(first, steps), run.directory.name if run else "training", total=steps, initial=first):
        anneal((step + 1) / steps)
        inputs, targets = next(batches)
        with torch.autocast(workers.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            loss = loss_of(network(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip(config.clip_norm)
        optimizer.step()
        schedule.step()
        if run and (step % config.log_every == 0 or step == steps - 1):
            run.log(step, loss=workers.mean(loss).item(), **observations(model))
        if run:
            run.save_if_due(step + 1, state)


def parameter_groups(model: nn.Module, config: Config, learning_rate: float) -> list[dict[str, Any]]:
    """Weights with decay; the quantisers' scales without, at a learning rate of their own [official code]."""
    scales = {"lr": learning_rate * config.scale_learning_rate, "weight_decay": 0.0}
    return [
        {"params": other_parameters(model), "weight_decay": config.weight_decay},
        *([{"params": quantizer_parameters(model), **scales}] if quantizer_parameters(model) else []),
    ]


def start_of(arm: Arm, config: Config, task: ImageTask, workers: Workers, run: Run) -> nn.Module:
    """The network an arm starts from: the float one, or that of its stage 1, with the arm's quantisers in it."""
    if arm.start:
        model = load_arm(arm.start, config, task, workers, run)
        set_backward(model, backward_of(arm.weight_bell))
    else:
        model = build_model(config.model, task.classes, task.image_size, task.channels)
        run.part("float").read_weights(model)
        model.to(workers.device)
        if arm.weights:
            method = weight_method(arm.weights)
            backward = official_backward(method) if arm.official else backward_of(arm.weight_bell)
            quantize_weights(model, method, backward=backward, learn_thresholds=arm.learn_thresholds)
    if arm.activations:
        set_temperature(model, arm.weight_temperature or config.weight_temperature, which="weights")
        sample = [next(task.calibration_inputs(500, 500))]
        backward = backward_of(arm.activation_bell)
        quantize_activations(model, activation_method(arm.activations), sample, backward=backward, seed=config.seed)
    return model


def load_arm(name: str, config: Config, task: ImageTask, workers: Workers, run: Run) -> nn.Module:
    """The trained network of arm `name`, from its part of the run directory."""
    model = start_of(ARMS[name], config, task, workers, run)
    run.part(name).read_weights(model)
    return model.to(workers.device)


def weight_method(name: str) -> Any:
    """What `quantize_weights` takes for an arm's weights: the paper's levels, or a straight-through rival."""
    rivals = {"BWN": baselines.binary_weights, "TWN": baselines.ternary_weights}
    if name in rivals:
        return rivals[name]
    family, _, bits = name.partition("-W")
    makers = {"DoReFa": baselines.dorefa_weights, "LSQ": baselines.lsq_weights}
    return makers[family](int(bits)) if family in makers else level_set(name)


def activation_method(name: str) -> Any:
    """What `quantize_activations` takes for an arm's activations."""
    if name == "XNOR":
        return baselines.xnor_activations
    family, _, bits = name.partition("-A")
    makers = {
        "DoReFa": baselines.dorefa_activations,
        "LSQ": baselines.lsq_activations,
        "HWGQ": baselines.hwgq_activations,
    }
    return makers[family](int(bits)) if family in makers else level_set(name)


def backward_of(bell: float | None) -> Backward:
    return EXACT if bell is None else wide_bell(bell)


def set_backward(model: nn.Module, backward: Backward) -> None:
    """Give the weight quantisers another backward pass; for stage 2."""
    for quantizer in quantizers(model, "weights").values():
        if isinstance(quantizer, SoftQuantizer):
            quantizer.backward = backward


def observations(model: nn.Module) -> dict[str, float | list[float]]:
    """What the notebook plots while the temperature rises, for the first weight quantiser of the paper's kind."""
    for name, quantizer in quantizers(model, "weights").items():
        if isinstance(quantizer, SoftQuantizer):
            stored = float_weight(model, name).detach()
            scaled = (quantizer.beta * stored / quantizer.levels.max()).detach().cpu().flatten()
            return {
                "temperature": float(quantizer.temperature),
                "still_learning": learning_fraction(quantizer, stored),
                "histogram": torch.histogram(scaled, HISTOGRAM_BINS).hist.tolist(),
            }
    return {}
