"""Algorithm IE on data that the repository does not hold: the ten lines of the notebook, and a folder of pictures."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from labkit import paths
from labkit.cli.app import main
from labkit.papers.itid import BatchModifier, Cutouts, Swap


class WildlifeCameras(Dataset):
    """Made up: two kinds of animal, bright above or bright below, in 24x20 pictures of 8 bits by three cameras with a
    tint each. Animal and camera go together in 9 of 10 pictures."""

    def __init__(self, count=240, seed=0):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 2, count)
        self.cameras = np.where(rng.random(count) < 0.9, self.labels, rng.integers(0, 3, count))
        tints = np.array([[250, 120, 120], [120, 250, 120], [120, 120, 250]])
        self.images = rng.integers(0, 60, (count, 3, 24, 20)).astype(np.uint8)
        for image, label, camera in zip(self.images, self.labels, self.cameras, strict=True):
            half = slice(0, 12) if label else slice(12, 24)
            image[:, half] = image[:, half] // 2 + (tints[camera] // 2)[:, None, None]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, k):
        return torch.from_numpy(self.images[k]), int(self.labels[k]), int(self.cameras[k])


class Looks(nn.Module):
    """A network that takes 8 bits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 20, 2))

    def forward(self, images):
        assert images.dtype == torch.uint8
        return self.layers(images / 255)


def snippet():
    """The first python block below heading 10."""
    text = (paths.root() / "notebooks" / "05_itid.py").read_text().partition("# ## 10")[2]
    block = re.search(r"# ```python\n(.*?)# ```", text, re.DOTALL).group(1)
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines())


def test_the_ten_lines_run_on_a_dataset_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = snippet()
    assert len([line for line in code.splitlines() if line]) <= 10
    torch.manual_seed(0)
    dataset, model = WildlifeCameras(), Looks()
    names = {
        "my_dataset": dataset, "my_model": model, "my_labels": dataset.labels, "my_cameras": dataset.cameras,
        "my_optimizer": torch.optim.Adam(model.parameters(), 1e-2),
    }  # fmt: skip
    before = model.layers[1].weight.detach().clone()
    for _ in range(5):
        exec(compile(code, "take home", "exec"), names)
    assert not torch.equal(before, model.layers[1].weight)
    right = (model(torch.from_numpy(dataset.images)).argmax(1) == torch.from_numpy(dataset.labels)).double().mean()
    assert float(right) > 0.9  # 1.00 in 20 seeds: the animals are easy, chance is .5


def test_animals_before_the_backgrounds_of_other_photographs():
    """IE-swap where masks are known: content is the photograph with its mask, the nuisance another photograph."""

    class WithMasks(WildlifeCameras):
        def __getitem__(self, k):
            image, label, _ = super().__getitem__(k)
            mask = torch.zeros(1, 24, 20, dtype=torch.uint8)
            mask[:, slice(0, 12) if label else slice(12, 24)] = 255
            return torch.cat([image, mask]), label, image

    modify = BatchModifier(Swap(), renderer=Cutouts())
    torch.manual_seed(0)
    dataset = WithMasks()
    images, labels = next(iter(DataLoader(dataset, batch_size=64, collate_fn=modify.collate)))
    originals = torch.from_numpy(dataset.images[:64])
    assert images.dtype == torch.uint8
    above = labels.bool()
    assert torch.equal(images[above, :, :12], originals[above, :, :12])  # the animals stay
    assert torch.equal(images[~above, :, 12:], originals[~above, :, 12:])
    theirs = images[above, :, 12:].flatten(1).unique(dim=0)
    assert len(theirs) == int(above.sum())  # each before another's background
    donors = originals[:, :, 12:].flatten(1).tolist()
    assert all(background in donors for background in theirs.tolist())
    assert (images != originals).any((1, 2, 3)).double().mean() > 0.9


@pytest.mark.slow
def test_the_command_sweeps_over_a_folder_of_ones_own(tmp_path, capsys, monkeypatch):
    """Four nights of two animals; from the command line, without data of ours."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "empty"))
    dataset = WildlifeCameras(60)
    for k, (image, label, _) in enumerate(dataset):
        file = tmp_path / "nights" / f"night-{k % 3}" / ("owl", "fox")[label] / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    arguments = ["train", "itid", "--scale", "smoke", "--run-dir", str(tmp_path / "run"), "-p", "experiments", "",
                 "-p", "sweep", f"folder:{tmp_path / 'nights'}", "-p", "algorithms", "ERM,IE-edit", "-p", "image_size",
                 "12", "-p", "sweep_steps", "2", "-p", "coverage_samples", "0"]  # fmt: skip
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "-p", "arms", ""])
    assert (tmp_path / "run" / "result.json").exists()
    assert "training at scale smoke" in capsys.readouterr().out
