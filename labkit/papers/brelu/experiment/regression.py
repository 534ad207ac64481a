"""Super-resolution and artifact reduction, measured: where the paper's claim about bounds can be seen in decibels."""

import copy
from typing import Any

import torch
from torch import nn

from labkit.papers.brelu.experiment import baselines
from labkit.papers.brelu.experiment.config import Config
from labkit.papers.brelu.experiment.data import INPUT_RATIO, Pictures
from labkit.papers.brelu.experiment.evaluate import float_residual, integer_residual, mean_psnr
from labkit.papers.brelu.experiment.loops import fit_pictures
from labkit.papers.brelu.experiment.model import parameter_count, vdsr, vrcnn
from labkit.papers.brelu.method.bounded_relu import bounded_relus, set_rounding
from labkit.papers.brelu.method.bounds import ActivationStatistics
from labkit.papers.brelu.method.integer import IntegerNetwork, to_codes, to_integer
from labkit.papers.brelu.method.network import Network, calibrate, layer_report, set_bounds
from labkit.papers.brelu.method.snap import Scales, snap
from labkit.papers.brelu.method.weights import layers, quantize_layers
from labkit.workbench.benchmark import compare
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers, seed_everything

RULE = "3.5sigma"  # the authors' default
Statistics = dict[str, ActivationStatistics]


def build(task: str, config: Config) -> Network:
    return vdsr(config.depth, config.width) if task == "superresolution" else vrcnn(config.vrcnn_width)


class Bench:
    """The test pictures, and the first set among them, on which every variant is measured."""

    def __init__(self, pictures: Pictures, workers: Workers) -> None:
        self.pictures, self.device = pictures, workers.device
        self.first = next(iter(pictures.tests))

    def psnr(self, network: nn.Module | IntegerNetwork, name: str = "") -> float:
        pairs, shave = self.pictures.tests[name or self.first]
        integer = isinstance(network, IntegerNetwork)
        make = integer_residual if integer else float_residual
        return mean_psnr(pairs, shave, make(network.eval(), self.device))  # type: ignore[arg-type]

    def everywhere(self, network: nn.Module | IntegerNetwork) -> dict[str, float]:
        return {name: self.psnr(network, name) for name in self.pictures.tests}


def measure(task: str, config: Config, pictures: Pictures, workers: Workers, run: Run) -> dict[str, Any]:
    """PSNR in dB of the float network and of everything that is done to it, on the first test set.

    Returns:
        "input", "float", "float_longer": references. "weights", "activations": one of them quantised at a time, by bits
        and by rule and levels. "untrained", "tuned", "integer": by rule and levels; "no rounding" is the network as
        trained. "map": "untrained" and "retrained" by factor on the 3.5-sigma bound and levels. "peers". "bytes".
        "integer_difference": largest difference in grey levels between integers and simulation.
    """
    part = run.part(f"{task}-tables")
    if part.result is not None:
        return part.result
    network, bench = float_network(task, config, pictures, workers, run), Bench(pictures, workers)
    statistics = statistics_of(network, pictures, config)
    pairs, shave = pictures.tests[bench.first]
    result: dict[str, Any] = {
        "test": bench.first,
        "input": mean_psnr(pairs, shave),
        "float": bench.psnr(network),
        "float_everywhere": bench.everywhere(network),
        "parameters": parameter_count(network),
        "range": tail_lengths(network, statistics),
    }
    result |= one_at_a_time(network, statistics, config, bench)
    result["untrained"] = {
        rule: by_levels(prepared(network, statistics, rule)[0], config, bench)
        for rule in (*rules_of(task, config), *(config.untrained_rules if task == "superresolution" else ()))
    }
    longer = copy.deepcopy(network)
    fit_pictures(
        longer, pictures, workers, config, run.part(f"{task}-longer"), config.tune_steps, config.tune_learning_rate
    )
    result["float_longer"] = bench.psnr(longer)
    result |= tuned_rules(task, config, pictures, workers, run, network, statistics, bench)
    if task == "superresolution":
        result["published_bytes"] = published_size(workers)
        result["speed"] = speed(workers)
        result["map"] = bound_map(task, config, pictures, workers, run, network, statistics, bench, result)
    if config.peers and task == "superresolution":
        result["peers"] = peers(task, config, pictures, workers, run, network, statistics, bench)
    return part.finish(result)


def rules_of(task: str, config: Config) -> tuple[str, ...]:
    """All rules where the bound is studied; for artifact reduction only the paper's, and none at all."""
    return tuple(rule for rule in config.rules if task == "superresolution" or rule in ("max", RULE))


