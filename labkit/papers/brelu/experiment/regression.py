"""Super-resolution and artifact reduction, measured: where the paper's claim about bounds can be seen in decibels."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from labkit.papers.brelu.experiment import baselines
from labkit.papers.brelu.experiment.config import Config
from labkit.papers.brelu.experiment.data import INPUT_RATIO, Pictures
from labkit.papers.brelu.experiment.evaluate import mean_psnr, residual_of
from labkit.papers.brelu.experiment.loops import fit_pictures
from labkit.papers.brelu.experiment.model import parameter_count, vdsr, vrcnn
from labkit.papers.brelu.method.bounded_relu import bounded_relus, set_rounding
from labkit.papers.brelu.method.bounds import Statistics
from labkit.papers.brelu.method.integer import IntegerNetwork, to_integer
from labkit.papers.brelu.method.network import Network, calibrate, layer_report, set_bounds
from labkit.papers.brelu.method.snap import InputScale, Scales, snap
from labkit.papers.brelu.method.weights import quantize_layers
from labkit.workbench.runs import Run
from labkit.workbench.training import seed_everything

RULE = "3.5sigma"  # the authors' default


@dataclass(frozen=True, eq=False)
class Study:
    """One regression task: its trained float network, the statistics of its activations, and what they are tested on.

    Every variant is measured on the first test set.
    """

    task: str
    config: Config
    pictures: Pictures
    run: Run
    network: Network
    statistics: Statistics

    @classmethod
    def open(cls, task: str, config: Config, pictures: Pictures, run: Run) -> "Study":
        """With the float network trained here, unless the run directory holds it."""
        seed_everything(config.seed)
        network = vdsr(config.depth, config.width) if task == "superresolution" else vrcnn(config.vrcnn_width)
        network.to(pictures.workers.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps = config.steps if task == "superresolution" else config.artifact_steps
        fit_pictures(network, pictures, config, run.part(f"{task}-float"), steps, config.learning_rate)
        images = (pictures.inputs[: config.calibration_examples] - 128) / 255
        return cls(task, config, pictures, run, network, calibrate(network, list(images.split(32))))

    @property
    def device(self) -> torch.device:
        return self.pictures.workers.device

    def psnr(self, network: nn.Module | IntegerNetwork, test: str = "") -> float:
        """Mean PSNR in dB on one test set, the first one unless it is named."""
        pairs, shave = self.pictures.tests[test or self.pictures.first_test]
        return mean_psnr(pairs, shave, residual_of(network.eval(), self.device))

    def psnr_everywhere(self, network: nn.Module | IntegerNetwork) -> dict[str, float]:
        return {test: self.psnr(network, test) for test in self.pictures.tests}

    def psnr_by_levels(self, network: Network) -> dict[str, float]:
        """The simulation of `network` at each number of levels."""
        table = {}
        for levels in self.config.levels:
            simulated = copy.deepcopy(network)
            snap_pictures(simulated, levels)
            set_rounding(simulated, True, levels)
            table[str(levels)] = self.psnr(simulated)
        return table

    def prepared(self, rule: str, levels: int = 127, factor: float = 1.0) -> Network:
        """A copy with weight steps and the bounds of `rule`, both snapped to what the integers reach; not trained."""
        network = copy.deepcopy(self.network)
        quantize_layers(network)
        set_bounds(network, self.statistics, rule, levels, factor)
        snap_pictures(network, levels)
        return network

    def tuned(self, rule: str, factor: float = 1.0) -> Network:
        """`prepared`, fine-tuned with its weights on the grid and its bounds in place."""
        network = self.prepared(rule, factor=factor)
        self.fine_tune(network, f"tuned-{rule}" + (f"-x{factor:g}" if factor != 1 else ""))
        return network

    def fine_tune(self, network: Network, name: str) -> None:
        """Train `network` in place with the budget of fine-tuning, unless the part `name` of the run holds it."""
        part = self.run.part(f"{self.task}-{name}")
        fit_pictures(network, self.pictures, self.config, part, self.config.tune_steps, self.config.tune_learning_rate)


def snap_pictures(network: Network, levels: int) -> Scales:
    """`snap` for grey levels in and out; moves bounds by less than half a percent."""
    return snap(network, InputScale(INPUT_RATIO), levels)


def measure(task: str, config: Config, pictures: Pictures, run: Run) -> dict[str, Any]:
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
    study = Study.open(task, config, pictures, run)
    pairs, shave = pictures.tests[pictures.first_test]
    bounds_are_studied = task == "superresolution"  # in artifact reduction only the paper's rule against none at all
    rules = tuple(rule for rule in config.rules if bounds_are_studied or rule in ("max", RULE))
    untrained_rules = config.untrained_rules if bounds_are_studied else ()
    result: dict[str, Any] = {
        "test": pictures.first_test,
        "input": mean_psnr(pairs, shave),
        "float": study.psnr(study.network),
        "float_everywhere": study.psnr_everywhere(study.network),
        "parameters": parameter_count(study.network),
        "range": tail_lengths(study),
        "weights": weights_alone(study),
        "activations": activations_alone(study),
        "untrained": {rule: study.psnr_by_levels(study.prepared(rule)) for rule in (*rules, *untrained_rules)},
    }
    longer = copy.deepcopy(study.network)
    study.fine_tune(longer, "longer")
    result["float_longer"] = study.psnr(longer)
    result["tuned"] = {}
    for rule in rules:
        network = study.tuned(rule)
        result["tuned"][rule] = {"no rounding": study.psnr(network), **study.psnr_by_levels(network)}
    result |= integers(study)
    if bounds_are_studied:
        result["published_bytes"] = published_size(study)
        result["map"] = bound_map(study, result)
        result["peers"] = peers(study)
    return part.finish(result)


def weights_alone(study: Study) -> dict[str, float]:
    """Weights at 8, 6, 5, 4 bits, activations in float."""
    table = {}
    for bits in (8, 6, 5, 4):
        network = copy.deepcopy(study.network)
        quantize_layers(network, bits)
        table[str(bits)] = study.psnr(network)
    return table


def activations_alone(study: Study) -> dict[str, dict[str, float]]:
    """Activations at each rule and number of levels, weights in float."""
    table: dict[str, dict[str, float]] = {"max": {}, RULE: {}}
    for rule in table:
        for levels in study.config.levels:
            network = copy.deepcopy(study.network)
            set_bounds(network, study.statistics, rule, levels)
            set_rounding(network, True, levels)
            table[rule][str(levels)] = study.psnr(network)
    return table


def integers(study: Study) -> dict[str, Any]:
    """The paper's fine-tuned network as integers: PSNR at every number of levels; at the first one, much more."""
    psnr: dict[str, float] = {}
    at_first_levels: dict[str, Any] = {}
    for levels in study.config.levels:
        simulated = study.tuned(RULE)
        integer = to_integer(simulated, snap_pictures(simulated, levels)).to(study.device)
        psnr[str(levels)] = study.psnr(integer)
        if not at_first_levels:
            set_rounding(simulated, True, levels)
            at_first_levels = {
                "integer_everywhere": study.psnr_everywhere(integer),
                "integer_difference": largest_difference(study, simulated, integer),
                "same_on_backends": share_of_equal(study, integer),
                "bytes": file_sizes(study, integer),
                "layers": layer_report(simulated, study.statistics),
            }
    return {"integer": psnr, **at_first_levels}


