"""The chained warp's kernel on a GPU, and that a GPU decodes the files of a CPU to the same pixels."""

import numpy as np
import pytest
import torch

from labkit.kernels.flow_warp import chained_warp, chained_warp_reference
from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network, Settings, rate_distortion
from labkit.papers.mlvc.method.references import References

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("shape", [(2, 4, 32, 64, 96), (1, 3, 5, 37, 41), (1, 1, 17, 1, 3)])
def test_the_kernel_is_the_chain(shape):
    generator = torch.Generator().manual_seed(0)
    batch, refs, _, height, width = shape
    images = torch.rand(shape, generator=generator)
    flows = torch.randn(batch, refs, 2, height, width, generator=generator)
    wanted = chained_warp_reference(images.double(), flows.double())
    for got, one in zip(chained_warp(images.cuda(), flows.cuda()), wanted, strict=True):
        torch.testing.assert_close(got.cpu().double(), one, rtol=0, atol=1e-3)


def test_gradients_are_those_of_the_plain_chain():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 4, 3, 16, 16, generator=generator, dtype=torch.float64)
    flows = torch.rand(1, 4, 2, 16, 16, generator=generator, dtype=torch.float64)
    gradients = []
    for device, call in (("cpu", chained_warp_reference), ("cuda", chained_warp)):
        inputs = [t.detach().to(device).requires_grad_() for t in (images, flows)]
        warped, chain = call(*inputs)
        (warped.square().sum() + chain.sum()).backward()
        gradients.append([t.grad.cpu() for t in inputs])
    for got, wanted in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8)


def test_a_gpu_decodes_the_files_of_a_cpu(tmp_path):
    """Exact integers on both: every pixel, and the same symbols on the way."""
    torch.manual_seed(0)
    Codec({2: Network(Settings(width=0.125))}).save(tmp_path / "m.safetensors")
    on_cpu, on_gpu = (Codec.load(tmp_path / "m.safetensors", device) for device in ("cpu", "cuda"))
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 70, 90, 3), dtype=np.uint8))
    for writer, reader in ((on_cpu, on_gpu), (on_gpu, on_cpu)):
        data = writer.encode(frames)
        for a, b in zip(writer.decode(data), reader.decode(data), strict=True):
            assert np.array_equal(a, b)


def test_a_training_step():
    torch.manual_seed(0)
    network = Network(Settings(width=0.125)).cuda().train()
    past, x = torch.rand(2, 2, 3, 64, 64, device="cuda")
    rate_distortion(x, network(x, References.start(past)), lam=16).mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
