"""Whole runs, small: what is measured, kill and resume, two processes, the larger scales on hand-made data."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.data import registry
from labkit.errors import ConfigError, DataError, InputError
from labkit.papers import load
from labkit.papers.brelu.experiment import train as loops
from labkit.papers.brelu.experiment.config import CONFIGS
from labkit.papers.brelu.experiment.evaluate import in_strips
from labkit.papers.brelu.experiment.model import vdsr, vrcnn
from labkit.workbench.runs import Run

from ..conftest import TINY


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def test_a_run_measures_everything(finished):
    _, run, result = finished
    assert result["data"] == "bundled train to bundled test x2; bundled train to bundled test; digits"
    assert all(math.isfinite(number) for number in numbers(result))
    for task in ("superresolution", "artifacts"):
        found = result[task]
        assert set(found["tuned"]) == set(found["untrained"]) == {"max", "3.5sigma"}
        assert set(found["integer"]) == {"127", "15"}
        assert found["same_on_backends"] == 1
        assert found["integer_difference"] < 4
        assert abs(found["integer"]["127"] - found["tuned"]["3.5sigma"]["127"]) < 0.05
        assert (run.directory / f"{task}.int8.safetensors").stat().st_size == found["bytes"]["integer_file"]
    assert set(result["superresolution"]["peers"]) >= {"gemmlowp 255", "TensorRT 127", "DoReFa 15", "LSQ 15"}
    assert result["classification"]["integer_agreement"]["3.5sigma"] > 95
    sizes = result["superresolution"]["published_bytes"]
    assert sizes["integer_file"] < 0.27 * sizes["float_memory"]


def test_every_lesson_claim_is_measured(finished):
    _, _, result = finished
    measured = {claim.key: claim.measure(result) for claim in load("brelu").claims}
    assert not [key for key, value in measured.items() if value is None and "levels" not in key and "bits" not in key
                and key not in ("too-tight", "too-wide", "activations-not-weights-classes")]  # fmt: skip


def test_claims_on_a_result_of_known_numbers():
    paper = load("brelu")
    by_key = {claim.key: claim for claim in paper.claims}
    result = {
        "superresolution": {
            "float": 36.0, "float_longer": 36.02, "weights": {"4": 35.5}, "activations": {"max": {"15": 34.5}},
            "tuned": {"max": {"127": 35.99, "31": 35.6, "15": 34.6},
                      "3.5sigma": {"127": 35.98, "31": 35.8, "15": 35.4}},
            "integer": {"127": 35.97}, "speed": {"float_ms": 9.0, "integer_ms": 3.0},
            "map": {
                "untrained": {"0.25": {"127": 34.0}, "8": {"127": 35.5}},
                "retrained": {"0.25": {"127": 35.0, "31": 35.0, "15": 34.9},
                              "1": {"127": 35.98, "31": 35.8, "15": 35.4},
                              "8": {"127": 35.6, "31": 31.0, "15": 28.0}},
            },
            "published_bytes": {"float_memory": 4000, "integer_memory": 1001, "integer_file": 1040},
        }
    }  # fmt: skip
    wanted = {
        "activations-not-weights": 1.0, "tuned-bound-7-bits": -0.01, "tuned-bound-5-bits": 0.2,
        "tuned-bound-4-bits": 0.8, "too-tight": 0.5, "too-wide": 0.38, "training-mends-clipping": 0.9,
        "integer-superresolution": -0.03, "integer-superresolution-same-budget": -0.05,
        "quarter-of-the-memory": -0.26, "twice-as-fast-cpu": 3.0,
    }  # fmt: skip
    for key, value in wanted.items():
        assert by_key[key].measure(result) == pytest.approx(value), key
    assert by_key["integer-artifacts"].measure(result) is None
    assert len(by_key) == len(paper.claims)


def test_a_killed_run_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    """Stopped in the middle of the float training and again while fine-tuning; same numbers to the last digit."""
    config, _, wanted = finished
    config = config.override(tasks=["superresolution"], peers=False)
    whole = load("brelu").run(config, Run.open(tmp_path / "whole", config))
    save, due = Run.save, iter([4, 9, 14, 10**9])
    stop = next(due)
    count = 0

    def save_and_stop(self, step, state):
        nonlocal count, stop
        save(self, step, state)
        count += 1
        if count == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save_if_due", save_and_stop)
    for _ in range(4):
        try:
            result = load("brelu").run(config, Run.open(tmp_path / "killed", config))
            break
        except KeyboardInterrupt:
            stop = next(due)
    for key in ("map", "tuned", "integer", "untrained", "float", "float_longer", "weights", "activations"):
        assert result["superresolution"][key] == whole["superresolution"][key], key
    assert wanted["superresolution"]["float"] == whole["superresolution"]["float"]


def test_loss_falls(finished):
    _, run, _ = finished
    lines = run.part("superresolution-float").metrics()
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(finished, tmp_path):
    config, run, wanted = finished
    changes = {"tasks": ["superresolution", "classification"], "devices": 2, "peers": False, "factors": [1.0]}
    config = config.override(**changes)
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from labkit.papers import load; from labkit.papers.brelu.experiment.config import Config\n"
        "from labkit.workbench.runs import Run\n"
        "config = Config.model_validate_json(sys.argv[1])\n"
        "load('brelu').run(config, Run.open(sys.argv[2], config))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, config.model_dump_json(), str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "two" / "result.json").read_text())
    assert found["superresolution"]["float"] == pytest.approx(wanted["superresolution"]["float"], abs=5e-3)
    assert found["classification"]["float"] > 20
    files = [folder / "classification-float" / "metrics.jsonl" for folder in (run.directory, tmp_path / "two")]
    alone, two = ([json.loads(line)["loss"] for line in file.read_text().splitlines()] for file in files)
    assert two[:4] == pytest.approx(alone[:4], rel=1e-4)  # gradients are those of the whole batch


@pytest.fixture
def hand_made(tmp_path, monkeypatch):
    """Folders in the layout of the real sets: photographs, CIFAR-10's archive, ImageNet's tree."""
    import io
    import tarfile

    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    for name, count in (("T91", 91), ("BSD200", 200), ("Set5", 5), ("Set14", 14), ("BSD68", 68)):
        (tmp_path / "sr" / name).mkdir(parents=True)
        for i in range(count):
            blocks = random.integers(0, 256, (9, 10, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(blocks).save(tmp_path / "sr" / name / f"{i:03d}.png")
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            content = random.integers(0, 256, (10, 3073), dtype=np.uint8)
            content[:, 0] %= 10
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = content.size
            archive.addfile(entry, io.BytesIO(content.tobytes()))
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            (tmp_path / "imagenet" / split / wnid).mkdir(parents=True)
            for i in range(4):
                picture = Image.fromarray(random.integers(0, 256, (240, 250, 3), dtype=np.uint8))
                picture.save(tmp_path / "imagenet" / split / wnid / f"{i}.JPEG")
    return tmp_path


FEW = {
    "steps": 2, "artifact_steps": 2, "tune_steps": 1, "class_steps": 2, "class_tune_steps": 1, "patches": 8,
    "batch_size": 4, "class_batch_size": 4, "calibration_examples": 4, "levels": [127], "class_levels": [127],
    "factors": [1.0], "test_images": 1, "rules": ["3.5sigma"], "untrained_rules": [], "class_rules": ["3.5sigma"],
    "class_tuned": ["3.5sigma"], "bf16": False, "data_workers": 0, "test_examples": 4, "peers": False,
}  # fmt: skip


@pytest.mark.slow
def test_gpu_scale_takes_a_few_steps_on_hand_made_data(hand_made, tmp_path, monkeypatch):
    """Everything but CIFAR-10, whose archive is checked by its sum: that loader has its own tests."""
    config = CONFIGS["gpu"].override(**FEW, depth=6, images="digits")
    result = load("brelu").run(config, Run.open(tmp_path / "run", config))
    assert result["data"].startswith("T91 to Set5 x2")
    assert result["superresolution"]["parameters"] > 100_000
    assert CONFIGS["gpu"].images == "cifar10"
    config = CONFIGS["gpu"].override(**FEW, tasks=["classification"])
    with pytest.raises(DataError, match="cifar10"):
        load("brelu").run(config, Run.open(tmp_path / "cifar", config))


@pytest.mark.slow
def test_full_scale_takes_a_few_steps_on_hand_made_data(hand_made, tmp_path):
    """291 images at three scales, HEVC intra, ImageNet's tree with a ResNet-18."""
    pytest.importorskip("av")
    config = CONFIGS["full"].override(**FEW, depth=5, artifact_patch_size=32)
    result = load("brelu").run(config, Run.open(tmp_path / "run", config))
    assert result["data"].startswith("291 to Set5 x2, Set5 x3, Set5 x4")
    assert result["data"].endswith("imagenet")
    assert result["classification"]["parameters"] > 11_000_000
    assert len(result["classification"]["shortcuts"]) == 8
    assert set(result["superresolution"]["integer_everywhere"]) == {"Set5 x2", "Set5 x3", "Set5 x4"}


