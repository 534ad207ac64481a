"""The ten lines of the notebook, with a model and images that the repository does not otherwise hold; exported runs."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from labkit import paths
from labkit.errors import InputError
from labkit.papers.brelu import load
from labkit.papers.brelu.experiment.export import arms, export

from .zoo import TorchvisionResNet, trained_like


def snippet() -> str:
    """The first block of Python behind the notebook's heading 10."""
    text = (paths.root() / "notebooks" / "02_brelu.py").read_text()
    _, _, after = text.partition("# ## 10 ")
    block = after.partition("# ```python\n")[2].partition("# ```")[0]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines())


def test_the_ten_lines(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in snippet().splitlines() if line]
    assert 0 < len(lines) <= 10
    my_model, my_images = trained_like(TorchvisionResNet, 16)
    with torch.no_grad():
        wanted = my_model(my_images)
    trained = []

    def my_training_loop(network: torch.nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
        F.mse_loss(network(my_images), wanted).backward()
        optimizer.step()
        trained.append(network)

    names = {
        "my_model": my_model, "my_images": my_images, "my_training_loop": my_training_loop,
        "my_batches": [(images, None) for images in my_images.split(8)],
    }  # fmt: skip
    exec("\n".join(lines), names)
    assert len(trained) == 1
    assert sorted(os.listdir(tmp_path)) == ["integer.onnx", "integer.safetensors"]
    assert torch.equal(names["scores"], names["integer"](my_images))
    assert float((names["scores"] - wanted).abs().max()) < 0.12 * float(wanted.abs().max())
    assert (tmp_path / "integer.safetensors").stat().st_size < 0.6 * 4 * sum(p.numel() for p in my_model.parameters())


@pytest.mark.slow
def test_a_run_is_exported_and_loaded(finished, tmp_path):
    config, run, _ = finished
    assert arms(config, run) == ("superresolution", "artifacts", "classification", "mobilenet")
    for arm, shape in (("superresolution", (1, 1, 20, 24)), ("mobilenet", (2, 1, 8, 8))):
        folder: Path = tmp_path / arm
        folder.mkdir()
        export(config, run, arm, folder)
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(load(folder)(x)).all()
        assert torch.equal(load(folder)(x), load(folder / "model.safetensors")(x))
    with pytest.raises(InputError, match="no integer network 'vdsr'; there are superresolution"):
        export(config, run, "vdsr", tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "nothing")