def float_network(task: str, config: Config, pictures: Pictures, workers: Workers, run: Run) -> Network:
    """The float network, trained here unless the run directory holds it."""
    part = run.part(f"{task}-float")
    seed_everything(config.seed)
    network = build(task, config).to(workers.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if part.result is None:
        steps = config.steps if task == "superresolution" else config.artifact_steps
        fit_pictures(network, pictures, workers, config, part, steps, config.learning_rate)
        part.write_weights(network)
        part.finish({"steps": steps})
    part.read_weights(network)
    return network.eval()


def statistics_of(network: Network, pictures: Pictures, config: Config) -> Statistics:
    """From training patches, in batches of 32."""
    images = (pictures.inputs[: config.calibration_examples] - 128) / 255
    return calibrate(network, list(images.split(32)))


def prepared(
    network: Network, statistics: Statistics, rule: str, levels: int = 127, factor: float = 1.0, bits: int = 8
) -> tuple[Network, Scales]:
    """A copy with weight steps and the bounds of `rule`, both snapped to what the integers reach; not trained."""
    network = copy.deepcopy(network)
    quantize_layers(network, bits)
    set_bounds(network, statistics, rule, levels, factor)
    return network, rescaled(network, levels)


def rescaled(network: Network, levels: int) -> Scales:
    """`snap` for these levels; moves bounds by less than half a percent."""
    device = next(network.parameters()).device
    return snap(network, INPUT_RATIO, torch.zeros(1, 1, 16, 16, device=device), levels=levels, output_units=INPUT_RATIO)


def by_levels(network: Network, config: Config, bench: Bench) -> dict[str, float]:
    """The simulation at each number of levels."""
    found = {}
    for levels in config.levels:
        copied = copy.deepcopy(network)
        rescaled(copied, levels)
        set_rounding(copied, True, levels)
        found[str(levels)] = bench.psnr(copied)
    return found


def one_at_a_time(network: Network, statistics: Statistics, config: Config, bench: Bench) -> dict[str, Any]:
    """Weights alone at 8, 6, 5, 4 bits; activations alone, at each rule and number of levels."""
    weights = {}
    for bits in (8, 6, 5, 4):
        copied = copy.deepcopy(network)
        quantize_layers(copied, bits)
        weights[str(bits)] = bench.psnr(copied)
    activations: dict[str, dict[str, float]] = {}
    for rule in ("max", RULE):
        activations[rule] = {}
        for levels in config.levels:
            copied = copy.deepcopy(network)
            set_bounds(copied, statistics, rule, levels)
            set_rounding(copied, True, levels)
            activations[rule][str(levels)] = bench.psnr(copied)
    return {"weights": weights, "activations": activations}


def tuned(
    task: str, config: Config, pictures: Pictures, workers: Workers, run: Run,
    network: Network, statistics: Statistics, rule: str, factor: float = 1.0,
) -> Network:  # fmt: skip
    """Fine-tuned with its weights on the grid and its bounds in place, or read from the run directory."""
    part = run.part(f"{task}-tuned-{rule}" + (f"-x{factor:g}" if factor != 1 else ""))
    copied, _ = prepared(network, statistics, rule, factor=factor)
    if part.result is None:
        fit_pictures(copied, pictures, workers, config, part, config.tune_steps, config.tune_learning_rate)
        part.write_weights(copied)
        part.finish({"steps": config.tune_steps})
    part.read_weights(copied)
    return copied.eval()


def tuned_rules(
    task: str, config: Config, pictures: Pictures, workers: Workers, run: Run,
    network: Network, statistics: Statistics, bench: Bench,
) -> dict[str, Any]:  # fmt: skip
    """Every rule after fine-tuning; the paper's own also as integers, at every number of levels, with its file."""
    found: dict[str, Any] = {"tuned": {}, "integer": {}}
    for rule in rules_of(task, config):
        copied = tuned(task, config, pictures, workers, run, network, statistics, rule)
        found["tuned"][rule] = {"no rounding": bench.psnr(copied), **by_levels(copied, config, bench)}
        if rule != RULE:
            continue
        for levels in config.levels:
            deployed = copy.deepcopy(copied)
            integer = to_integer(deployed, rescaled(deployed, levels)).to(workers.device)
            found["integer"][str(levels)] = bench.psnr(integer)
            if levels == config.levels[0]:
                set_rounding(deployed, True, levels)
                found["integer_everywhere"] = bench.everywhere(integer)
                found["integer_difference"] = largest_difference(deployed, integer, bench)
                found["same_on_backends"] = share_of_equal(integer, bench)
                found["bytes"] = file_sizes(task, network, integer, run)
                found["layers"] = layer_report(deployed, statistics)
    return found


def largest_difference(simulated: Network, integer: IntegerNetwork, bench: Bench) -> float:
    """Between the residuals of simulation (float biases) and integers, in grey levels, over all test pictures."""
    first, second = float_residual(simulated, bench.device), integer_residual(integer, bench.device)
    pairs, _ = bench.pictures.tests[bench.first]
    return max(float((first(picture) - second(picture)).abs().max()) for picture, _ in pairs)


def share_of_equal(integer: IntegerNetwork, bench: Bench) -> float:
    """Share of output values that are the same from plain int64 convolutions and from the fast ones; 1 means all."""
    pairs, _ = bench.pictures.tests[bench.first]
    codes = to_codes(pairs[0][0][:64, :64])[None, None].to(bench.device)
    fast = integer(codes).cpu()
    plain = copy.deepcopy(integer).cpu()
    plain.reference = True
    return float((plain(codes.cpu()) == fast).double().mean())


def file_sizes(task: str, network: Network, integer: IntegerNetwork, run: Run) -> dict[str, int]:
    """Bytes on disk and in memory of the float and of the integer network."""
    path = run.directory / f"{task}.int8.safetensors"
    if run.writes:
        integer.save(path)
    float_file = run.directory / f"{task}-float" / "weights.safetensors"
    return {
        "float_file": float_file.stat().st_size,
        "integer_file": integer.stored_bytes,
        "float_memory": 4 * parameter_count(network),
        "integer_memory": integer.weight_bytes,
    }


def published_vdsr(device: torch.device, depth: int = 20) -> tuple[Network, IntegerNetwork]:
    """VDSR in its published size with random weights, float and integer: size and speed do not depend on training."""
    network = vdsr(depth, 64).to(device).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quantize_layers(network)
    image = torch.rand(1, 1, 32, 32, device=device) - 0.5
    set_bounds(network, calibrate(network, [image]), RULE)
    integer = to_integer(network, rescaled(network, 127)).to(device)
    for layer in layers(network).values():
        layer.step = 0.0  # plain float weights from here on
    return network, integer


def published_size(workers: Workers) -> dict[str, int]:
    """Bytes of VDSR with 20 layers of 64 channels: 665,921 parameters in float32, and as integers."""
    network, integer = published_vdsr(workers.device)
    return {
        "float_memory": 4 * parameter_count(network),
        "integer_memory": integer.weight_bytes,
        "integer_file": integer.stored_bytes,
    }


def speed(workers: Workers, side: int = 96, depth: int = 6) -> dict[str, float]:
    """Milliseconds for one picture through layers of 64 channels: the faster of two float layouts, and the integers."""
    network, integer = published_vdsr(workers.device, depth)
    codes = torch.zeros(1, 1, side, side, dtype=torch.int8, device=workers.device)
    picture = codes.float()
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.no_grad():
        best = compare(
            {
                "integer": lambda: integer(codes),
                "channels last": lambda: network(picture.contiguous(memory_format=torch.channels_last)),
                "channels first": lambda: plain(picture),
            },
            workers.device,
            rounds=10,
        )
    return {"integer_ms": best["integer"], "float_ms": min(best["channels last"], best["channels first"])}


def bound_map(
    task: str, config: Config, pictures: Pictures, workers: Workers, run: Run,
    network: Network, statistics: Statistics, bench: Bench, tables: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The 3.5-sigma bounds times each factor, at each number of levels, without and with fine-tuning.

    tables: "untrained" and "tuned" by rule; the factor 1 is the rule itself.
    """
    found: dict[str, Any] = {"untrained": {}, "retrained": {}}
    for factor in config.factors:
        key = f"{factor:g}"
        if factor == 1:
            found["untrained"][key] = tables["untrained"][RULE]
            found["retrained"][key] = {n: v for n, v in tables["tuned"][RULE].items() if n != "no rounding"}
            continue
        found["untrained"][key] = by_levels(prepared(network, statistics, RULE, factor=factor)[0], config, bench)
        copied = tuned(task, config, pictures, workers, run, network, statistics, RULE, factor)
        found["retrained"][key] = by_levels(copied, config, bench)
    return found


def peers(
    task: str, config: Config, pictures: Pictures, workers: Workers, run: Run,
    network: Network, statistics: Statistics, bench: Bench,
) -> dict[str, float]:  # fmt: skip
    """gemmlowp (255 levels) and TensorRT untrained; DoReFa, LSQ and the paper's bounds with rounding in training."""
    fewest = config.levels[-1]
    found = {
        "gemmlowp 255": bench.psnr(baselines.gemmlowp(network, statistics)),
        "TensorRT 127": bench.psnr(baselines.tensorrt(network, statistics)),
        f"TensorRT {fewest}": bench.psnr(baselines.tensorrt(network, statistics, fewest)),
    }
    rounded, _ = prepared(network, statistics, RULE, fewest)
    set_rounding(rounded, True, fewest)
    trained = {
        "DoReFa": baselines.dorefa(network, statistics, fewest, bits=8),
        "LSQ": baselines.lsq(network, statistics, fewest),
        "bounds with rounding": rounded,
    }
    for name, peer in trained.items():
        part = run.part(f"{task}-peer-{name.replace(' ', '-')}")
        fit_pictures(peer, pictures, workers, config, part, config.tune_steps, config.tune_learning_rate)
        found[f"{name} {fewest}"] = bench.psnr(peer)
    return found


def tail_lengths(network: Network, statistics: Statistics) -> dict[str, list[float]]:
    """Per bounded ReLU: the largest value seen over the 3.5-sigma bound. Long tails are what hurts max calibration."""
    seen = [statistics[f"parts.{name}"] for name in bounded_relus(network.parts)]
    return {"max over 3.5sigma": [s.bound("max") / s.bound(RULE) for s in seen],
            "3sigma over 3.5sigma": [s.bound("3sigma") / s.bound(RULE) for s in seen]}  # fmt: skip