def test_float_weights_are_taken_or_refused(tmp_path):
    from safetensors.torch import save_file

    from labkit.papers.brelu.experiment.classification import load_float_weights
    from labkit.papers.brelu.experiment.model import classifier

    model, other = (classifier("small", 10, 1, 28) for _ in range(2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    load_float_weights(other, str(tmp_path / "w.safetensors"))
    assert torch.equal(other.conv1.weight, model.conv1.weight)
    with pytest.raises(InputError, match="there is no file"):
        load_float_weights(other, str(tmp_path / "none"))
    with pytest.raises(InputError, match="does not fit"):
        load_float_weights(classifier("small", 7, 1, 28), str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": ["max"]}, "the paper's own rule, 3.5sigma"),
        ({"rules": ["3.5sigma", "sigma"]}, "no bound rule 'sigma'"),
        ({"levels": [255]}, "between 1 and 127"),
        ({"codec": "hevc", "quality": 60}, "ends at 51; got 60"),
        ({"tasks": []}, "at least one"),
        ({"batch_size": 500, "patches": 100}, "larger than the number of patches"),
        ({"upscales": [1]}, "between 2 and 8"),
        ({"dept": 3}, "did you mean depth"),
        ({"class_tuned": ["3.5sigma", "kl"]}, "must also stand in class_rules"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIGS["smoke"].override(**changes)


def test_all_scales_are_there_and_use_one_code_path():
    assert list(CONFIGS) == ["smoke", "lesson", "gpu", "full"]
    assert {type(config) for config in CONFIGS.values()} == {type(TINY)}
    assert callable(loops.train)
    assert registry.names()
    assert Path(loops.__file__).name == "train.py"


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("build", [lambda: vdsr(4, 6), lambda: vrcnn(8)])
def test_strips_give_the_whole_picture(build, rows):
    """Catches a halo that is too small (VRCNN's 5x5 layers) or put on the wrong side at the border."""
    torch.manual_seed(0)
    network = build().eval().double()
    x = torch.randn(1, 1, 40, 23, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
    torch.testing.assert_close(in_strips(network, x, rows), whole, rtol=0, atol=1e-12)
