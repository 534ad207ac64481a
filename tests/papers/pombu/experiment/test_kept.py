"""What runs keep, read back: the same tensors, or an error that says which file; and what can be exported from them."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import tensor_files
from labkit.errors import InputError, LabkitError, RunError
from labkit.papers.pombu import load
from labkit.papers.pombu.experiment import kept
from labkit.papers.pombu.experiment.algorithms import learner_for, run_loop
from labkit.papers.pombu.experiment.config import CONFIGS
from labkit.papers.pombu.experiment.export import arms, export
from labkit.papers.pombu.experiment.offline import History, Improved, Prepared, TimedValue
from labkit.papers.pombu.experiment.zone import Zone
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.tensor_files import TensorFileError
from labkit.workbench.runs import Run

TASK, ARMS, UPDATES = Zone(), ("alpha-0", "alpha-2"), (0, 5, 7)
CONFIG = CONFIGS["smoke"].override(studies=["zone"], environments=[], zone_arms=ARMS, zone_updates=7)


def policies() -> list[GaussianPolicy]:
    """After each of `UPDATES`, one of every arm."""
    return [GaussianPolicy(2, 2, (4, 4), [10 * update, 10 * update + 1]) for update in UPDATES]


def content() -> bytes:
    history, ensemble = History(), DynamicsEnsemble(2, 3, 2, 2, (6, 6), "tanh", weight_norm=False)
    for policy in policies():
        history.add(**{f"policy/{name}": value for name, value in policy.state_dict().items()})
    value = TimedValue(2, TASK, 5, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    rows = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0))
    prepared = Prepared(policies()[0], rows, rows, rows, ensemble, 0.1)
    return kept.maps_content(prepared, Improved(history, policies()[0], value), ARMS, UPDATES)


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.open(tmp_path / "run", CONFIG)
    part = run.part("zone")
    part.write_bytes(kept.MAPS, content())
    part.finish({"done": 1})
    return run


def everything(file: kept.MapFile) -> list[object]:
    return [file.data(TASK), file.policies(TASK), file.ensemble(TASK), file.value(TASK)]


def test_maps_come_back_as_they_were(run):
    file = kept.MapFile(run.directory, "zone")
    states = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1))
    acted = file.policies(TASK)(states.expand(6, -1, -1))[0]
    wanted = torch.cat([policy(states.expand(2, -1, -1))[0] for policy in policies()])
    torch.testing.assert_close(acted, wanted)
    assert (file.header.arms, file.header.updates) == (ARMS, UPDATES)
    ensemble = DynamicsEnsemble(2, 3, 2, 2, (6, 6), "tanh", weight_norm=False)
    both = states.expand(2, -1, -1)
    torch.testing.assert_close(file.ensemble(TASK)(states, states)[0], ensemble(both, both)[0])
    assert file.value(TASK).value(states, 3).shape == (1, 5)
    assert file.data(TASK).shape == (9, 2)


def test_altered_files_are_told(run):
    """A hundred files with some bytes changed, cut out or put in: all refused in our words, whatever was hit."""
    path, drawn = run.directory / "zone" / kept.MAPS, random.Random(0)
    whole = path.read_bytes()
    for _ in range(100):
        changed = bytearray(whole)
        spot = drawn.randrange(len(whole))
        kind = drawn.randrange(3)
        if kind == 0:
            changed[spot] ^= 1 << drawn.randrange(8)
        elif kind == 1:
            del changed[spot : spot + drawn.randrange(1, 50)]
        else:
            changed[spot:spot] = drawn.randbytes(drawn.randrange(1, 50))
        path.write_bytes(changed)
        with pytest.raises(TensorFileError, match=kept.MAPS):
            everything(kept.MapFile(run.directory, "zone"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", torch.zeros(9, 3)), ("data", None), ("policy/log_std", torch.zeros(3, 2, 1, 5)),
        ("policy/log_std", torch.zeros(4)), ("policy/mean.layers.2.bias", None),
        ("policy/mean.layers.1.weight", torch.zeros(3, 2, 4, 9)), ("ensemble/net.layers.0.weight", None),
        ("ensemble/net.layers.0.bias", torch.zeros(2, 1, 6)), ("ensemble/input_std", torch.zeros(2, 1, 4)),
        ("value/mean", None), ("value/net.layers.1.bias", torch.zeros(1, 1, 9)),
    ],
)  # fmt: skip
def test_maps_of_another_shape_are_told(run, name, value):
    path = run.directory / "zone" / kept.MAPS
    tensors, header = tensor_files.read(path, kept.MapsHeader)
    assert name in tensors
    del tensors[name]
    tensor_files.write(path, tensors if value is None else tensors | {name: value}, header)
    with pytest.raises(TensorFileError, match="holds no maps of this study"):
        everything(kept.MapFile(run.directory, "zone"))


def test_pairs_come_back_or_are_told(tmp_path):
    run = Run.open(tmp_path, CONFIG)
    with pytest.raises(RunError, match="without the study 'calibration'"):
        kept.pairs_of(tmp_path)
    part = run.part("calibration")
    pairs = {"predicted": torch.rand(2, 5), "error": torch.rand(2, 5)}

    def write(tensors: dict[str, torch.Tensor]) -> None:
        content = {f"zone-8/{name}": value for name, value in tensors.items()}
        part.write_bytes(kept.PAIRS, tensor_files.to_bytes(content, kept.PairsHeader()))

    write(pairs)
    assert torch.equal(kept.pairs_of(tmp_path)["zone-8"]["error"], pairs["error"])
    for wrong in (
        {"predicted": pairs["predicted"]},
        pairs | {"error": torch.rand(2, 4)},
        pairs | {"spare": pairs["error"]},
    ):
        write(wrong)
        with pytest.raises(TensorFileError, match="'zone-8'"):
            kept.pairs_of(tmp_path)
    (tmp_path / "calibration" / kept.PAIRS).write_bytes(b"{}")
    with pytest.raises(TensorFileError, match="damaged"):
        kept.pairs_of(tmp_path)


# -- export -----------------------------------------------------------------------------------------------------------


def test_a_zone_policy_is_exported_as_it_acted_last(run, tmp_path):
    assert arms(CONFIG, run) == ("zone/alpha-2", "zone/alpha-0")
    export(CONFIG, run, "zone/alpha-2", tmp_path / "out")
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    action, _ = load(tmp_path / "out", device="cpu").predict(states)
    wanted = policies()[-1](torch.from_numpy(states).expand(2, -1, -1))[0][1]
    np.testing.assert_allclose(action, wanted.detach().clamp(-1, 1), atol=1e-6)
    with pytest.raises(InputError, match=r"no arm 'zone/alpha-4' to export; there are zone/alpha-2"):
        export(CONFIG, run, "zone/alpha-4", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_only_what_is_finished_can_be_exported(tmp_path):
    run = Run.open(tmp_path, CONFIG)
    assert arms(CONFIG, run) == ()
    with pytest.raises(InputError, match="none: not finished"):
        export(CONFIG, run, "zone/alpha-2", tmp_path / "out")
    assert not (tmp_path / "zone").exists()


def test_the_loop_keeps_the_policy_of_every_replica(tmp_path):
    small = {"iterations": 1, "horizon": 10, "updates": 1, "rollouts": 8, "model_epochs": 4, "evaluations": 1}
    config = CONFIGS["smoke"].override(studies=[], replicas=2, algorithms=["meppo", "pombu", "ppo"], **small)
    run, device = Run.open(tmp_path / "run", config), torch.device("cpu")
    learner = learner_for("pombu", "pendulum", config, device)
    part = run.part("pendulum+pombu")
    part.finish(run_loop(learner, part))
    assert arms(config, run) == ("pendulum+pombu/0", "pendulum+pombu/1")
    export(config, run, "pendulum+pombu/1", tmp_path / "out")
    states = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
    wanted = learner.policy(states.expand(2, -1, -1))[0][1].detach().clamp(-1, 1)
    model = load(tmp_path / "out", device="cpu")
    np.testing.assert_allclose(model.predict(states[0].numpy())[0], wanted, atol=1e-6)
    assert model.steps == 20
    with pytest.raises(InputError, match="a policy alone"):
        model.set_env("Pendulum-v1")
    path: Path = run.directory / "pendulum+pombu" / "policy-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LabkitError, match="damaged"):
        export(config, run, "pendulum+pombu/0", tmp_path / "damaged")
