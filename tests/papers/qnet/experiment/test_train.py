"""The whole experiment: every scale's code path, several processes, kills, and the paths that real data takes."""

import json

import numpy as np
import pytest
import torch

from labkit import paths
from labkit.data import IMAGENET_MEAN, IMAGENET_STD, ImageSet, classification, normalize
from labkit.errors import ConfigError, DataError, InputError
from labkit.papers.qnet import ARMS, PAPER, build_model
from labkit.papers.qnet.experiment import data
from labkit.papers.qnet.experiment.evaluate import accuracy_in_mode, gradient_error
from labkit.papers.qnet.experiment.train import activation_method, load_arm, train, weight_method
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.soft_quantizer import SoftQuantizer, set_temperature
from labkit.papers.qnet.method.weights import quantize_weights
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

ALONE = Workers(0, 1, torch.device("cpu"))
QUICK = PAPER.config("smoke", float_steps=40, steps=30, test_examples=200, calibration_examples=200, device="cpu")


@pytest.mark.slow
def test_smoke_learns_and_reports_every_number(smoke_run):
    run = smoke_run(PAPER)
    result = run.result
    assert result["data"] == "digits"
    assert result["float"]["hard"] > 95  # over 12 seeds 98.5, deviation 0.5; as deployed 98.6, deviation 0.4
    assert set(result["W2"]) == {"ptq", "ptq_bn", "gradient_error", "soft", "hard", "hard_bn"}
    assert result["W2"]["hard"] > 95
    assert abs(result["W2"]["soft"] - result["W2"]["hard"]) < 2
    lines = run.part("W2").metrics()
    assert [line["temperature"] for line in lines] == sorted(line["temperature"] for line in lines)
    assert lines[0]["still_learning"] == 1 > lines[-1]["still_learning"]
    assert sum(lines[0]["histogram"]) == pytest.approx(16 * 32 * 9, rel=0.01)


MECHANISMS = (  # one arm for each way of quantising, of training, and of beginning
    "W3pm4", "W2-thresholds", "W1-official", "W2-official", "TWN", "DoReFa-W2", "LSQ-W2",
    "A2", "A1-bell", "A1-hard", "A2-LSQ", "A1-XNOR", "A2-HWGQ", "A2-DoReFa",
    "W1", "W1A1", "W1A1-again", "W1A1-free-LSQ", "BWN", "BWN-A1-hard",
)  # fmt: skip


@pytest.mark.slow
def test_every_mechanism_trains_a_few_steps(tmp_path):
    """Catches: an arm whose methods, stage or schedule do not fit together."""
    config = QUICK.override(arms=MECHANISMS, float_steps=4, steps=3, test_examples=50, calibration_examples=50)
    result = train(config, Run.open(tmp_path, config))
    for name in MECHANISMS:
        assert all(0 <= result[name][key] <= 100 for key in ("soft", "hard", "hard_bn", "ptq", "ptq_bn"))


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_made_of_methods_that_there_are(name):
    arm = ARMS[name]
    if arm.weights:
        weight_method(arm.weights)
    if arm.activations:
        activation_method(arm.activations)
    assert not arm.start or ARMS[arm.start].weights == arm.weights


@pytest.mark.slow
def test_the_official_recipe_rises_once_an_epoch(tmp_path):
    config = QUICK.override(arms=["W1-official"], batch_size=300, float_steps=2, steps=12, log_every=1)  # 3 epochs of 4
    run = Run.open(tmp_path, config)
    train(config, run)
    assert [line["temperature"] for line in run.part("W1-official").metrics()] == [100] * 4 + [200] * 4 + [300] * 4


