"""Detection on a GPU: kernels against their references, a network and a short training as on the CPU."""

import pytest
import torch

from labkit.kernels.roi_align import roi_align
from labkit.kernels.roi_align.reference import roi_align_reference
from labkit.kernels.tubelet_iou import tubelet_iou
from labkit.kernels.tubelet_nms import tubelet_nms
from labkit.papers.lstr import ARMS, PAPER
from labkit.papers.lstr.experiment import actors
from labkit.papers.lstr.method.network import Lstr
from labkit.workbench.runs import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, extent = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([corner * 20, corner * 20 + 1 + extent * 10], -1)


def test_roi_align_and_its_gradient():
    maps = torch.randn(3, 70, 25, 30, generator=torch.Generator().manual_seed(0), requires_grad=True)
    boxes = some(3, 9) - 2
    wanted = roi_align_reference(maps, boxes, 7, 0.9, 2)
    gradient = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (asked,) = torch.autograd.grad(wanted, maps, gradient)
    on_gpu = maps.detach().cuda().requires_grad_()
    pooled = roi_align(on_gpu, boxes.cuda(), 7, scale=0.9)
    torch.testing.assert_close(pooled.detach().cpu(), wanted.detach(), rtol=1e-4, atol=1e-4)
    (got,) = torch.autograd.grad(pooled, on_gpu, gradient.cuda())
    torch.testing.assert_close(got.cpu(), asked, rtol=1e-3, atol=1e-3)  # atomic additions, in any order
    empty = roi_align(on_gpu, boxes[:, :0].cuda(), 7)
    assert empty.shape == (3, 0, 70, 7, 7)
    empty.sum().backward()


def test_overlap_and_suppression():
    a, b = some(2, 300, 4), some(2, 77, 4, seed=1)
    torch.testing.assert_close(tubelet_iou(a.cuda(), b.cuda()).cpu(), tubelet_iou(a, b), rtol=1e-5, atol=1e-5)
    scores = torch.rand(600, generator=torch.Generator().manual_seed(2))
    tubelets, groups = a.flatten(0, 1), torch.arange(600) % 3
    kept = tubelet_nms(tubelets.cuda(), scores.cuda(), 0.3, groups.cuda())
    assert kept.cpu().tolist() == tubelet_nms(tubelets, scores, 0.3, groups).tolist()


@pytest.mark.parametrize("arm", ["cascade", "acrn-long", "lfb-max", "symmetric", "linked"])
def test_a_network_says_the_same(arm):
    videos = actors.videos(4, 0, actors.TEST)
    valid = torch.ones(videos.labels.shape, dtype=torch.bool)
    torch.manual_seed(0)
    net = Lstr(ARMS[arm], 6, 2).eval()
    with torch.no_grad():
        wanted = net(videos.clips, videos.boxes, valid).logits
        logits = net.cuda()(videos.clips.cuda(), videos.boxes.cuda(), valid.cuda()).logits.cpu()
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
def test_smoke_on_the_gpu(tmp_path, bf16):
    config = PAPER.config("smoke", device="cuda", arms=("short", "cascade"), bf16=bf16)
    assert set(PAPER.run(config, Run.open(tmp_path, config))["arms"]) == {"short", "cascade"}