def largest_difference(study: Study, simulated: Network, integer: IntegerNetwork) -> float:
    """Between the residuals of simulation (float biases) and integers, in grey levels, over all test pictures."""
    first, second = residual_of(simulated, study.device), residual_of(integer, study.device)
    pairs, _ = study.pictures.tests[study.pictures.first_test]
    return max(float((first(picture) - second(picture)).abs().max()) for picture, _ in pairs)


def share_of_equal(study: Study, integer: IntegerNetwork) -> float:
    """Share of outputs for which plain int64, PyTorch's int8 and ONNX Runtime (where installed) agree; 1 means all."""
    pairs, _ = study.pictures.tests[study.pictures.first_test]
    codes = integer.to_codes((pairs[0][0][:64, :64] - 128) / INPUT_RATIO)[None, None]
    plain = with_engine(integer, "reference").cpu().forward_integer(codes)
    codes = codes.to(study.device)
    others = [with_engine(integer, engine).forward_integer(codes).cpu() for engine in ("torch", "auto")]
    return float(torch.stack([other == plain for other in others]).all(0).double().mean())


def with_engine(integer: IntegerNetwork, engine: str) -> IntegerNetwork:
    integer = copy.deepcopy(integer)
    integer.engine = engine
    return integer


def file_sizes(study: Study, integer: IntegerNetwork) -> dict[str, int]:
    """Bytes on disk and in memory of the float and of the integer network."""
    if study.run.writes:
        integer.save(study.run.directory / f"{study.task}.int8.safetensors")
    float_file = study.run.directory / f"{study.task}-float" / "weights.safetensors"
    return {
        "float_file": float_file.stat().st_size,
        "integer_file": integer.stored_bytes,
        "float_memory": 4 * parameter_count(study.network),
        "integer_memory": integer.weight_bytes,
    }


