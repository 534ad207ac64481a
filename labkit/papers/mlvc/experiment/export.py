"""A finished run's networks as a model file of the codec: what `labkit codec` and `load` read.

The small networks that come with labkit, `method/default.safetensors`, are what these commands write:

    labkit train mlvc --scale gpu --device cpu --run-dir RUN -p families "" -p evaluate_on "" -p anchors "" \\
        -p networks short -p lambdas 40,16 -p width 0.125 -p motion dis -p clips 384 -p crop 64 -p batch_size 3 \\
        -p unroll 8 -p back_through 4 -p unit_steps 140 -p learning_rate 0.001 -p joint_rate 0.001 -p prior_speed 30
    labkit export RUN DIR --arm short

That is 13 minutes of one CPU: 700 steps for quality 2, 280 more from there for quality 4. The training adds floats, so
another processor gives other last digits, and the file of one is not that of another (these: AVX-512, one thread).

Measured on the eight generated clips of 128 x 128 that `data.coded_set("scenes", 13, 0, 8, 128)` gives, none of them
trained on, an I-frame every 12 frames, at quality 2: 34.8 dB; x265 (veryfast, low delay) with no more bytes 38.5 dB,
ahead by .7 to 5.8 dB. Along one group the mean falls from 36.8 dB (I) to 33.4 dB (twelfth frame).
At quality 4 it is 35.7 dB against 39.3. On a real clip (256 x 192 of city) x265 is ahead by 6.0 and 5.7 dB, and the
first P-frame already loses 6 and 8 dB.
"""

from pathlib import Path

import torch

from labkit.errors import InputError
from labkit.papers.mlvc.experiment.config import Config
from labkit.papers.mlvc.experiment.evaluate import quality_of
from labkit.papers.mlvc.experiment.schedule import SCHEDULES, for_another_rate, stages_for
from labkit.papers.mlvc.experiment.train import new_network
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network
from labkit.workbench.runs import Run

FILE = "model.safetensors"


def arms(config: Config, run: Run) -> tuple[str, ...]:
    """The trainings of a run, the paper's own first."""
    return tuple(sorted(config.networks, key=list(SCHEDULES).index))


def export(config: Config, run: Run, arm: str, directory: Path) -> None:
    """Write `directory`/model.safetensors: the networks of all lambdas, weights rounded to 16 bits, and their tables.

    Tables and integers of the receiver are made from the rounded weights, so that the file is what decodes.

    Raises:
        InputError: the run trained no such networks.
        RunError: they are not trained yet.
    """
    if arm not in arms(config, run):
        raise InputError(f"there is no arm '{arm}' to export; there are {', '.join(arms(config, run)) or 'none'}.")
    networks = {quality_of(lam): rounded(trained(config, run, arm, lam)) for lam in config.lambdas}
    Codec(networks).save(directory / FILE)


def trained(config: Config, run: Run, arm: str, lam: float) -> Network:
    """The network of one lambda, as the run left it."""
    network = new_network(config, arm)
    schedule = SCHEDULES[arm]
    last = stages_for(network, schedule if lam == config.lambdas[0] else for_another_rate(schedule))[-1]
    last.use(network)
    run.part(f"{arm}-lambda-{lam:g}").part(last.name.replace(" ", "-")).read_weights(network)
    return network.requires_grad_(True).eval()


@torch.no_grad()
def rounded(network: Network) -> Network:
    """Weights to what 16 bits hold, in place; the priors' medians follow."""
    for parameter in network.parameters():
        parameter.copy_(parameter.half().float())
    return network.eval()


def load(path: str | Path) -> Codec:
    """The codec of a model file, or of the folder that `labkit export` wrote.

    Raises TensorFileError (an InputError): no such file, a damaged one, or one of another kind.
    """
    return Codec.load(Path(path) / FILE if Path(path).is_dir() else Path(path))
