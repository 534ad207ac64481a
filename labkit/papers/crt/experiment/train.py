"""Everything a config asks for: train the networks that arms need, then track clips, footage and benchmarks with
every arm.
"""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import nn

from labkit import devices, paths
from labkit.data import tracking
from labkit.errors import InputError
from labkit.files import write_atomically
from labkit.papers.crt.experiment import data, learning
from labkit.papers.crt.experiment.config import ARMS, Arm, Config
from labkit.papers.crt.experiment.evaluate import measures, summarise
from labkit.papers.crt.experiment.tracking import Census, hand_made_features, track_together
from labkit.papers.crt.method.cascade import Cascade, CascadeTracker
from labkit.papers.crt.method.features import Features, Learned, ResNetFeatures
from labkit.papers.crt.method.refine import Refiner
from labkit.progress import progress
from labkit.tracking import runner
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers


def train(config: Config, run: Run) -> dict[str, Any]:
    """Tracks with all arms; what the run directory holds already is read.

    Returns:
        {"data": names, "clips": {kind: {"arms": {arm: see `evaluate.summarise`}}}, "footage": {name: {"arms": ...}},
        "benchmarks": {name: {arm: scores}}, "speed": frames per CPU second}; what was not asked for is left out.
    """
    with training.workers(config.device) as workers, devices.one_thread():
        kit = Toolkit(config, workers, run)
        result: dict[str, Any] = {"data": data_name(config)}
        if config.clips and config.kinds:
            result["clips"] = {kind: {"arms": track_clips(kind, kit)} for kind in config.kinds}
        if config.footage and data.footage_is_there():
            result["footage"] = {name: {"arms": track_footage(name, kit)} for name in config.footage}
        if config.benchmarks:
            result["benchmarks"] = {name: track_benchmark(name, kit) for name in config.benchmarks}
        if config.speed_frames:
            result["speed"] = measure_speed(kit)
        return result


def data_name(config: Config) -> str:
    """What a result was measured on, in words; real footage is named in its own part of the result."""
    return (
        " + ".join([*(["generated clips"] if config.clips and config.kinds else []), *config.benchmarks]) or "footage"
    )


# -- trackers for arms ------------------------------------------------------------------------------------------------


class Toolkit:
    """Makes trackers for arms; networks are trained once per run, when an arm first needs one."""

    def __init__(self, config: Config, workers: Workers, run: Run) -> None:
        self.config, self.workers, self.run = config, workers, run
        self._pairs: data.Pairs | None = None
        self._networks: dict[str, Any] = {}

    def cascade(self, arm: Arm) -> Cascade:
        return Cascade(*self._parts(arm))

    def tracker(self, arm: Arm) -> CascadeTracker:
        return CascadeTracker(*self._parts(arm))

    def _parts(self, arm: Arm) -> tuple[Any, ...]:
        refiner, seed = self.refiner() if arm.settings.refine else None, self.config.seed
        return arm.settings, self.features(arm), refiner, self.workers.device, seed, arm.head(seed)

    def features(self, arm: Arm) -> Features:
        if arm.features in ("hand-made", "fine"):
            return hand_made_features(arm)
        if arm.features == "learned":
            return Learned(
                self._trained("features", learning.small_net, learning.ridge_loss, self.config.learned_steps)
            )
        depth = int(arm.features.removeprefix("resnet"))
        if arm.features not in self._networks:
            folder = paths.data_dir() / self.config.weights
            self._networks[arm.features] = ResNetFeatures(depth, folder / f"resnet{depth}.pth", self.workers.device)
        return self._networks[arm.features]

    def refiner(self) -> Refiner:
        predictor = self._trained("overlap", learning.predictor, learning.overlap_loss, self.config.refiner_steps)
        return Refiner(predictor.net)

    def _trained(self, name: str, make: Callable[[int], Any], loss: learning.Loss, steps: int) -> Any:
        """The trained network of that name: kept in the run directory, trained there when it is not there yet."""
        if name in self._networks:
            return self._networks[name]
        config, part = self.config, self.run.part(name)
        net: nn.Module = make(config.seed).to(self.workers.device)
        if (part.directory / "weights.safetensors").exists():
            part.read_weights(net)
        else:
            learning.fit(
                net, loss, self.pairs(), steps, config.batch_size, config.learning_rate, config.seed, self.workers, part
            )
            part.write_weights(net)
        self._networks[name] = net.eval()
        return net

    def pairs(self) -> data.Pairs:
        if self._pairs is None:
            config = self.config
            self._pairs = (
                data.pairs_from(tracking.load(config.train_on), config.pairs, config.seed)
                if config.train_on
                else data.pairs(config.pairs, config.seed)
            )
        return self._pairs


