"""STMC on a GPU: both kernels as float64 says, gradients too; the paper's network forwards and backwards."""

from dataclasses import replace

import pytest
import torch

from labkit.kernels.crop_windows import crop_windows, crop_windows_reference
from labkit.kernels.soft_argmax import soft_argmax
from labkit.papers.stmc import SMALL, STMC
from labkit.papers.stmc.method.architecture import PAPER
from labkit.papers.stmc.method.losses import joint_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("shape", [(64, 7, 56, 56), (3, 1, 9), (1, 20, 20)])
def test_soft_argmax_and_its_gradient_are_those_of_float64(shape):
    maps = 4 * torch.randn(shape)
    exact, on_gpu = maps.double().requires_grad_(), maps.cuda().requires_grad_()
    at, there = soft_argmax(exact), soft_argmax(on_gpu)
    torch.testing.assert_close(there.cpu().double(), at, rtol=0, atol=1e-5)
    (at**2).sum().backward()
    (there**2).sum().backward()
    torch.testing.assert_close(on_gpu.grad.cpu().double(), exact.grad, rtol=1e-3, atol=1e-6)


def test_windows_are_slices_and_their_gradients_add_up():
    maps, corners = torch.randn(16, 256, 56, 56), torch.randint(0, 33, (16, 2, 2))
    corners[:, 1] = corners[:, 0]
    there = maps.cuda().requires_grad_()
    out = crop_windows(there, corners.cuda(), 24)
    assert torch.equal(out.cpu(), crop_windows_reference(maps, corners, 24))
    out.sum().backward()
    assert float(there.grad.max()) == 2.0


def test_the_small_network_reads_the_same_on_both():
    torch.manual_seed(0)
    net, frames, lengths = STMC(SMALL, 5).eval(), torch.rand(44, 3, 40, 40), torch.tensor([24, 20])
    here = net(frames, lengths)
    there = net.cuda()(frames.cuda(), lengths)
    torch.testing.assert_close(there.joint.cpu(), here.joint, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cues", [PAPER.cues, ("full",)])
def test_the_paper_s_network_takes_a_step_in_bfloat16(cues):
    torch.manual_seed(0)
    net = STMC(replace(PAPER, cues=cues), 1296).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = net(torch.rand(40, 3, 224, 224, device="cuda"), torch.tensor([20, 20]))
    joint_loss(output, [torch.tensor([5]), torch.tensor([7])]).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
