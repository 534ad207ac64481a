"""Runs: every scale starts, a killed run ends as an undisturbed one, two processes are one, bad configs answer back."""

import json

import numpy as np
import pytest
import torch
from killed import Killed, killed
from PIL import Image
from safetensors.torch import load_file

from labkit.errors import ConfigError, DataError, InputError
from labkit.papers.crt import ARMS, PAPER
from labkit.papers.crt.experiment import data
from labkit.papers.crt.experiment import train as loop
from labkit.papers.crt.experiment.config import CONFIGS, Config
from labkit.papers.crt.experiment.evaluate import difference, measures, summarise
from labkit.papers.crt.experiment.tracking import Track
from labkit.vision import resnet18
from labkit.workbench.runs import Run

SMALL = Config(clips=2, frames=6, kinds=("plain",), arms=("stage-1", "cascade-learned", "refined"), pairs=8,
               batch_size=4, learned_steps=4, refiner_steps=4)  # fmt: skip


@pytest.fixture(autouse=True)
def no_footage(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))


def run_of(folder, config):
    return Run.open(folder, config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The result of SMALL in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return PAPER.run(SMALL, run_of(folder, SMALL)), folder


def test_smoke(tmp_path):
    config = CONFIGS["smoke"].override(frames=8, arms=("stage-1", "cascade", "anchored"))
    result = PAPER.run(config, run_of(tmp_path, config))
    assert result["data"] == "generated clips"
    assert "footage" not in result
    arms = result["clips"]["plain"]["arms"]
    assert set(arms) == {"stage-1", "cascade", "anchored"}
    for actual in arms.values():
        assert actual["auc"] > 0.2  # over 20 seeds .78, deviation .1
        assert len(actual["each"]["auc"]) == 1
        assert len(actual["success"]) == 21
        assert actual["auc"] == pytest.approx(np.mean(actual["success"]))
    assert PAPER.run(config, run_of(tmp_path, config)) == result  # finished: read, not tracked again


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(tmp_path, undisturbed):
    """Killed at the second step and at the seventh, in two networks; there is a checkpoint after every step."""
    wanted, folder = undisturbed
    for stop in (1, 4):
        with killed(stop):
            PAPER.run(SMALL, run_of(tmp_path / "run", SMALL))
    assert PAPER.run(SMALL, run_of(tmp_path / "run", SMALL)) == wanted
    whole, resumed = (load_file(f / "features" / "weights.safetensors") for f in (folder, tmp_path / "run"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_killed_between_arms(tmp_path, monkeypatch):
    config = SMALL.override(arms=("stage-1", "cascade"), clips=1)
    whole = PAPER.run(config, run_of(tmp_path / "whole", config))
    original = loop.track_all

    def dying(arm, sequences, kit):
        if arm == "cascade":
            raise Killed
        return original(arm, sequences, kit)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "track_all", dying)
        with pytest.raises(Killed):
            PAPER.run(config, run_of(tmp_path / "run", config))
    kept = (tmp_path / "run" / "clips-plain-stage-1" / "result.json").read_bytes()
    assert PAPER.run(config, run_of(tmp_path / "run", config)) == whole
    assert (tmp_path / "run" / "clips-plain-stage-1" / "result.json").read_bytes() == kept


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """Networks train on shared batches; sequences are dealt out, three to two processes, and gathered in order.

    Sequences are tracked one at a time: in a batch of another size rounding may move a box by a cell.
    """
    config = SMALL.override(clips=3, frames=4, together=1)
    one = PAPER.run(config, run_of(tmp_path / "one", config))
    two = config.override(devices=2, device="cpu")
    both = PAPER.run(two, run_of(tmp_path / "two", two))
    for name in ("features", "overlap"):
        first, second = (load_file(tmp_path / run / name / "weights.safetensors") for run in ("one", "two"))
        for key, value in first.items():
            # sums in another order, carried through training: single weights may differ by 1e-3 of a layer's size
            assert (second[key] - value).double().norm() <= 1e-2 * value.double().norm() + 1e-6, (name, key)
    plain = [r["clips"]["plain"]["arms"]["stage-1"]["each"]["auc"] for r in (one, both)]
    assert plain[0] == pytest.approx(plain[1], abs=1e-9)
    learned = [r["clips"]["plain"]["arms"]["cascade-learned"]["auc"] for r in (one, both)]
    assert learned[0] == pytest.approx(learned[1], abs=0.2)  # a box or two on the neighbouring cell


def write_otb(folder, count=6):
    """OTB's layout, one sequence: 1-based boxes, comma separated."""
    (clip,) = data.clips("plain", 1, 0, count)
    for name in ("Basketball",):
        images = folder / name / "img"
        images.mkdir(parents=True)
        for t in range(count):
            Image.fromarray(clip.frames[t]).save(images / f"{t + 1:04d}.jpg", quality=95)
        rows = clip.boxes + np.array([1.0, 1.0, 0, 0])
        (folder / name / "groundtruth_rect.txt").write_text(
            "\n".join(",".join(f"{v:.2f}" for v in row) for row in rows)
        )
    return clip


@pytest.mark.slow
def test_gpu_and_full_start_on_made_up_data_of_the_real_layout(tmp_path, monkeypatch):
    """gpu: all arms on a few frames.  full: a benchmark's folder, ImageNet-shaped weights from a file."""
    config = CONFIGS["gpu"].override(clips=1, frames=2, kinds=("walkers",), pairs=8, batch_size=4, learned_steps=2,
                                     refiner_steps=2, footage=())  # fmt: skip
    result = PAPER.run(config, run_of(tmp_path / "gpu", config))
    assert set(result["clips"]["walkers"]["arms"]) == {name for name in ARMS if "resnet" not in name}
    write_otb(tmp_path / "data" / "otb2015")
    (tmp_path / "data" / "imagenet").mkdir()
    torch.save(resnet18().state_dict(), tmp_path / "data" / "imagenet" / "resnet18.pth")
    full = CONFIGS["full"].override(benchmarks=("otb2015",), arms=("stage-1", "refined", "stage-1-resnet18"))
    full = full.override(train_on="otb2015", pairs=4, batch_size=2, refiner_steps=2, learned_steps=2)
    actual = PAPER.run(full, run_of(tmp_path / "full", full))["benchmarks"]["otb2015"]
    assert set(actual) == {"stage-1", "refined", "stage-1-resnet18"}
    assert actual["stage-1"]["by_sequence"]["Basketball"]["auc"] > 0.2
    assert json.loads((tmp_path / "full" / "result.json").read_text())["data"] == "otb2015"


def test_footage_is_tracked_where_it_is(tmp_path, monkeypatch):
    (clip,) = data.clips("plain", 1, 0, 6)
    monkeypatch.setattr(data, "footage_is_there", lambda: True)
    monkeypatch.setattr(data, "footage", lambda name, seed, frames: clip)
    config = SMALL.override(arms=("stage-1",), clips=0, footage=("TLD_pedestrian2",), footage_arms=("stage-1",))
    result = PAPER.run(config, run_of(tmp_path, config))
    assert result["data"] == "footage"
    assert result["footage"]["TLD_pedestrian2"]["arms"]["stage-1"]["auc"] > 0.2


@pytest.mark.slow
def test_speed_is_measured_only_when_asked(tmp_path):
    config = SMALL.override(arms=("stage-1",), clips=1, speed_frames=8)
    result = PAPER.run(config, run_of(tmp_path / "a", config))
    assert result["speed"]["cascade"] > 0
    short = config.override(speed_frames=3)
    with pytest.raises(InputError, match="at least 5 frames"):
        PAPER.run(short, run_of(tmp_path / "b", short))


def test_missing_data_says_so(tmp_path):
    config = Config(benchmarks=("otb2015",), clips=0)
    with pytest.raises(DataError, match="otb2015"):
        PAPER.run(config, run_of(tmp_path, config))
    full = CONFIGS["full"].override(arms=("stage-1-resnet18",), benchmarks=("otb2015",))
    with pytest.raises(InputError, match="no weight file"):
        PAPER.run(full, run_of(tmp_path / "full", full))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ("magic",)}, "there is no arm 'magic'"),
        ({"arms": ("cascade", "cascade")}, "stands there twice"),
        ({"kinds": ("cats",)}, "no kind of clip 'cats'"),
        ({"footage": ("cats",)}, "no real sequence 'cats'"),
        ({"benchmarks": ("cats",)}, "no benchmark 'cats'"),
        ({"train_on": "cats"}, "no benchmark 'cats'"),
        ({"clips": 0, "footage": ()}, "nothing to track"),
        ({"arms": ("cascade-resnet18",)}, "need ImageNet weights"),
        ({"batch_size": 500}, "must not be larger than pairs"),
        ({"frames": 1}, "2 frames or more"),
        ({"clip": 3}, "did you mean clips"),
    ],
)
def test_config_answers_back(changes, words):
    with pytest.raises(ConfigError, match=words):
        CONFIGS["smoke"].override(**changes)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_measures_of_a_perfect_and_of_a_fooled_tracker():
    (clip,) = data.clips("plain", 1, 0, 5)
    sure = np.ones(5), np.ones(5, dtype=bool)
    perfect = measures(Track(clip.boxes, *sure), clip)
    assert perfect["auc"] == pytest.approx(20 / 21)
    assert (perfect["lost"], perfect["hit"], perfect["bad"]) == (0.0, 0.0, 0.0)
    rivals = np.asarray(clip.meta["rivals"])[:, 0]
    fooled = np.concatenate([rivals - clip.boxes[:, 2:] / 2, clip.boxes[:, 2:]], 1)
    actual = measures(Track(fooled, *sure), clip)
    assert actual["hit"] == 1.0
    assert actual["bad"] == float(actual["lost"] > 0.1)


def test_presence_is_scored_where_targets_vanish():
    (clip,) = data.clips("plain", 1, 0, 6)
    boxes, absent = clip.boxes.copy(), np.array([False, False, True, True, False, False])
    boxes[absent] = np.nan
    from dataclasses import replace

    gone = replace(clip, boxes=boxes, absent=absent, meta={})
    present = np.array([True, True, False, True, True, False])
    actual = measures(Track(clip.boxes, np.ones(6), present), gone)
    assert actual["tpr"] == pytest.approx(3 / 4)
    assert actual["tnr"] == pytest.approx(1 / 2)


def test_differences_are_paired():
    rows = [{"lost": 0.1 * k} for k in range(6)]
    better = [{"lost": 0.1 * k - 0.05} for k in range(6)]
    result = {"arms": {"a": summarise(rows), "b": summarise(better)}}
    mean, low, high = difference(result, "b", "a", "lost")
    assert (mean, low, high) == pytest.approx((-0.05, -0.05, -0.05))
