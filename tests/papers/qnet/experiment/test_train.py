"""The whole experiment: every scale's code path, several processes, kills, and the paths that real data takes."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from labkit import paths
from labkit.data import IMAGENET_MEAN, IMAGENET_STD, ImageSet, classification, normalize
from labkit.errors import ConfigError, DataError, InputError
from labkit.papers.qnet import ARMS, PAPER, build_model
from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.evaluate import accuracy_in_mode, gradient_error
from labkit.papers.qnet.experiment.train import load_arm, train
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, set_temperature
from labkit.papers.qnet.method.weights import quantize_weights
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

ALONE = Workers(0, 1, torch.device("cpu"))
QUICK = PAPER.config("smoke", float_steps=40, steps=30, test_examples=200, calibration_examples=200, device="cpu")


def test_smoke_learns_and_reports_every_number(tmp_path):
    config = PAPER.config("smoke", device="cpu")
    result = PAPER.run(config, Run.open(tmp_path / "run", config))
    assert result["data"] == "digits"
    assert result["float"]["hard"] > 95
    assert set(result["W2"]) == {"ptq", "ptq_bn", "gradient_error", "soft", "hard", "hard_bn"}
    assert result["W2"]["hard"] > 93 > result["W2"]["ptq"]
    assert abs(result["W2"]["soft"] - result["W2"]["hard"]) < 1
    lines = Run.open(tmp_path / "run", config).part("W2").metrics()
    assert [line["temperature"] for line in lines] == sorted(line["temperature"] for line in lines)
    assert lines[0]["still_learning"] == 1 > lines[-1]["still_learning"]
    assert sum(lines[0]["histogram"]) == pytest.approx(16 * 32 * 9, rel=0.01)


@pytest.mark.parametrize("name", sorted(set(ARMS) - {"float-longer"}))
def test_every_arm_trains_a_few_steps(tmp_path, name):
    """Catches: an arm whose methods, stage or schedule do not fit together."""
    start = ARMS[name].start
    arms = [start, name] if start else [name]
    config = QUICK.override(arms=arms, float_steps=4, steps=3)
    result = train(config, Run.open(tmp_path, config))
    assert all(0 <= result[name][key] <= 100 for key in ("soft", "hard", "hard_bn", "ptq", "ptq_bn"))


def test_longer_float_training_is_an_arm_without_quantisers(tmp_path):
    config = QUICK.override(arms=["float-longer"])
    result = train(config, Run.open(tmp_path, config))["float-longer"]
    assert result["soft"] == result["hard"]
    assert result["gradient_error"] < 1e-4


def test_many_levels_need_no_training_when_thresholds_lie_midway(tmp_path):
    """Sheet check 9: untrained 8-bit weights are as good as float, to one of the 597 test images.

    That holds for thresholds midway between the levels. The k-means start sets them by the density of the weights while
    the levels stay uniform, which bends the weights: its error stops falling with more levels.
    """
    config = PAPER.config("smoke", device="cpu", arms=["W1"], steps=1)
    run = Run.open(tmp_path, config)
    result = train(config, run)
    task = data.load(config, ALONE)
    model = build_model("cnn", task.classes, task.image_size, task.channels)
    run.part("float").read_weights(model)
    quantize_weights(model, LEVELS["W8"], init="mse")
    assert abs(accuracy_in_mode(model, "hard", task, ALONE) - result["float"]["hard"]) < 100 / 597 + 1e-9

    weights = torch.randn(20_000, generator=torch.Generator().manual_seed(0))

    def error(levels, init):
        quantizer = SoftQuantizer.fit(weights, LEVELS[levels], init=init).eval()
        return float((quantizer(weights) - weights).square().mean().detach())

    assert error("W8", "mse") < 1e-3 < 0.1 < error("W8", "range")
    assert error("W8", "range") > 0.9 * error("W6", "range")


def test_a_trained_arm_comes_back_from_its_directory(tmp_path):
    config = QUICK.override(arms=["W1"])
    run = Run.open(tmp_path, config)
    result = train(config, run)
    task = data.load(config, ALONE)
    model = load_arm("W1", config, task, ALONE, run).eval()
    right = sum(int((model(task.to_input(x)).argmax(1) == y).sum()) for x, y in task.test_batches())
    assert 100 * right / 200 == pytest.approx(result["W1"]["hard"])


def test_the_gradient_is_that_of_the_loss_for_the_paper_and_not_for_straight_through():
    torch.manual_seed(0)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    ours, rival = build_model("cnn", 10, 8, 1), build_model("cnn", 10, 8, 1)
    quantize_weights(ours, LEVELS["W1"])
    set_temperature(ours, 20.0)
    from labkit.papers.qnet.experiment.baselines import binary_weights

    quantize_weights(rival, binary_weights)
    assert gradient_error(ours, images, labels) < 1e-4
    assert gradient_error(rival, images, labels) > 0.5


# -- several processes, kills -----------------------------------------------------------------------------------------


def labkit(*arguments: str, processes: int = 1, **kwargs) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "labkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **kwargs)


SHORT = ["--scale", "smoke", "--device", "cpu", "-p", "float_steps", "30", "-p", "steps", "20", "-p", "log_every", "5"]


@pytest.mark.slow
def test_two_processes_train_the_same_curve_as_one(tmp_path):
    """DDP over gloo with global batch norm: the loss of each step is that of one process with the same global batch."""
    for processes in (1, 2):
        call = labkit("train", "qnet", *SHORT, "--run-dir", str(tmp_path / str(processes)), processes=processes)
        assert call.returncode == 0, call.stderr
    for part in ("float", "W2"):
        curves = []
        for processes in ("1", "2"):
            lines = (tmp_path / processes / part / "metrics.jsonl").read_text().splitlines()
            curves.append([json.loads(line)["loss"] for line in lines])
        assert len(curves[0]) > 4
        assert curves[0] == pytest.approx(curves[1], rel=2e-3)
        assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-5)


@pytest.mark.slow
def test_kill_and_resume_gives_the_very_same_result(tmp_path):
    """SIGKILL in the middle of an arm, twice; the resumed run ends with the same bytes as an undisturbed one."""
    calm = labkit("train", "qnet", *SHORT, "--run-dir", str(tmp_path / "calm"))
    assert calm.returncode == 0, calm.stderr
    directory = tmp_path / "killed"
    command = [sys.executable, "-m", "labkit", "train", "qnet", *SHORT, "--run-dir", str(directory)]
    for part, more in (("float", []), ("W2", ["--resume"])):
        process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not (directory / part / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        assert not (directory / "result.json").exists(), "the kill came too late to show anything"
    final = labkit("train", "qnet", *SHORT, "--run-dir", str(directory), "--resume")
    assert final.returncode == 0, final.stderr
    for name in ("result.json", "float/weights.safetensors", "W2/weights.safetensors"):
        assert (directory / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


# -- the larger scales on hand-made data of the real layout -----------------------------------------------------------


def test_gpu_scale_on_a_cifar_like_archive(tmp_path, monkeypatch):
    """CIFAR-10's ResNet-20 path, with augmentation and bfloat16, on a few hand-made images."""
    random = np.random.default_rng(0)
    small = PAPER.config("gpu", device="cpu", arms=["W1", "W1A2"], batch_size=8, float_steps=2, steps=2, compile=False)
    small = small.override(calibration_examples=16)
    images = torch.from_numpy(random.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 10, 40))
    made = ImageSet(images, labels, tuple("abcdefghij"), "cifar10", "hand-made")
    monkeypatch.setitem(classification._IN_MEMORY, "cifar10", lambda split: made)
    result = train(small, Run.open(tmp_path, small))
    assert result["data"] == "cifar10"
    assert set(result) == {"data", "float", "W1", "W1A2"}


