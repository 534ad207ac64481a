"""SMC: the paper's sizes, where crops lie, which gradients flow where, and the weights of VGG-11."""

from dataclasses import replace

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.stmc.method.architecture import MEDIUM, PAPER, SMALL, Architecture
from labkit.papers.stmc.method.spatial import SpatialMultiCue, convolutions, corners, crop, soft_crop
from labkit.papers.stmc.method.vgg import VGG11, load_vgg11


def test_the_paper_s_sizes_at_224_pixels():
    """Map A 256 x 56 x 56, map B 512 x 14 x 14, cues 512, 512, 256, 256; on the meta device nothing is computed."""
    assert (PAPER.side_of_a, PAPER.side_of_b, PAPER.cue_sizes) == (56, 14, (512, 512, 256, 256))
    assert (PAPER.intra_size, PAPER.inter_size) == (256, 1024)
    with torch.device("meta"):
        net, frames = SpatialMultiCue(PAPER), torch.empty(2, 3, 224, 224)
        a = net.trunk(frames)
        b = net.middle(a)
        assert a.shape == (2, 256, 56, 56)
        assert b.shape == (2, 512, 14, 14)
        assert net.top(b).shape == (2, 512, 7, 7)
        assert net.pose.maps(b).shape == (2, 7, 56, 56)
        assert net.hand(torch.empty(2, 256, 24, 24)).shape == (2, 256, 6, 6)
        assert net.face(torch.empty(2, 256, 16, 16)).shape == (2, 256, 8, 8)
    assert sum(layer.kernel_size == (3, 3) for layer in convolution_layers(net.trunk, net.middle, net.top)) == 9


def convolution_layers(*rows):
    return [layer for row in rows for layer in row if isinstance(layer, torch.nn.Conv2d)]


def test_the_width_multiplies_all_channels():
    half = replace(PAPER, width=0.5)
    assert half.cue_sizes == (256, 256, 128, 128)
    assert (half.intra_size, half.inter_size) == (128, 512)
    assert MEDIUM.cue_sizes == half.cue_sizes


@pytest.mark.parametrize(("side", "low", "high"), [(16, 7, 47), (24, 11, 43)])
def test_windows_of_the_author_s_network(side, low, high):
    """Rows h - 7 to h + 8 (24: h - 11 to h + 12) around h = round(55 J), clamped to [7, 47] (24: [11, 43])."""
    for h in range(56):
        at = torch.tensor([[[h / 55, 0.5]]])
        assert corners(at, 56, side)[0, 0, 0] == min(max(h, low), high) - (side // 2 - 1)
    for j, first in ((0.0, 0), (1.0, 56 - side)):
        assert corners(torch.full((1, 1, 2), j), 56, side).tolist() == [[[first, first]]]


def test_a_crop_has_its_full_size_wherever_the_point_lies():
    at = torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(0))
    at[:4] = torch.tensor([0.0, 1.0]).repeat(4, 2, 1)
    assert crop(torch.randn(50, 3, 20, 20), at, 6).shape == (50, 2, 3, 6, 6)


