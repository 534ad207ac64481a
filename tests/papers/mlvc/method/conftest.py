"""A small codec with random weights, and a clip of odd size that moves: what the codec's tests work on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from labkit.papers.mlvc.method.codec import Codec
from labkit.papers.mlvc.method.network import Network, Settings


def random_network(seed: int = 0, width: float = 0.05) -> Network:
    """Nothing is at its start, and latents are large enough to have symbols other than 0, escapes among them."""
    torch.manual_seed(seed)
    network = Network(Settings(width=width))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
        network.motion_coding.analysis[-1].weight.mul_(20)
        network.residual_coding.analysis[-1].weight.mul_(60)
        network.hyperprior.analysis[-1].weight.mul_(5)
    return network.eval()


def moving_clip(count: int = 5, height: int = 50, width: int = 60) -> list[np.ndarray]:
    """Waves that travel; neither side is a multiple of 64."""
    y, x = np.mgrid[:height, :width]
    frames = []
    for t in range(count):
        waves = [127 + 100 * np.sin((x + 2 * t) / (5 + c)) * np.cos((y - t) / (7 - c)) for c in range(3)]
        frames.append(np.stack(waves, axis=-1).round().astype(np.uint8))
    return frames


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec({2: random_network()})


@pytest.fixture(scope="session")
def clip() -> list[np.ndarray]:
    return moving_clip()


@pytest.fixture(scope="session")
def coded(codec: Codec, clip: list[np.ndarray]) -> bytes:
    """Five frames, I P P I P."""
    return codec.encode(clip, quality=2, gop=3, adaptive=False)


@pytest.fixture(scope="session")
def shown(codec: Codec, coded: bytes) -> list[np.ndarray]:
    return codec.decode(coded)


@pytest.fixture(scope="session")
def model_file(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    codec.save(path)
    return path