def imagenet_tree(folder):
    """Two classes with a few JPEGs of odd sizes, as the registered download lays them out."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for wnid in ("n01440764", "n01443537"):
            place = folder / "imagenet" / split / wnid
            place.mkdir(parents=True)
            for k in range(count):
                pixels = random.integers(0, 256, (230 + 7 * k, 300 - 11 * k, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG")
                (place / f"{wnid}_{k}.JPEG").write_bytes(buffer.getvalue())


def test_full_scale_on_a_hand_made_imagenet_resumes_its_sampler(tmp_path, monkeypatch):
    imagenet_tree(tmp_path)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    changes = {"arms": ["W1"], "batch_size": 4, "float_steps": 2, "steps": 2, "compile": False, "data_workers": 0}
    config = PAPER.config("full", device="cpu", bf16=False, calibration_examples=4, **changes)
    result = train(config, Run.open(tmp_path / "run", config))
    assert set(result) == {"data", "float", "W1"}

    batches = data.training_batches(data.load(config, ALONE), config)
    seen = [next(batches) for _ in range(4)]  # 12 images: the fourth batch belongs to the second epoch
    again = data.training_batches(data.load(config, ALONE), config)
    again.load_state_dict({"epoch": 0, "position": 1})
    for wanted in seen[1:]:
        images, labels = next(again)
        assert torch.equal(images, wanted[0])
        assert torch.equal(labels, wanted[1])


def test_a_part_of_a_folder_holds_all_its_classes(tmp_path, monkeypatch):
    """Catches: the first images of a folder that is sorted by class, which are those of its first classes."""
    imagenet_tree(tmp_path)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    few = {"batch_size": 4, "train_examples": 4, "test_examples": 2, "data_workers": 0}
    config = PAPER.config("full", device="cpu", **few)
    task = data.load(config, ALONE)
    assert sorted(next(data.training_batches(task, config))[1].tolist()) == [0, 0, 1, 1]
    assert [labels.tolist() for _, labels in task.test_batches()] == [[0, 1]]
    calibration = torch.cat(list(task.calibration_inputs(2, 1)))
    plain = replace(task.train, augment=False)
    first_of_each = [normalize(plain.image(k)[None], IMAGENET_MEAN, IMAGENET_STD) for k in (0, 6)]
    assert torch.equal(calibration, torch.cat(first_of_each))


def test_training_processes_share_each_batch_of_a_folder(tmp_path, monkeypatch):
    imagenet_tree(tmp_path)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    config = PAPER.config("full", device="cpu", batch_size=4, data_workers=0, augment=False)
    whole = next(data.training_batches(data.load(config, ALONE), config))
    shares = [next(data.training_batches(data.load(config, Workers(r, 2, ALONE.device)), config)) for r in (0, 1)]
    assert torch.equal(torch.stack([s[1] for s in shares], 1).flatten(), whole[1])
    assert torch.equal(torch.stack([s[0] for s in shares], 1).flatten(0, 1), whole[0])


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["W9"]}, "there is no arm 'W9'"),
        ({"arms": []}, "name at least one arm"),
        ({"arms": ["W1A1"]}, "starts from 'W1', which must stand before it"),
        ({"learning_rate": 0}, "learning_rate.*greater than 0; got 0"),
        ({"steps": 1.5}, r"steps.*got 1\.5"),
        ({"learning_rates": 0.1}, "did you mean learning_rate"),
        ({"model": "resnet19"}, "resnet20"),
    ],
)
def test_an_impossible_config_is_refused_in_words(changes, message):
    with pytest.raises(ConfigError, match=message):
        PAPER.config("smoke", **changes)


def test_float_weights_that_do_not_exist_or_do_not_fit(tmp_path):
    config = QUICK.override(float_weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(InputError, match="there is no file"):
        train(config, Run.open(tmp_path / "a", config))
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    config = QUICK.override(float_weights=str(tmp_path / "bad.safetensors"))
    with pytest.raises(InputError, match="does not fit"):
        train(config, Run.open(tmp_path / "b", config))


def test_float_weights_from_another_run_are_used(tmp_path):
    first = Run.open(tmp_path / "first", QUICK)
    train(QUICK, first)
    path = tmp_path / "first" / "float" / "weights.safetensors"
    config = QUICK.override(float_weights=str(path))
    result = train(config, Run.open(tmp_path / "second", config))
    assert result["float"] == first.part("float").result
    assert (tmp_path / "second" / "float" / "weights.safetensors").read_bytes() == path.read_bytes()


def test_missing_imagenet_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    config = PAPER.config("full", device="cpu")
    with pytest.raises(DataError, match="imagenet"):
        train(config, Run.open(tmp_path / "run", config))


def test_lesson_data_falls_back_to_the_digits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert data.load(PAPER.config("lesson"), ALONE).name == "digits"


@pytest.mark.skipif(not (paths.data_dir() / "fashion-mnist").is_dir(), reason="LABKIT_DATA holds no fashion-mnist/")
def test_lesson_uses_fashion_mnist_where_it_is():
    task = data.load(PAPER.config("lesson"), ALONE)
    assert (task.name, task.train_examples, task.image_size) == ("fashion-mnist", 8000, 28)


def test_seed_decides_everything_but_the_device(tmp_path):
    first = train(QUICK, Run.open(tmp_path / "a", QUICK))
    same = train(QUICK, Run.open(tmp_path / "b", QUICK))
    other = QUICK.override(seed=1)
    assert same == first != train(other, Run.open(tmp_path / "c", other))