# -- clips and footage ------------------------------------------------------------------------------------------------


def track_clips(kind: str, kit: Toolkit) -> dict[str, Any]:
    """Every arm on the same clips."""
    config, arms = kit.config, {}
    clips: list[tracking.Sequence] = []
    for arm in config.arms:
        part = kit.run.part(f"clips-{kind}-{arm}")
        if part.result is None:
            clips = clips or data.clips(kind, config.clips, config.seed, config.frames)
            part.finish(track_all(arm, clips, kit))
        arms[arm] = part.result
    return arms


def track_footage(name: str, kit: Toolkit) -> dict[str, Any]:
    """Every footage arm on one real sequence."""
    config, arms = kit.config, {}
    for arm in config.footage_arms:
        part = kit.run.part(f"footage-{name}-{arm}")
        if part.result is None:
            part.finish(track_all(arm, [data.footage(name, config.seed, config.footage_frames)], kit))
        arms[arm] = part.result
    return arms


def track_all(arm: str, sequences: list[tracking.Sequence], kit: Toolkit) -> dict[str, Any]:
    """One arm on some sequences, dealt out to the processes; the means and each sequence's numbers."""
    workers, settings = kit.workers, ARMS[arm].settings
    cascade = kit.cascade(ARMS[arm])  # in every process: it may train a network, which all do together
    mine = sequences[workers.rank :: workers.size]
    rows: list[dict[str, Any]] = []
    size = kit.config.together
    for start in progress(range(0, len(mine), size), arm):
        some = mine[start : start + size]
        census = Census(some, settings.kappa, settings.floor)
        tracks = track_together(cascade, some, census)
        rows += [measures(t, s) | census.summary(k) for k, (t, s) in enumerate(zip(tracks, some, strict=True))]
    return summarise(_gathered(rows, len(sequences), workers))


def _gathered(rows: list[dict[str, Any]], count: int, workers: Workers) -> list[dict[str, Any]]:
    """The rows of all processes, in the order of the sequences."""
    if workers.size == 1:
        return rows
    parts: list[Any] = [None] * workers.size
    dist.all_gather_object(parts, rows)
    return [parts[k % workers.size][k // workers.size] for k in range(count)]


# -- benchmarks and speed ---------------------------------------------------------------------------------------------


def track_benchmark(name: str, kit: Toolkit) -> dict[str, Any]:
    """Every arm on a public benchmark, by its own protocol; results of finished sequences are kept and read.

    Processes share the arms out among themselves.
    """
    config, workers = kit.config, kit.workers
    for arm in config.arms:
        kit.cascade(ARMS[arm])  # networks are trained together, before the processes part
    for arm in config.arms[workers.rank :: workers.size]:
        tracked = runner.run_benchmark(
            functools.partial(kit.tracker, ARMS[arm]),
            arm,
            name,
            kit.run.directory / "benchmarks",
            settings={"arm": asdict(ARMS[arm]), "seed": config.seed},
            first=config.benchmark_first or None,
            repetitions=config.repetitions,
        )
        plain = {key: value for key, value in tracked.items() if key not in ("frames_per_cpu_second", "submit")}
        file = kit.run.directory / "benchmarks" / arm / name / "scores.json"
        write_atomically(file, json.dumps(plain).encode())  # not by the run: only the first process writes through it
    workers.barrier()
    return {arm: _scores(kit, arm, name) for arm in config.arms}


def _scores(kit: Toolkit, arm: str, name: str) -> dict[str, Any]:
    return kit.run.read_json(f"benchmarks/{arm}/{name}/scores.json")


def measure_speed(kit: Toolkit) -> dict[str, float]:
    """Frames per CPU second of one tracker at a time, decoding left out: the one number here that no seed repeats."""
    if kit.config.speed_frames < 5:
        raise InputError("a speed takes at least 5 frames to measure")
    sequence = (
        data.footage("TLD_pedestrian2", 0, kit.config.speed_frames)
        if data.footage_is_there()
        else data.clips("plain", 1, 0, kit.config.speed_frames)[0]
    )
    frames = [np.asarray(frame) for frame in sequence.frames]
    speed = {}
    for name in ("stage-1", "cascade"):
        tracker = kit.tracker(ARMS[name])
        tracker.init(frames[0], tuple(map(float, sequence.boxes[0])))  # type: ignore[arg-type]
        start = time.process_time()
        for frame in frames[1:]:
            tracker.update(frame)
        speed[name] = (len(frames) - 1) / (time.process_time() - start)
    return speed
