"""Trained classifiers leave the run as one file, and come back as they were."""

import json

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.itid import PAPER, load
from labkit.papers.itid.experiment import data
from labkit.papers.itid.experiment.config import Config
from labkit.papers.itid.experiment.evaluate import measures_of
from labkit.papers.itid.experiment.export import FILE, arms, export
from labkit.papers.itid.experiment.jobs import build_scene
from labkit.workbench.runs import Run


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)])
def trained(request, tmp_path_factory):
    config = Config(
        experiments=("backgrounds", "two-colours"), arms=("ERM", "IE-swap", "IRM-1e2"), replicas=1, steps=12,
        train_examples=120, test_examples=100, probes=0, stacked=request.param,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    PAPER.run(config, Run.open(folder, config))
    return config, folder


@pytest.mark.parametrize("name", ["backgrounds/IE-swap", "backgrounds/ERM", "two-colours/IRM-1e2"])
def test_the_loaded_classifier_answers_as_the_trained_one_did(trained, tmp_path, name):
    """Its accuracies on the test data are those of the result; 8-bit images are answered, too."""
    config, folder = trained
    run = Run.open(folder, config)
    export(config, run, name, tmp_path)
    classifier = load(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    experiment, arm = name.split("/")
    scene = build_scene(config.experiment(experiment), config.seed, 0)
    table = torch.stack([classifier.predict(scene.test_images(z)) for z in range(scene.columns)], 1)
    wanted = run.result[experiment]["arms"][arm]
    assert measures_of(table, scene)["target"] == pytest.approx(wanted["target"], abs=0.021)  # two images: rounding
    images = scene.test_images(0)[:50]
    coarse = classifier((images * 255).round().to(torch.uint8))
    torch.testing.assert_close(coarse, classifier(images), rtol=0, atol=0.1)  # half a grey level
    assert len(classifier.classes) == scene.classes
    assert not classifier.training


def test_arms_are_named_and_ours_comes_first(trained, tmp_path):
    config, folder = trained
    run = Run.open(folder, config)
    assert arms(config, run) == (
        "backgrounds/IE-swap", "two-colours/IE-swap", "backgrounds/ERM", "backgrounds/IRM-1e2", "two-colours/ERM",
        "two-colours/IRM-1e2",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"no classifier 'IE-swap'; there are backgrounds/IE-swap, two"):
        export(config, run, "IE-swap", tmp_path)
    assert not list(tmp_path.iterdir())
    other = config.override(seed=1)
    assert arms(other, Run.open(tmp_path / "new", other)) == ()


def test_bad_files_and_bad_images_are_refused(trained, tmp_path):
    config, folder = trained
    export(config, Run.open(folder, config), "backgrounds/ERM", tmp_path)
    classifier = load(tmp_path / FILE)
    with pytest.raises(InputError, match=r"images must be \(n, 3, 8, 8\); got \(2, 3, 9, 9\)"):
        classifier(torch.rand(2, 3, 9, 9))
    with pytest.raises(InputError, match="pixels must be uint8"):
        classifier(torch.zeros(2, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nowhere")
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-7] ^= 1
    (tmp_path / "altered").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "altered")
    wider = classifier.header.model_copy(update={"hidden": 100_000})  # a terabyte, if it were believed
    classifier.header = wider
    classifier.save(tmp_path / "wider")
    with pytest.raises(InputError, match="its header and its tensors do not fit"):
        load(tmp_path / "wider")


def test_the_header_is_strict(trained, tmp_path):
    config, folder = trained
    export(config, Run.open(folder, config), "backgrounds/ERM", tmp_path)
    header = load(tmp_path).header
    assert json.loads(header.model_dump_json())["network"] == "mlp"
    for change in ({"network": "vit"}, {"shape": (3, 8)}, {"shape": (3, 8, 10**9)}, {"outputs": 0}, {"classes": ("a",)},
                   {"middle": float("nan")}, {"format": "labkit itid classifier 2"}):  # fmt: skip
        with pytest.raises(ValueError, match="validation error"):
            type(header).model_validate(header.model_dump() | change)


def test_data_are_not_needed_to_load(trained, tmp_path, monkeypatch):
    config, folder = trained
    export(config, Run.open(folder, config), "backgrounds/IE-swap", tmp_path)
    monkeypatch.setattr(data, "build", lambda *_: pytest.fail("looked at data"))
    assert load(tmp_path).predict(torch.rand(3, 3, 8, 8)).shape == (3,)
