"""Whole pictures in strips are whole pictures."""

import pytest
import torch

from labkit.papers.brelu.experiment.evaluate import in_strips
from labkit.papers.brelu.experiment.model import vdsr, vrcnn


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("build", [lambda: vdsr(4, 6), lambda: vrcnn(8)])
def test_strips_give_the_whole_picture(build, rows):
    """Catches a halo that is too small (VRCNN's 5x5 layers) or put on the wrong side at the border."""
    torch.manual_seed(0)
    network = build().eval().double()
    x = torch.randn(1, 1, 40, 23, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
    torch.testing.assert_close(in_strips(network, x, rows), whole, rtol=0, atol=1e-12)
