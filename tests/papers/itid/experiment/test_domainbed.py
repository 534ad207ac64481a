"""DomainBed's protocol and the large scales, a few steps of each on hand-made data of the real layout."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from labkit.data.images import ImageSet
from labkit.errors import DataError, InputError
from labkit.papers.itid import PAPER, load
from labkit.papers.itid.experiment import data, domainbed, export
from labkit.papers.itid.experiment.config import CONFIGS, Config
from labkit.papers.itid.experiment.model import build_network, fitting_network
from labkit.papers.itid.experiment.selection import CRITERIA
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


def environments(name, seed=0, **changes):
    return data.domainbed_environments(name, seed, Config(experiments=(), sweep=(name,), **changes))


def test_environments_have_the_protocols_correlations_and_all_their_pixels(hand_made_mnist):
    domains = environments("colored-mnist")
    assert domains.names == ("+90%", "+80%", "-90%")
    assert [len(e) for e in domains.environments] == [1334, 1333, 1333]
    agree = [float((e.labels == e.nuisance).double().mean()) for e in domains.environments]
    assert agree == pytest.approx([0.9, 0.8, 0.1], abs=0.05)  # they scatter by .011
    first = domains.environments[0]
    assert first.images.shape[1:] == (2, 28, 28)
    assert first.images.dtype == torch.uint8
    assert torch.equal(first.images.sum(1, keepdim=True, dtype=torch.uint8), first.content)
    rotated = environments("rotated-mnist", max_images=20)
    assert [len(e) for e in rotated.environments] == [20] * 6
    assert [set(e.nuisance.tolist()) for e in rotated.environments] == [{k} for k in range(6)]
    with pytest.raises(InputError, match="there is no data set 'pacs'"):
        data.domainbed_environments("pacs", 0, Config())


def picture(path, value=0, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)


def test_a_domain_folder_is_read_without_what_is_hidden(domains):
    """Folders of notebooks and desktops, lists and thumbnails lie about in every data set."""
    for hidden in (".ipynb_checkpoints/cat/0.png", "art/.cache/0.png", "art/cat/.hidden.png"):
        picture(domains / hidden, 9)
    (domains / "art" / "cat" / ".DS_Store").write_bytes(b"desktop")
    (domains / "art" / "cat" / "list.txt").write_text("0.png")
    (domains / "README.md").write_text("about")
    read = data.domain_folder(domains)
    assert read.names == ("art", "photo", "sketch")
    assert read.classes == ("cat", "dog")
    assert [len(e) for e in read.environments] == [12, 12, 12]
    assert [int(e.environment[0]) for e in read.environments] == [0, 1, 2]
    images = data.domain_folder(domains, size=20).environments[1].images
    assert images.shape == (12, 3, 20, 20)
    assert images.dtype == torch.uint8
    wanted = Image.open(domains / "photo" / "dog" / "2.png").resize((20, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(images[8].permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize("most", [5, 40, 99, 100, 0])
def test_max_images_counts_the_images_of_a_domain_and_keeps_the_shares_of_its_classes(tmp_path, most):
    for domain in ("day", "night"):
        for name, count in (("ant", 80), ("bee", 20)):
            for k in range(count):
                picture(tmp_path / domain / name / f"{k:02}.png", k, (8, 8))
    day = data.domain_folder(tmp_path, 8, most).environments[0]
    assert len(day) == (most or 100)
    assert float((day.labels == 0).double().mean()) == pytest.approx(0.8, abs=1 / len(day))
    assert len({(int(y), int(image[0, 0, 0])) for y, image in zip(day.labels, day.images, strict=True)}) == len(day)


def test_what_is_wrong_with_a_domain_folder_is_named(domains):
    (domains / "art" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"art/cat/0.png is damaged.*Replace it"):
        data.domain_folder(domains)
    picture(domains / "art" / "cat" / "0.png", size=(3000, 2))
    with pytest.raises(DataError, match=r"art/cat/0.png has 3,000 x 2 pixels, sides of more than 100 to 1"):
        data.domain_folder(domains)
    (domains / "photo" / "dog").rename(domains / "photo" / "horse")
    with pytest.raises(DataError, match=r"photo holds the classes \['cat', 'horse'\].*they must be the same"):
        data.domain_folder(domains)
    with pytest.raises(DataError, match="two or more domains"):
        data.domain_folder(domains / "nowhere")
    for k in range(4):
        picture(domains / "few" / "a" / "x" / f"{k}.png")
        picture(domains / "few" / "b" / "x" / f"{k}.png")
    with pytest.raises(DataError, match="two or more folders, one for each class; it holds 1"):
        data.domain_folder(domains / "few")
    (domains / "few" / "a" / "y").mkdir()
    (domains / "few" / "b" / "y").mkdir()
    with pytest.raises(DataError, match="a gives 4 images; at least 5 are needed"):
        data.domain_folder(domains / "few")


def test_a_folder_may_lie_anywhere(domains, tmp_path, monkeypatch):
    assert data.domain_path("folder:tiny") == domains
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "elsewhere"))
    assert data.domain_path(f"folder:{domains}") == domains
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.domain_path("folder:~/tiny") == domains
    monkeypatch.chdir(tmp_path)
    assert len(environments("folder:tiny", max_images=6).environments) == 3


def test_the_network_fits_the_images():
    """A pixel in the corner reaches the answer of an image's other corner only where the network sees wide enough."""
    assert fitting_network((1, 28, 28)) == "mnist-cnn"
    assert fitting_network((3, 64, 64)) == fitting_network((3, 40, 20)) == "resnet18-large"
    for size, sees_all in ((28, False), (64, True)):
        network = build_network(fitting_network((3, size, size)), (3, size, size), 0, 2).double().eval()
        features = network[:-3] if not sees_all else torch.nn.Sequential(network[0], *list(network[1].children())[:-2])
        image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        last = features(image)
        gradient = torch.autograd.grad(last[0, :, last.shape[2] // 2, last.shape[3] // 2].sum(), image)[0]
        width = int((gradient.abs().sum((0, 1, 2)) > 0).sum())
        assert width > size * 0.4  # 13 of 28 pixels, 64 of 64


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
    assert {d["weight_decay"] for d in drawn} == {0.0}
    photographs = [domainbed.draw_hyperparameters("IRM", 0, t, k, True) for k in range(1, 40) for t in range(3)]
    assert 8 <= min(d["batch"] for d in photographs) < 16 < 32 < max(d["batch"] for d in photographs) <= 45
    assert (
        1e-6 <= min(d["weight_decay"] for d in photographs) < 1e-4 < max(d["weight_decay"] for d in photographs) <= 1e-2
    )
    for name, (low, high) in ranges.items():
        values = [d[name] for d in drawn]
        assert low <= min(values) < (low * high) ** 0.5 < max(values) <= high


def test_batches_hold_equal_shares_of_the_environments_and_hold_outs_are_apart(hand_made_mnist):
    index = domainbed.balanced_indices([50, 70], 16, torch.Generator().manual_seed(0))
    assert int((index < 50).sum()) == 16
    assert int(index.max()) < 120
    environment = environments("colored-mnist").environments[0]
    train, held = domainbed.hold_out(environment, 3)
    assert (len(train), len(held)) == (1068, 266)
    both = torch.cat([train.content, held.content]).flatten(1)
    assert len(both.unique(dim=0)) == len(environment.content.flatten(1).unique(dim=0))


def swept(folder, name, **changes):
    """A sweep of two steps; the result, and the config."""
    settings = {"draws": 1, "trials": 1, "sweep_steps": 2, "image_size": 16} | changes
    config = Config(experiments=(), sweep=(name,), **settings)
    return PAPER.run(config, Run.open(folder, config)), config


@pytest.mark.slow
def test_a_small_sweep_runs_and_resumes(hand_made_mnist, small_batches, tmp_path):
    algorithms = ("IRM", "GroupDRO", "mixup", "IE-weight")  # one per mechanism: penalty, state, second labels, counts
    result, config = swept(tmp_path, "colored-mnist", algorithms=algorithms, max_images=12)
    table = result["sweep"]["colored-mnist"]
    assert set(table) == {"+90%", "+80%", "-90%"}
    assert set(table["-90%"]) == set(algorithms)
    assert all(0 <= c["accuracy"] <= 1 and c["regret"] >= 0 for c in table["-90%"]["IRM"].values())
    first = domainbed.prepare("colored-mnist", config)
    with training.workers("cpu") as workers:
        assert domainbed.sweep("colored-mnist", first, config, workers, Run.open(tmp_path, config)) == table


@pytest.mark.slow
def test_three_domains_serve_all_that_needs_no_renderer(domains, small_batches, tmp_path):
    """IE-weight included, though its twins train on one domain, where there is nothing to weigh."""
    result, _ = swept(tmp_path / "run", f"folder:{domains}")
    table = result["sweep"][f"folder:{domains}"]
    assert list(table) == ["art", "photo", "sketch"]
    assert list(table["art"]) == ["ERM", "IRM", "V-REx", "GroupDRO", "mixup", "IE-edit", "IE-weight"]
    assert set(table["art"]["IE-weight"]) == set(CRITERIA)


@pytest.mark.slow
def test_two_domains_are_enough_and_larger_images_get_a_deeper_network(domains, small_batches, tmp_path):
    shutil.rmtree(domains / "sketch")
    result, _ = swept(tmp_path / "run", "folder:tiny", image_size=40, algorithms=("ERM", "IE-edit"), sweep_steps=1)
    table = result["sweep"]["folder:tiny"]
    assert set(table) == {"art", "photo"}
    assert set(table["art"]["ERM"]) == {"training-domain", "oracle"}  # no twins without a second training domain
    everything = Config(experiments=(), sweep=("folder:tiny",), image_size=16)
    assert domainbed.algorithms_of(domainbed.prepare("folder:tiny", everything), everything) == (
        "ERM",
        "IRM",
        "IE-edit",
    )


@pytest.mark.parametrize(
    ("algorithm", "count", "words"),
    [
        ("IE-swap", 3, "IE-swap cannot be trained on folder:tiny: photographs cannot be rendered"),
        ("IE-uniform", 3, "IE-edit and IE-weight need no renderer"),
        ("V-REx", 2, "V-REx cannot be trained on folder:tiny: with two domains it trains on one.*a third domain"),
        ("GroupDRO", 2, "where it is plain ERM"),
        ("mixup", 2, "where it is plain ERM"),
        ("IE-weight", 2, "nothing to balance; add a third domain. Leave it out of `algorithms`"),
    ],
)
def test_what_a_data_set_cannot_serve_is_refused_before_any_work(domains, tmp_path, algorithm, count, words):
    """Also before the experiments that stand beside the sweep."""
    for name in ("photo", "sketch")[count - 1 :]:
        shutil.rmtree(domains / name)
    config = CONFIGS["smoke"].override(sweep=("folder:tiny",), algorithms=("ERM", algorithm))
    with pytest.raises(InputError, match=words):
        PAPER.run(config, Run.open(tmp_path / "run", config))
    assert not list((tmp_path / "run").glob("*/"))


def test_a_bad_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "data" / "alone" / "cat").mkdir(parents=True)
    config = CONFIGS["smoke"].override(sweep=(f"folder:{tmp_path / 'data'}",))
    with pytest.raises(DataError, match="two or more domains as <domain>/<class>/<image>; it has alone"):
        PAPER.run(config, Run.open(tmp_path / "run", config))
    assert not list((tmp_path / "run").glob("*/"))


def test_criteria_look_at_the_splits_that_domainbed_looks_at(domains, small_batches, tmp_path, monkeypatch):
    """Trained on the 80 %; held-out fifths select; the oracle has the test environment's fifth, the report the rest."""
    sizes = []
    monkeypatch.setattr(domainbed, "accuracy", lambda networks, batch, workers: sizes.append(batch) or 0.5)
    swept(tmp_path / "run", "folder:tiny", algorithms=("ERM",), sweep_steps=1)
    first = sizes[:4]  # of the network that leaves out `art`, at its one checkpoint: photo, sketch, test, test's fifth
    assert [(int(b.environment[0]), len(b)) for b in first] == [(1, 2), (2, 2), (0, 10), (0, 2)]
    assert [(int(b.environment[0]), len(b)) for b in sizes[4:6]] == [(1, 10), (2, 10)]  # the twins' left-out domains
    tested, fifth = (b.images.flatten(1).tolist() for b in first[2:])
    assert not [image for image in fifth if image in tested]


@pytest.mark.slow
def test_the_network_that_the_training_environments_select_is_kept_and_exported(
    domains, small_batches, tmp_path, monkeypatch
):
    """Of two draws the first is better, at its first checkpoint. The other draw's file is removed."""
    values = itertools.cycle([*[0.9] * 4, *[0.1] * 4, *[0.0] * 4, *[0.2] * 4, *[0.3] * 4, *[0.0] * 4])
    snapshots = []

    def accuracy(networks, batch, workers):
        snapshots.append(networks.weights_of(0)["0.weight"].clone())
        return next(values)

    monkeypatch.setattr(domainbed, "accuracy", accuracy)
    _, config = swept(tmp_path / "run", "folder:tiny", algorithms=("ERM",), draws=2)
    run = Run.open(tmp_path / "run", config)
    kept = [domainbed.part_of("folder:tiny", domainbed.Draw("ERM", 0, 0, k), run).directory / "all" for k in (0, 1)]
    assert [(folder / "weights.safetensors").exists() for folder in kept] == [True, False]
    assert export.arms(config, run) == tuple(f"folder:tiny/{name}/ERM" for name in ("art", "photo", "sketch"))
    (tmp_path / "mine").mkdir()
    export.export(config, run, "folder:tiny/art/ERM", tmp_path / "mine")
    classifier = load(tmp_path / "mine")
    assert torch.equal(classifier.network[0].weight, snapshots[0])
    assert not torch.equal(snapshots[0], snapshots[4])
    assert classifier.classes == ("cat", "dog")
    assert classifier.header.shape == (3, 16, 16)


@pytest.mark.slow
def test_two_processes_sweep_as_one(domains, tmp_path):
    """Default batches of 32 from each domain are dealt out; evaluations are one number in all processes."""
    networks = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        _, config = swept(folder, "folder:tiny", algorithms=("IE-edit",), devices=devices, device="cpu")
        part = domainbed.part_of("folder:tiny", domainbed.Draw("IE-edit", 0, 0, 0), Run.open(folder, config))
        networks.append(load_file(part.directory / "all" / "weights.safetensors"))
    apart = torch.cat([(value - networks[1][name]).flatten() for name, value in networks[0].items()])
    assert float(apart.square().mean().sqrt()) < 1e-4  # a step of Adam moves every weight by 1e-3


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
    assert set(result["sweep"]["rotated-mnist"]) == {"0 degrees", "30 degrees", "75 degrees"}


def test_the_planted_border_follows_the_class(hand_made_cifar):
    experiment = CONFIGS["gpu"].override(train_examples=120, test_examples=40).experiment("cifar-borders")
    scene = data.build(experiment, 0)
    counts = cell_counts(scene.train.labels, scene.train.nuisance)
    assert float(counts.diagonal().sum() / counts.sum()) > 0.85
    inner = scene.train.images[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner, scene.train.content[:, :, 4:-4, 4:-4])