def test_soft_crops_are_the_whole_ones_on_cells_and_carry_a_gradient_to_the_point():
    maps = torch.randn(4, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float()
    cells = torch.randint(2, 17, (4, 2, 2), generator=torch.Generator().manual_seed(1))
    at = (cells / 19).requires_grad_()
    torch.testing.assert_close(soft_crop(maps, at, 6), crop(maps, at, 6), rtol=1e-4, atol=1e-4)
    soft_crop(maps, at, 6).square().sum().backward()
    assert at.grad.abs().sum() > 0
    assert not crop(maps, at, 6).requires_grad


def network(**changes):
    torch.manual_seed(0)
    return SpatialMultiCue(replace(SMALL, **changes)).double()


def frames(count=3):
    return torch.rand(count, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_no_cue_teaches_the_pose_branch_and_its_own_loss_does():
    """The crops are whole cells and the pose feature is detached: hands, face and pose say nothing to the heat maps."""
    net = network()
    output = net(frames())
    sum(cue.sum() for cue in output.cues).backward()
    assert all(p.grad is None or not p.grad.any() for p in net.pose.parameters())
    net(frames()).points.square().sum().backward()
    assert all(p.grad is not None for p in net.pose.parameters())
    assert any(p.grad.any() for p in net.pose.parameters())


def test_soft_crops_teach_the_pose_branch():
    net = network(crops="soft")
    sum(cue.sum() for cue in net(frames()).cues[1:3]).backward()
    assert any(p.grad is not None and p.grad.any() for p in net.pose.parameters())


def test_both_hands_share_one_network():
    """Swapping the two hands' points swaps the halves of the hand feature."""
    net = network(points=7).eval()
    at = torch.rand(3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    swapped = at[:, [0, 1, 2, 3, 4, 6, 5]]
    one, other = (net(frames(), points).cues[1] for points in (at, swapped))
    torch.testing.assert_close(one, torch.cat(other.chunk(2, 1)[::-1], 1))


def test_features_of_a_frame_do_not_depend_on_its_neighbours():
    """What one sentence gives does not change with the others."""
    net = network().eval()
    together, alone = net(frames(4)), [net(frame[None]) for frame in frames(4)]
    for k, cue in enumerate(together.cues):
        torch.testing.assert_close(cue, torch.cat([one.cues[k] for one in alone]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trunk": "64 X"}, "row of convolutions"),
        ({"size": 50}, "halved"),
        ({"hand_window": 5}, "window is even"),
        ({"face_window": 30}, "fits into map A"),
        ({"cues": ()}, "cues are some of"),
        ({"cues": ("full", "full")}, "each once"),
        ({"pose_branch": False}, "switched off"),
        ({"hand_points": (5, 9)}, "points 0 to 6"),
        ({"width": 0.0}, "width"),
        ({"channels": 10**9}, "sizes lie between"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(SMALL, **changes)


def test_frames_of_another_size_are_refused():
    with pytest.raises(InputError, match="must be 40 x 40"):
        network()(torch.zeros(1, 3, 48, 40, dtype=torch.float64))
    with pytest.raises(InputError, match="no pose branch"):
        network(cues=("full",), pose_branch=False).heat_maps(frames())


# -- VGG-11 -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_of_vgg_11_reach_the_eight_convolutions_that_are_its_own(tmp_path):
    sizes = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    weights = {}
    for k, (key, (before, after)) in enumerate(zip(VGG11, sizes, strict=True)):
        weights |= {f"{key}.weight": torch.full((after, before, 3, 3), k / 10), f"{key}.bias": torch.zeros(after)}
    torch.save(weights, tmp_path / "vgg11.pth")
    net = SpatialMultiCue(PAPER)
    ninth = net.top.conv2.weight.clone()
    assert len(load_vgg11(net, tmp_path / "vgg11.pth")) == 8
    layers = convolution_layers(net.trunk, net.middle, net.top)
    assert [round(float(layer.weight[0, 0, 0, 0].detach()), 4) for layer in layers[:8]] == [k / 10 for k in range(8)]
    assert torch.equal(net.top.conv2.weight, ninth)


def test_other_weights_are_refused(tmp_path):
    net = SpatialMultiCue(SMALL)
    with pytest.raises(InputError, match="no weight file"):
        load_vgg11(net, tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=r"bad\.pth' is damaged"):
        load_vgg11(net, tmp_path / "bad.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="width 1 alone"):
        load_vgg11(net, tmp_path / "other.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="list in place of a state dict"):
        load_vgg11(net, tmp_path / "list.pth")
    torch.save({"features.0.weight": torch.zeros(1).expand(64, 3, 3, 3)}, tmp_path / "repeated.pth")
    with pytest.raises(InputError, match="larger than the file"):  # 1 float that is read as 1728, or as 200 MB
        load_vgg11(net, tmp_path / "repeated.pth")


def test_a_row_reads_as_vgg_papers_write_it():
    kinds = [type(layer).__name__ for layer in convolutions(3, "16/2 24 M 32", Architecture(width=0.5))]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU"]
    layers = convolution_layers(convolutions(3, "16/2 24 M 32", Architecture(width=0.5)))
    assert [(c.out_channels, c.stride[0]) for c in layers] == [(8, 2), (12, 1), (16, 1)]
