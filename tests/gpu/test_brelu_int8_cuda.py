"""The Triton convolution, and a whole integer network, on a real GPU: the same bits as int64 on the CPU."""

import pytest
import torch

from labkit.kernels.int8_conv import Conv, Geometry, Requantizer, int8_conv2d, int8_conv2d_reference
from labkit.kernels.int8_matmul import int8_matmul
from labkit.papers.brelu.experiment.model import MobileNet, classifier, vdsr
from labkit.papers.brelu.method.integer import to_integer
from labkit.papers.brelu.method.network import calibrate, set_bounds
from labkit.papers.brelu.method.snap import InputScale, snap
from labkit.papers.brelu.method.trace import trace
from labkit.papers.brelu.method.weights import quantize_layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

REQUANTIZER = Requantizer(46239, 45, 14)
SHAPES = [  # n, c, h, w, o, kernel, stride, padding
    (2, 64, 56, 56, 64, 3, 1, 1), (1, 1, 123, 97, 64, 3, 1, 1), (3, 70, 15, 15, 33, 3, 2, 1),
    (2, 512, 7, 7, 512, 3, 1, 1), (1, 256, 14, 14, 1024, 1, 1, 0), (1, 3, 224, 224, 64, 7, 2, 3),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("requantizer", [None, REQUANTIZER])
@pytest.mark.parametrize("with_shortcut", [False, True])
def test_equals_int64(shape, requantizer, with_shortcut):
    n, c, h, w, o, kernel, stride, padding = shape
    g = torch.Generator().manual_seed(0)
    v = torch.randint(-128, 128, (n, c, h, w), generator=g).to(torch.int8)
    weight = torch.randint(-128, 128, (o, c, kernel, kernel), generator=g).to(torch.int8)
    bias = torch.randint(-5000, 5000, (o,), generator=g).to(torch.int32)
    geometry = Geometry((stride, stride), (padding, padding))
    plain = Conv(geometry, requantizer, True)
    size = int8_conv2d_reference(v, weight, bias, None, Conv(geometry, None, True)).sums.shape
    shortcut = torch.randint(-9000, 9000, size, generator=g).to(torch.int32) if with_shortcut else None
    wanted = int8_conv2d_reference(v, weight, bias, shortcut, plain)
    got = int8_conv2d(
        v.cuda(), weight.cuda(), bias.cuda(), geometry, requantizer=requantizer, keep_sums=True,
        shortcut=None if shortcut is None else shortcut.cuda(),
    )  # fmt: skip
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a.cpu(), b)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (33, 9, 10), (40, 4608, 16)])
def test_products_equal_int64(shape):
    m, k, n = shape
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-128, 128, size, generator=g).to(torch.int8) for size in ((m, k), (k, n)))
    assert torch.equal(int8_matmul(a.cuda(), b.cuda()).cpu().long(), a.long() @ b.long())


@pytest.mark.parametrize("name", ["vdsr", "resnet18", "mobilenet"])
def test_whole_networks_give_the_cpus_bits(name):
    torch.manual_seed(0)
    if name == "vdsr":
        network, ratio, shape = vdsr(8, 64).eval(), 255.0, (1, 1, 64, 64)
    else:
        model = (classifier("resnet18", 10, 3, 64) if name == "resnet18" else MobileNet(10, 3)).train()
        model(torch.randn(8, 3, 64, 64))
        network, ratio, shape = trace(model), 57.63, (2, 3, 64, 64)
    real = (torch.randint(0, 256, shape) - 128) / ratio
    quantize_layers(network)
    set_bounds(network, calibrate(network, [real]), "3.5sigma")
    integer = to_integer(network, snap(network, InputScale(ratio)))
    codes = integer.to_codes(real)
    integer.engine = "reference"
    wanted = integer.forward_integer(codes)
    integer.engine = "auto"
    assert torch.equal(integer.cuda().forward_integer(codes.cuda()).cpu(), wanted)
