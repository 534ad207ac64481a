"""Hand-made features against known pictures and OpenCV's Lab; ResNet layers against torch's own order; strides."""

import io

import cv2
import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.crt.method.features import (
    BINS,
    HAND_MADE,
    Features,
    HandMade,
    Learned,
    ResNetFeatures,
    SmallNet,
    hand_made,
    normalized_power,
    orientations,
    rgb_to_lab,
)
from labkit.vision import resnet18, resnet50


def test_lab_is_opencvs():
    rgb = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    wanted = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    actual = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(actual, wanted, atol=0.4)  # OpenCV looks its cube roots up in a table
    known = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    values = rgb_to_lab(known[:, :, None, None])[:, :, 0, 0]
    wanted = torch.tensor([[100.0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]])
    torch.testing.assert_close(values, wanted, rtol=0, atol=0.05)


@pytest.mark.parametrize(("angle", "bin_"), [(0, 0), (40, 2), (90, 4.5), (140, 7)])
def test_a_ramp_has_one_orientation(angle, bin_):
    """Brightness grows along `angle`; unsigned, nine bins over 180 degrees.  A ramp the other way is the same."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    turn = torch.tensor(angle * torch.pi / 180)
    for sign in (1, -1):
        grey = 0.5 + sign * 0.01 * ((x - 16) * turn.cos() + (y - 16) * turn.sin())
        actual = orientations(grey.expand(1, 3, -1, -1), 4)[0, :, 3:5, 3:5].mean((1, 2))
        weights = actual / actual.sum()
        lower, share = int(bin_) % BINS, bin_ % 1
        assert float(weights[lower]) == pytest.approx(1 - share, abs=1e-3)
        assert float(weights[(lower + 1) % BINS]) == pytest.approx(share, abs=1e-3)


def test_contrast_hardly_matters_and_brightness_does_not():
    pictures = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    plain = orientations(pictures, 4)
    torch.testing.assert_close(orientations(pictures + 0.1, 4), plain, rtol=0, atol=1e-4)
    assert float((orientations(0.5 + (pictures - 0.5) * 1.5, 4) - plain).abs().max()) < 0.15


def test_a_shift_by_a_cell_shifts_the_map_by_a_cell():
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for stride in (2, 4):
        plain, moved = hand_made(pictures, stride), hand_made(pictures.roll(stride, 3), stride)
        torch.testing.assert_close(moved[..., 4:-4, 4:-4], plain.roll(1, 3)[..., 4:-4, 4:-4], rtol=0, atol=1e-4)


def test_batches_do_not_mix():
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hand_made(pictures, 4)[1:2], hand_made(pictures[1:2], 4))


def test_maps_and_strides():
    pictures = torch.rand(1, 3, 64, 64)
    assert isinstance(HandMade(), Features)
    same = HandMade()(pictures)
    assert same.second[0] is same.first
    fine = HandMade(second=2)
    maps = fine(pictures)
    assert maps.first.shape == (1, HAND_MADE, 16, 16)
    assert maps.second[0].shape == (1, HAND_MADE, 32, 32)
    assert fine.strides == (2,)
    learned = Learned(SmallNet())(pictures)
    assert [m.shape[1:] for m in learned.second] == [(32, 16, 16), (16, 16, 16)]
    torch.testing.assert_close(learned.second[0].norm(dim=1), torch.ones(1, 16, 16))
    with pytest.raises(InputError, match="multiple of the stride"):
        hand_made(torch.rand(1, 3, 30, 30), 4)


@pytest.mark.parametrize(("depth", "channels"), [(18, (128, 256)), (50, (512, 1024))])
def test_resnet_layers(depth, channels):
    actual = ResNetFeatures(depth)(torch.rand(1, 3, 64, 64))
    assert actual.first.shape == (1, channels[1], 4, 4)
    assert [m.shape[1] for m in actual.second] == list(channels)
    assert float(actual.first.square().mean()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_resnet_weights_from_a_file(tmp_path, ending):
    from safetensors.torch import save_file

    net, path = resnet18(), tmp_path / f"resnet18.{ending}"
    (torch.save if ending == "pth" else save_file)(net.state_dict(), path)
    features = ResNetFeatures(18, path)
    torch.testing.assert_close(features.net.conv1.weight, net.conv1.weight.detach())
    net.eval()
    x = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    outputs = {}
    net.layer2.register_forward_hook(lambda m, i, o: outputs.update(second=o))
    with torch.no_grad():
        net((x - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(features(x).second[0], outputs["second"], rtol=1e-4, atol=1e-4)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="depth must be 18 or 50"):
        ResNetFeatures(34)
    with pytest.raises(InputError, match="no weight file"):
        ResNetFeatures(18, tmp_path / "nothing.pth")


@pytest.mark.slow
def test_weight_files_that_are_none(tmp_path):
    """Cut off, of something else, of another network, not finite: each in words; and nothing is unpickled."""
    net = resnet18().state_dict()
    stream = io.BytesIO()
    torch.save(net, stream)
    spoilt = {**net, "conv1.weight": torch.full_like(net["conv1.weight"], torch.nan)}
    for content, words in (
        (stream.getvalue()[:5000], "is damaged, or holds no weights"),
        (b"", "is damaged, or holds no weights"),
        (b"cos\nsystem\n(S'true'\ntR.", "is damaged, or holds no weights"),
        ([1, 2], "something else than tensors"),
        ({"conv1.weight": "text"}, "something else than tensors"),
        (resnet50().state_dict(), "another network's weights"),
        ({"conv1.weight": net["conv1.weight"]}, "another network's weights"),
        (spoilt, "'conv1.weight' holds numbers that are not finite"),
    ):
        path = tmp_path / "weights.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(InputError, match=words):
            ResNetFeatures(18, path)
    (tmp_path / "weights.safetensors").write_bytes(bytes(100))
    with pytest.raises(InputError, match="is damaged, or holds no weights"):
        ResNetFeatures(18, tmp_path / "weights.safetensors")


def test_power():
    maps = torch.randn(2, 3, 4, 4) * torch.tensor([1.0, 50.0])[:, None, None, None]
    torch.testing.assert_close(normalized_power(maps).square().mean((1, 2, 3)), torch.ones(2))
