"""The cascade on a GPU: crops, maps, pooling and solves as on the CPU; many sequences side by side."""

import numpy as np
import pytest
import torch

from labkit.metrics.tracking import box_overlaps
from labkit.papers.crt import ARMS, Cascade, HandMade, track_together
from labkit.papers.crt.experiment import data
from labkit.papers.crt.method import ridge
from labkit.papers.crt.method.crop import View, crop
from labkit.papers.crt.method.prroi import pool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def test_crops_features_and_pooling_equal_the_cpus():
    clip = data.clips("plain", 1, 0, 4)[0]
    view = View(torch.tensor([[100.0, 90.0], [50.0, 60.0]]), torch.tensor([120.0, 90.0]), 160)
    frames = [clip.frames[0], clip.frames[1]]
    here = crop(frames, view)
    there = crop(frames, View(view.centre.cuda(), view.side.cuda(), 160))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)
    maps = HandMade()(here).first
    torch.testing.assert_close(HandMade()(here.cuda()).first.cpu(), maps, rtol=0, atol=1e-3)
    boxes = torch.rand(2, 50, 4) * 20 + 1
    torch.testing.assert_close(pool(maps.cuda(), boxes.cuda(), 6).cpu(), pool(maps, boxes, 6), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_ridge_equals_float64(form):
    x = torch.nn.functional.normalize(torch.randn(8, 200, 576), dim=2)
    y = torch.randn(8, 200)
    wanted = ridge.fit(x.double(), y.double(), 0.1)
    actual = ridge.fit(x.cuda(), y.cuda(), 0.1, form=form).cpu().double()
    assert float((actual - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize("name", ["cascade", "sgd-fc"])
def test_many_sequences_side_by_side(name):
    clips, head = data.clips("plain", 8, 0, 12), ARMS[name].head(seed=0)
    on_gpu = track_together(Cascade(device="cuda", head=head), clips)
    on_cpu = track_together(Cascade(head=head), clips)
    overlap = np.array([box_overlaps(a.boxes, b.boxes).mean() for a, b in zip(on_gpu, on_cpu, strict=True)])
    assert float(np.median(overlap)) > 0.8