def published_size(study: Study) -> dict[str, int]:
    """Bytes of VDSR with 20 layers of 64 channels: 665,921 parameters in float32, and as integers; weights random."""
    seed_everything(study.config.seed)  # a resumed run has drawn other numbers before
    network = vdsr().to(study.device).eval()
    quantize_layers(network)
    image = torch.rand(1, 1, 32, 32, device=study.device) - 0.5
    set_bounds(network, calibrate(network, [image]), RULE)
    integer = to_integer(network, snap_pictures(network, 127))
    return {
        "float_memory": 4 * parameter_count(network),
        "integer_memory": integer.weight_bytes,
        "integer_file": integer.stored_bytes,
    }


def bound_map(study: Study, tables: dict[str, Any]) -> dict[str, Any]:
    """The 3.5-sigma bounds times each factor, at each number of levels, without and with fine-tuning.

    tables: "untrained" and "tuned" by rule; the factor 1 is the rule itself.
    """
    result: dict[str, Any] = {"untrained": {}, "retrained": {}}
    for factor in study.config.factors:
        key = f"{factor:g}"
        if factor == 1:
            result["untrained"][key] = tables["untrained"][RULE]
            result["retrained"][key] = {n: v for n, v in tables["tuned"][RULE].items() if n != "no rounding"}
            continue
        result["untrained"][key] = study.psnr_by_levels(study.prepared(RULE, factor=factor))
        result["retrained"][key] = study.psnr_by_levels(study.tuned(RULE, factor))
    return result


def peers(study: Study) -> dict[str, float]:
    """gemmlowp (255 levels) and TensorRT untrained; DoReFa, LSQ and the paper's bounds with rounding in training."""
    network, statistics, fewest = study.network, study.statistics, study.config.levels[-1]
    asked = study.config.peers
    untrained = baselines.untrained(asked, network, statistics, (127, fewest))
    table = {name: study.psnr(peer) for name, peer in untrained.items()}
    rounded = study.prepared(RULE, fewest)
    set_rounding(rounded, True, fewest)
    trained = {
        "DoReFa": baselines.dorefa(network, statistics, fewest, bits=8),
        "LSQ": baselines.lsq(network, statistics, fewest),
        "bounds with rounding": rounded,
    }
    for name, peer in trained.items():
        if name in asked:
            study.fine_tune(peer, f"peer-{name.replace(' ', '-')}")
            table[f"{name} {fewest}"] = study.psnr(peer)
    return table


def tail_lengths(study: Study) -> dict[str, list[float]]:
    """Per bounded ReLU: the largest value over the 3.5-sigma bound. Long tails are what hurts max calibration."""
    in_order = [study.statistics[f"parts.{name}"] for name in bounded_relus(study.network.parts)]
    return {
        "max over 3.5sigma": [s.bound("max") / s.bound(RULE) for s in in_order],
        "3sigma over 3.5sigma": [s.bound("3sigma") / s.bound(RULE) for s in in_order],
    }
