"""DomainBed's protocol and the large scales, a few steps of each on hand-made data of the real layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.data.images import ImageSet
from labkit.errors import DataError, InputError
from labkit.papers.itid import PAPER
from labkit.papers.itid.experiment import data, domainbed
from labkit.papers.itid.experiment.config import CONFIGS, Config
from labkit.papers.itid.method.modifiers import cell_counts
from labkit.papers.itid.method.renderers import Rotations
from labkit.workbench import training
from labkit.workbench.runs import Run


@pytest.fixture
def small_batches(monkeypatch):
    """Draws with batches of four, rotations by three angles: the same code in a tenth of the time."""
    original = domainbed.draw_hyperparameters
    monkeypatch.setattr(domainbed, "draw_hyperparameters", lambda *a: original(*a) | {"batch": 4})
    monkeypatch.setattr(data, "Rotations", lambda: Rotations((0.0, 30.0, 75.0)))


@pytest.fixture
def hand_made_mnist(monkeypatch):
    """Grey 28x28 images in MNIST's place."""
    generator = torch.Generator().manual_seed(0)

    def images(split):
        n = 3000 if split == "train" else 1000
        pixels = torch.randint(0, 256, (n, 1, 28, 28), generator=generator).byte()
        return ImageSet(pixels, torch.arange(n) % 10, tuple("0123456789"), "mnist", "hand-made")

    monkeypatch.setattr(data, "mnist_or_fashion", images)


@pytest.fixture
def hand_made_cifar(monkeypatch):
    def images(split):
        n = 120 if split == "train" else 40
        pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
        return ImageSet(pixels, torch.arange(n) % 10, tuple("0123456789"), "cifar10", "hand-made")

    monkeypatch.setattr(data.data, "cifar10", images)


