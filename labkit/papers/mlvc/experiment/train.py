"""Everything a config asks for: the small codec's arms, real clips, the paper's networks, whole videos."""

import copy
import functools
from typing import Any

import torch
import torch.distributed as dist

from labkit import devices
from labkit.papers.mlvc.experiment import comparison, data, evaluate, learning
from labkit.papers.mlvc.experiment.combiners import new_combiner
from labkit.papers.mlvc.experiment.comparison import ARMS, Bench
from labkit.papers.mlvc.experiment.config import Config
from labkit.papers.mlvc.experiment.schedule import SCHEDULES, for_another_rate
from labkit.papers.mlvc.experiment.video import Video
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network, Settings
from labkit.progress import progress, side_by_side
from labkit.seeds import derive
from labkit.workbench import training
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

START = 51


def train(config: Config, run: Run) -> dict[str, Any]:
    """What is in the run directory already is read.

    Returns:
        {"data": names, "scenes": {family: {"arms": {arm: see `comparison.rows`}}}, "footage": {clip: {arm: ...}},
        "coded": {set: {"videos": {name: {codec: points, "predictors": ...}}}}}; what was not asked for is left out.
    """
    with training.workers(config.device) as workers, devices.one_thread():
        result: dict[str, Any] = {"data": data_name(config)}
        if config.families:
            result["scenes"] = {name: compare_family(name, config, run) for name in progress(config.families, "scenes")}
        if config.footage:
            result["footage"] = compare_clips(config, run)
        networks = {arm: train_networks(arm, config, workers, run) for arm in config.networks}
        if config.evaluate_on:
            result["coded"] = code_sets(networks, config, workers, run)
        return result


def data_name(config: Config) -> str:
    """What a result was measured on, in words."""
    generated = config.families or (config.networks and config.train_on == "scenes") or "scenes" in config.evaluate_on
    names = ["generated scenes"] if generated else []
    names += ["real clips"] if config.footage or "video" in config.evaluate_on else []
    names += ["vimeo90k"] if config.networks and config.train_on == "vimeo90k" else []
    return " + ".join([*names, *(name for name in config.evaluate_on if name not in ("scenes", "video"))])


# -- the small codec --------------------------------------------------------------------------------------------------


def compare_family(name: str, config: Config, run: Run) -> dict[str, Any]:
    """Every arm on the scenes of one family, two at a time: they share nothing that changes."""
    parts = {key: run.part(f"scenes-{name}-{key}") for key in config.arms}
    missing = [key for key, part in parts.items() if part.result is None]
    if missing:
        bench = Bench(name, config.small_codec)
        _ = bench.plain  # before the threads part: all of them read it
        nets = {key: new_combiner(config.seed, config.combiner_channels) for key in missing}

        def measure(key: str) -> None:
            arm = ARMS[key]
            parts[key].finish(bench.measured(arm, bench.combiner(arm, nets[key], parts[key])))

        side_by_side([functools.partial(measure, key) for key in missing], 2, name)
    return {"arms": {key: part.result for key, part in parts.items()}}


def compare_clips(config: Config, run: Run) -> Any:
    part = run.part("footage")
    if part.result is None:
        arms = {key: ARMS[key] for key in config.arms if ARMS[key].combiner != "linear"}
        part.finish(comparison.compare_footage(config.footage, config.footage_frames, arms, config.small_codec, part))
    return part.result


# -- the paper's networks ---------------------------------------------------------------------------------------------


def new_network(config: Config, arm: str) -> Network:
    """Its random start, the same for every arm of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, START))
        refs = 1 if arm == "single" else 4
        return Network(Settings(width=config.width, motion=config.motion, n_refs=refs))


def train_networks(arm: str, config: Config, workers: Workers, run: Run) -> dict[float, Network]:
    """A network for every lambda: the first by the whole schedule, the others from it."""
    clips = data.examples(config.train_on, config.clips, config.unroll + 1, config.crop, config.seed)
    schedule = SCHEDULES[arm]
    first, *others = config.lambdas
    networks = {first: new_network(config, arm)}
    learning.fit(networks[first], schedule, first, clips, config, workers, _part(run, arm, first))
    for lam in others:
        networks[lam] = copy.deepcopy(networks[first])
        learning.fit(networks[lam], for_another_rate(schedule), lam, clips, config, workers, _part(run, arm, lam))
    return networks


def _part(run: Run, arm: str, lam: float) -> Run:
    return run.part(f"{arm}-lambda-{lam:g}")


# -- whole videos -----------------------------------------------------------------------------------------------------


def code_sets(
    networks: dict[str, dict[float, Network]], config: Config, workers: Workers, run: Run
) -> dict[str, dict[str, Any]]:
    """Every video of every set, by all networks and anchors. Videos are dealt out to the processes."""
    codecs = {
        arm: Codec({evaluate.quality_of(lam): net for lam, net in nets.items()}) for arm, nets in networks.items()
    }
    result = {}
    for name in config.evaluate_on:
        if name == "video" and not data.footage_is_there():
            continue
        videos = data.coded_set(name, config.evaluate_frames, config.seed, config.evaluate_scenes)
        mine: dict[str, Any] = {}
        for number, video in enumerate(progress(videos, name)):
            if number % workers.size == workers.rank:
                part = run.private_part(f"coded-{name}-{video.name}")
                mine[video.name] = part.result or part.finish(code_one(video, networks, codecs, config))
        result[name] = {"videos": _gathered(mine, workers)}
    return result


def code_one(
    video: Video, networks: dict[str, dict[float, Network]], codecs: dict[str, Codec], config: Config
) -> dict[str, Any]:
    """One video by everybody."""
    curves: dict[str, Any] = {
        arm: evaluate.code_video(nets, codecs[arm], video, config.gop, config.fit, config.bits)
        for arm, nets in networks.items()
    }
    curves |= {anchor: evaluate.code_anchor(anchor, video, config.gop) for anchor in config.anchors}
    return curves | {"predictors": evaluate.predictors(video)}


def _gathered(mine: dict[str, Any], workers: Workers) -> dict[str, Any]:
    """The videos of all processes, in alphabetical order."""
    everybody: list[Any] = [mine]
    if workers.size > 1:
        everybody = [None] * workers.size
        dist.all_gather_object(everybody, mine)
    return dict(sorted((name, found) for part in everybody for name, found in part.items()))
