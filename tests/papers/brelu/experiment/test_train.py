"""Whole runs, small: what is measured, kill and resume, two processes, the larger scales on hand-made data."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from labkit.devices import one_thread
from labkit.errors import DataError
from labkit.papers import load
from labkit.papers.brelu.experiment.config import CONFIGS
from labkit.workbench.runs import Run


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


@pytest.mark.slow
def test_a_run_measures_everything(finished):
    _, run, result = finished
    assert result["data"] == "bundled train to bundled test x2; bundled train to bundled test; digits"
    assert all(math.isfinite(number) for number in numbers(result))
    for task in ("superresolution", "artifacts"):
        tables = result[task]
        assert set(tables["tuned"]) == set(tables["untrained"]) == {"max", "3.5sigma"}
        assert set(tables["integer"]) == {"127", "31", "15"}
        assert tables["same_on_backends"] == 1
        assert tables["integer_difference"] < 4  # over 17 seeds 0.65 with a standard deviation of 0.13
        assert abs(tables["integer"]["127"] - tables["tuned"]["3.5sigma"]["127"]) < 0.05  # and 0.001 with 0.0024
        assert (run.directory / f"{task}.int8.safetensors").stat().st_size == tables["bytes"]["integer_file"]
    assert set(result["superresolution"]["peers"]) >= {"gemmlowp 255", "TensorRT 127", "DoReFa 15", "LSQ 15"}
    assert result["classification"]["integer_agreement"]["3.5sigma"] > 85  # over 17 seeds 99.4 with 1.0
    sizes = result["superresolution"]["published_bytes"]
    assert sizes["integer_file"] < 0.27 * sizes["float_memory"]


@pytest.mark.slow
def test_every_claim_is_measured(finished):
    _, _, result = finished
    assert all(math.isfinite(claim.measure(result)) for claim in load("brelu").claims if claim.scale != "bench")


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    """Killed twice in the float training and once while fine-tuning. One thread, one process: the same digits."""
    paper, config = load("brelu"), finished[0].override(tasks=["superresolution"], peers=[])
    kills, saved = [], 0

    def save_and_die(run, step, state):
        nonlocal saved
        run.save(step, state)
        saved += 1
        if saved in (4, 9, 14):
            kills.append((run.directory.name, step))
            raise KeyboardInterrupt

    with one_thread():
        whole = paper.run(config, Run.open(tmp_path / "whole", config))
        monkeypatch.setattr(Run, "save_if_due", save_and_die)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                paper.run(config, Run.open(tmp_path / "killed", config))
        resumed = paper.run(config, Run.open(tmp_path / "killed", config))
    assert kills == [("superresolution-float", 4), ("superresolution-float", 9), ("superresolution-longer", 2)]
    assert resumed == whole


@pytest.mark.slow
def test_loss_falls(finished):
    """To 0.63 of its first value, with a standard deviation of 0.06 over 17 seeds."""
    _, run, _ = finished
    lines = run.part("classification-float").metrics()
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(finished, tmp_path, monkeypatch):
    config, run, alone = finished
    config = config.override(
        tasks=["superresolution", "classification"], devices=2, peers=[], factors=[1.0], rules=["3.5sigma"],
        levels=[127], classification={"levels": [127]},
    )  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    together = load("brelu").run(config, Run.open(tmp_path / "two", config))
    assert together["superresolution"]["float"] == pytest.approx(alone["superresolution"]["float"], abs=5e-3)
    # gradients are the whole batch's: over 20 seeds 2e-7 apart; with batch norm 1e-6 at step 2, and then it grows
    for task, logged in (("superresolution", 7), ("classification", 2)):
        one, two = (
            [json.loads(line)["loss"] for line in (folder / f"{task}-float" / "metrics.jsonl").read_text().splitlines()]
            for folder in (run.directory, tmp_path / "two")
        )
        assert two[:logged] == pytest.approx(one[:logged], rel=1e-4)


@pytest.fixture
def hand_made(imagenet, tmp_path):
    """Folders in the layout of the real sets: photographs, CIFAR-10's archive, ImageNet's tree."""
    import io
    import tarfile

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
    return imagenet


FEW = {
    "steps": 2, "artifact_steps": 2, "tune_steps": 1, "patches": 8, "batch_size": 4, "calibration_examples": 4,
    "levels": [127], "factors": [1.0], "test_images": 1, "rules": ["3.5sigma"], "untrained_rules": [], "peers": [],
    "classification": {
        "steps": 2, "tune_steps": 1, "batch_size": 4, "levels": [127], "rules": ["3.5sigma"],
        "tuned_rules": ["3.5sigma"], "bf16": False, "data_workers": 0, "test_examples": 2,
    },
}  # fmt: skip


@pytest.mark.slow
def test_gpu_scale_takes_a_few_steps_on_hand_made_data(hand_made, tmp_path, monkeypatch):
    """Everything but CIFAR-10, whose archive is checked by its sum: that loader has its own tests."""
    config = CONFIGS["gpu"].override(**FEW, **{"depth": 6, "classification.images": "digits"})
    result = load("brelu").run(config, Run.open(tmp_path / "run", config))
    assert result["data"].startswith("T91 to Set5 x2, Set14 x2; T91 to BSD68; ")
    assert result["superresolution"]["parameters"] > 100_000
    assert CONFIGS["gpu"].classification.images == "cifar10"
    config = CONFIGS["gpu"].override(**FEW, tasks=["classification"])
    with pytest.raises(DataError, match="cifar10"):
        load("brelu").run(config, Run.open(tmp_path / "cifar", config))


@pytest.mark.slow
def test_full_scale_takes_a_few_steps_on_hand_made_data(hand_made, tmp_path):
    """291 images at three scales, HEVC intra, ImageNet's tree with a ResNet-18."""
    pytest.importorskip("av")
    config = CONFIGS["full"].override(
        **FEW, depth=5, width=8, vrcnn_width=8, patch_size=16, artifact_patch_size=16, test_sets=["Set5"],
    )  # fmt: skip
    result = load("brelu").run(config, Run.open(tmp_path / "run", config))
    assert result["data"].startswith("291 to Set5 x2, Set5 x3, Set5 x4")
    assert result["data"].endswith("imagenet")
    assert result["classification"]["parameters"] > 11_000_000
    assert len(result["classification"]["shortcuts"]) == 8
    assert set(result["superresolution"]["integer_everywhere"]) == {"Set5 x2", "Set5 x3", "Set5 x4"}