def test_longer_float_training_is_an_arm_without_quantisers(tmp_path):
    config = QUICK.override(arms=["float-longer"])
    result = train(config, Run.open(tmp_path, config))["float-longer"]
    assert result["soft"] == result["hard"]
    assert result["gradient_error"] < 1e-4


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_many_levels_need_no_training_when_thresholds_lie_midway(tmp_path):
    """Sheet check 9: untrained 8-bit weights are as good as float, but for a few of the 597 test images.

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
    lost = result["float"]["hard"] - accuracy_in_mode(model, "hard", task, ALONE)
    assert abs(lost) < 100 * 10 / 597  # over 12 seeds 0 to 2 images, mean 0.6; untrained 1-bit weights lose hundreds

    weights = torch.randn(20_000, generator=torch.Generator().manual_seed(0))

    def error(levels, init):
        quantizer = SoftQuantizer.fit(weights, LEVELS[levels], init=init).eval()
        return float((quantizer(weights) - weights).square().mean().detach())

    assert error("W8", "mse") < 1e-3 < 0.1 < error("W8", "range")
    assert error("W8", "range") > 0.9 * error("W6", "range")


@pytest.mark.slow
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

SHORT = {
    "arms": ["W1"],
    "float_steps": 15,
    "steps": 10,
    "log_every": 5,
    "test_examples": 100,
    "calibration_examples": 100,
}


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_two_processes_train_the_same_curve_as_one(tmp_path):
    """DDP over gloo with global batch norm: the loss of each step is that of one process with the same global batch."""
    config = PAPER.config("smoke", device="cpu", **SHORT)
    train(config, Run.open(tmp_path / "1", config))
    two = config.override(devices=2)
    PAPER.run(two, Run.open(tmp_path / "2", two))
    for part in ("float", "W1"):
        curves = []
        for processes in ("1", "2"):
            lines = (tmp_path / processes / part / "metrics.jsonl").read_text().splitlines()
            curves.append([json.loads(line)["loss"] for line in lines])
        assert len(curves[0]) > 2
        # One rounding in every weight moves the float curve by 6e-6 at most (24 seeds), the arm's first loss by 4e-6,
        # its later losses by 3e-3: near a threshold, training amplifies it.
        assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-4)
        assert curves[0] == pytest.approx(curves[1], rel=1e-4 if part == "float" else 0.1)


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_a_run_killed_twice_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    """Left within the float network's training, then within an arm's. (Real SIGKILLs: tests/test_faults.py.)"""
    config = QUICK.override(arms=["W1-official", "W2"], float_steps=12, steps=8)
    undisturbed = train(config, Run.open(tmp_path / "calm", config))
    save_if_due = Run.save_if_due

    def leave_after(steps):
        countdown = iter(range(steps - 1))

        def save_and_leave(run, step, state):
            save_if_due(run, step, state)
            if next(countdown, None) is None:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "save_if_due", save_and_leave)
            with pytest.raises(KeyboardInterrupt):
                train(config, Run.open(tmp_path / "killed", config, checkpoint_seconds=0.0))

    leave_after(7)  # of 12 float steps
    leave_after(5 + 3)  # the rest of them, and 3 of 8 steps of the first arm
    assert train(config, Run.open(tmp_path / "killed", config)) == undisturbed
    for part in ("float", "W1-official", "W2"):
        name = f"{part}/weights.safetensors"
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


# -- the larger scales on hand-made data of the real layout -----------------------------------------------------------


@pytest.mark.slow
def test_gpu_scale_on_a_cifar_like_archive(tmp_path, monkeypatch):
    """CIFAR-10's ResNet-20 path, with augmentation and bfloat16, on a few hand-made images."""
    random = np.random.default_rng(0)
    small = PAPER.config("gpu", device="cpu", arms=["W1", "W1A2"], batch_size=4, float_steps=1, steps=1, compile=False)
    small = small.override(calibration_examples=8)
    images = torch.from_numpy(random.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 10, 12))
    dataset = ImageSet(images, labels, tuple("abcdefghij"), "cifar10", "hand-made")
    monkeypatch.setitem(classification._IN_MEMORY, "cifar10", lambda split: dataset)
    result = train(small, Run.open(tmp_path, small))
    assert result["data"] == "cifar10"
    assert set(result) == {"data", "float", "W1", "W1A2"}


@pytest.mark.slow
def test_full_scale_on_a_hand_made_imagenet(imagenet, tmp_path):
    few = {"arms": ["W1"], "batch_size": 2, "float_steps": 1, "steps": 1, "test_examples": 2, "calibration_examples": 2}
    config = PAPER.config("full", device="cpu", bf16=False, compile=False, data_workers=0, **few)
    result = train(config, Run.open(tmp_path / "run", config))
    assert set(result) == {"data", "float", "W1"}
    (images, _), *_ = data.load(config, ALONE).test_batches()
    normal = normalize(images, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(data.load(config, ALONE).to_input(images), normal)


def test_images_are_normalized_by_the_training_images_in_use_and_cropped_after_that():
    """The border of a crop is 0 after normalisation: the mean colour."""
    config = PAPER.config("smoke", train_examples=300, augment=True, device="cpu")
    task = data.load(config, ALONE)
    inputs = torch.cat(list(task.calibration_inputs(300, 300)))
    torch.testing.assert_close(inputs.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    images, _ = next(data.training_batches(task, config))
    assert images.min() == inputs.min()  # a digit's background is its darkest value
    assert (images == 0).any()  # no pixel has the mean colour but those of a border


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
    with pytest.raises(InputError, match="not a safetensors file"):
        train(config, Run.open(tmp_path / "b", config))


@pytest.mark.slow
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


@pytest.mark.shapes_unchecked
@pytest.mark.slow
def test_seed_decides_everything_but_the_device(tmp_path):
    first = train(QUICK, Run.open(tmp_path / "a", QUICK))
    same = train(QUICK, Run.open(tmp_path / "b", QUICK))
    other = QUICK.override(seed=1)
    assert same == first != train(other, Run.open(tmp_path / "c", other))