@pytest.fixture
def domains(tmp_path, monkeypatch):
    """LABKIT_DATA/tiny/<domain>/<class>/<image>."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 2, 6, 20, 24, 3), dtype=np.uint8)
    for d, domain in enumerate(("art", "photo", "sketch")):
        for c, name in enumerate(("cat", "dog")):
            (tmp_path / "tiny" / domain / name).mkdir(parents=True)
            for k in range(6):
                Image.fromarray(pixels[d, c, k]).save(tmp_path / "tiny" / domain / name / f"{k}.png")
    return tmp_path / "tiny"


def test_environments_have_the_protocols_correlations(hand_made_mnist):
    environments = data.domainbed_environments("colored-mnist", 0)
    assert [len(e) for e in environments] == [1334, 1333, 1333]
    agree = [float((e.labels == e.nuisance).double().mean()) for e in environments]
    assert agree == pytest.approx([0.9, 0.8, 0.1], abs=0.05)  # they scatter by .011
    assert environments[0].images.shape[1:] == (2, 14, 14)
    rotated = data.domainbed_environments("rotated-mnist", 0, 20)
    assert len(rotated) == 6
    assert [set(e.nuisance.tolist()) for e in rotated] == [{k} for k in range(6)]


def test_domain_folder_reads_the_layout_and_says_what_is_wrong(domains):
    found = data.domain_folder(domains)
    assert [len(e) for e in found] == [12, 12, 12]
    assert found[0].images.shape[1:] == (3, 64, 64)
    assert [int(e.environment[0]) for e in found] == [0, 1, 2]
    (domains / "art" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable image"):
        data.domain_folder(domains)
    (domains / "photo" / "dog").rename(domains / "photo" / "horse")
    with pytest.raises(DataError, match=r"they must be the same|not a readable"):
        data.domain_folder(domains)
    with pytest.raises(DataError, match="two or more domains"):
        data.domain_folder(domains / "nowhere")
    with pytest.raises(InputError, match="there is no data set 'pacs'"):
        data.domainbed_environments("pacs", 0)


def test_draws_are_the_defaults_first_then_in_their_ranges():
    assert domainbed.draw_hyperparameters("IRM", 0, 0, 0)["lam"] == 100
    assert domainbed.draw_hyperparameters("V-REx", 0, 0, 0)["lam"] == 10
    drawn = [domainbed.draw_hyperparameters("IRM", 0, t, k) for k in range(1, 40) for t in range(3)]
    assert (
        domainbed.draw_hyperparameters("IRM", 0, 1, 3)
        == domainbed.draw_hyperparameters("IRM", 0, 1, 3)
        != domainbed.draw_hyperparameters("IRM", 0, 2, 3)
    )
    ranges = {"learning_rate": (10**-4.5, 10**-2.5), "batch": (8, 512), "lam": (0.1, 1e5), "anneal": (1, 1e4),
              "eta": (1e-3, 0.1), "alpha": (0.1, 10)}  # fmt: skip
    for name, (low, high) in ranges.items():
        values = [d[name] for d in drawn]
        assert low <= min(values) < (low * high) ** 0.5 < max(values) <= high


def test_batches_hold_equal_shares_of_the_environments_and_hold_outs_are_apart(hand_made_mnist):
    index = domainbed.balanced_indices([50, 70], 16, torch.Generator().manual_seed(0))
    assert int((index < 50).sum()) == 16
    assert int(index.max()) < 120
    environment = data.domainbed_environments("colored-mnist", 0)[0]
    train, held = domainbed.hold_out(environment, 3)
    assert (len(train), len(held)) == (1068, 266)
    both = torch.cat([train.content, held.content]).flatten(1)
    assert len(both.unique(dim=0)) == len(environment.content.flatten(1).unique(dim=0))


@pytest.mark.slow
def test_a_small_sweep_runs_and_resumes(hand_made_mnist, small_batches, tmp_path):
    algorithms = ("IRM", "GroupDRO", "mixup", "IE-weight")  # one per mechanism: penalty, state, second labels, counts
    config = Config(experiments=(), sweep=("colored-mnist",), algorithms=algorithms, draws=1, trials=1,
                    sweep_steps=2, max_images=12)  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path, config))
    found = result["sweep"]["colored-mnist"]
    assert set(found) == {"0", "1", "2"}
    assert set(found["2"]) == set(algorithms)
    assert all(0 <= c["accuracy"] <= 1 and c["regret"] >= 0 for c in found["2"]["IRM"].values())
    with training.workers("cpu") as workers:
        assert domainbed.sweep("colored-mnist", config, workers, Run.open(tmp_path, config)) == found


@pytest.mark.slow
def test_a_sweep_over_photographs_leaves_out_what_cannot_be_rendered(domains, small_batches, tmp_path):
    config = Config(experiments=(), sweep=("folder:tiny",), algorithms=("IE-swap", "IE-edit"), draws=1, trials=1,
                    sweep_steps=1)  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path / "run", config))
    assert set(result["sweep"]["folder:tiny"]["0"]) == {"IE-edit"}


@pytest.mark.slow
def test_the_gpu_configuration_runs(hand_made_mnist, hand_made_cifar, tmp_path):
    """IRM's coloured MNIST with its own arms, CIFAR-10 with ResNet-18: a few steps."""
    config = CONFIGS["gpu"].override(
        replicas=1, steps=2, train_examples=20, test_examples=3, batch_size=4, device="cpu", bf16=False, probes=0,
        arms=("IRM", "oracle", "IE-adaptive", "IE-swap"),
    )  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert result["data"] == "cifar10+mnist"
    assert set(result["colored-mnist"]["arms"]) == {"IRM", "IE-swap", "oracle"}
    assert set(result["cifar-borders"]["arms"]) == {"IE-swap", "IE-adaptive"}


@pytest.mark.slow
def test_the_full_configuration_runs(hand_made_mnist, hand_made_cifar, small_batches, tmp_path):
    """IE-edit turns the rotated digits, and mirrors or recolours CIFAR's."""
    config = CONFIGS["full"].override(
        replicas=1, steps=1, train_examples=20, test_examples=4, batch_size=4, device="cpu", probes=0, bf16=False,
        draws=1, trials=1, sweep_steps=1, max_images=12, algorithms=("IE-edit",), sweep=("rotated-mnist",),
        experiments=("cifar-plain",),
    )  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert set(result["cifar-plain"]["arms"]) == {"ERM", "IE-edit", "IE-edit-mirror"}
    assert set(result["sweep"]["rotated-mnist"]) == set("012")


def test_the_planted_border_follows_the_class(hand_made_cifar):
    experiment = CONFIGS["gpu"].override(train_examples=120, test_examples=40).experiment("cifar-borders")
    scene = data.build(experiment, 0)
    counts = cell_counts(scene.train.labels, scene.train.nuisance)
    assert float(counts.diagonal().sum() / counts.sum()) > 0.85
    inner = scene.train.images[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner, scene.train.content[:, :, 4:-4, 4:-4])
