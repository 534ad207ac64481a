"""A tracker of a run as a file: it tracks as the run's own did; everything else is refused in words."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import tensor_files
from labkit.errors import InputError, RunError
from labkit.papers.crt import ARMS, PAPER, CascadeTracker, LookAlikes, load, look_alikes
from labkit.papers.crt.experiment import learning
from labkit.papers.crt.experiment.export import FILE, Header, arms, export
from labkit.papers.crt.method.features import Learned
from labkit.papers.crt.method.refine import Refiner
from labkit.workbench.runs import Run

CLIP = look_alikes(LookAlikes(frames=6, rivals=1, similarity=0.3, height=120, width=160), 0)
CONFIG = PAPER.config("smoke")


@pytest.fixture
def run(tmp_path):
    """A run that has trained its two networks (for no step: their start is all that matters here)."""
    run = Run.open(tmp_path / "run", CONFIG)
    run.part("features").write_weights(learning.small_net(3))
    run.part("overlap").write_weights(learning.predictor(3))
    return run


def follow(tracker):
    tracker.init(CLIP.frames[0], tuple(CLIP.boxes[0].tolist()))
    return np.array([[*answer.box, answer.score] for answer in map(tracker.update, CLIP.frames[1:])])


@pytest.mark.parametrize("arm", ["cascade", *(pytest.param(a, marks=pytest.mark.slow) for a in
                                              ("cascade-learned", "refined", "stage-1"))])  # fmt: skip
def test_it_tracks_as_before(run, tmp_path, arm):
    export(CONFIG, run, arm, tmp_path)
    state = torch.get_rng_state()
    loaded = load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    settings = ARMS[arm].settings
    features = Learned(learning.small_net(3)) if arm == "cascade-learned" else None
    refiner = Refiner(learning.predictor(3).net) if arm == "refined" else None
    np.testing.assert_array_equal(follow(loaded), follow(CascadeTracker(settings, features, refiner)))
    np.testing.assert_array_equal(follow(load(tmp_path / FILE)), follow(loaded))


def test_what_can_be_exported(run, tmp_path):
    assert arms(CONFIG, run) == ("cascade-learned", "cascade", "stage-1", "refined")
    full = PAPER.config("full")
    assert arms(full, run) == ("cascade-learned", "cascade", "stage-1", "refined")
    with pytest.raises(InputError, match="there is no arm 'dense' to export; there are cascade-learned, cascade"):
        export(CONFIG, run, "dense", tmp_path)
    with pytest.raises(RunError, match="no trained weights yet"):
        export(CONFIG, Run.open(tmp_path / "other", CONFIG), "cascade-learned", tmp_path)


def test_other_files_are_refused(run, tmp_path):
    path = tmp_path / FILE
    with pytest.raises(InputError, match="there is no file"):
        load(path)
    net = {f"features.{name}": value for name, value in learning.small_net(0).state_dict().items()}
    for tensors, arm, words in (
        ({}, ARMS["cascade-learned"], "does not hold this tracker's network"),
        (net, ARMS["cascade"], "does not hold this tracker's network"),
        (net | {"features.body.0.weight": torch.zeros(1)}, ARMS["cascade-learned"], "does not hold"),
        ({}, ARMS["cascade-resnet18"], "does not hold"),
    ):
        tensor_files.write(path, tensors, Header(arm=arm))
        with pytest.raises(InputError, match=words):
            load(path)
    for values in ({"size": 10**9}, {"most": -1}, {"mix": 7.0}, {"widen": 0.5}, {"scales": ()}, {"bins": 0}):
        arm = ARMS["cascade"]
        wild = Header.model_construct(arm=replace(arm, settings=_with(arm.settings, values)))
        tensor_files.write(path, {}, wild)
        with pytest.raises(InputError, match="is another kind of file"):
            load(path)


def _with(settings, values):
    changed = replace(settings)
    for name, value in values.items():
        object.__setattr__(changed, name, value)  # as a program without our checks would write it
    return changed


def test_damage_never_gives_another_tracker(run, tmp_path):
    export(CONFIG, run, "cascade-learned", tmp_path)
    whole, chance = (tmp_path / FILE).read_bytes(), random.Random(0)
    for _ in range(150):
        content = bytearray(whole)
        at = chance.randrange(len(content) if chance.random() < 0.5 else 3000)
        content[at] ^= 1 << chance.randrange(8)
        (tmp_path / FILE).write_bytes(content[: chance.choice([len(content), len(content), at])])
        with pytest.raises(InputError, match=FILE):
            load(tmp_path)
