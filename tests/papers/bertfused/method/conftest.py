"""A small model, a batch of three sentences of different lengths, and what a BERT might say of them."""

import pytest
import torch
from torch import Tensor

from labkit.papers.bertfused.method.transformer import Architecture, BertView

WIDTH = 24  # d_B


@pytest.fixture
def sizes() -> Architecture:
    return Architecture(
        vocabulary=23, width=32, feed_forward=48, heads=4, encoder_layers=2, decoder_layers=3, dropout=0.1, longest=40
    )


@pytest.fixture
def source() -> Tensor:
    return ragged([9, 4, 6], 0)


@pytest.fixture
def target() -> Tensor:
    """The decoder's input."""
    tokens = ragged([7, 5, 3], 1)
    return torch.cat([torch.ones_like(tokens[:, :1]), tokens[:, :-1]], 1)


@pytest.fixture
def view() -> BertView:
    """Lengths that have nothing to do with those of the source."""
    lengths = torch.tensor([3, 8, 5])
    draw = torch.Generator().manual_seed(2)
    return BertView(torch.randn(3, 8, WIDTH, generator=draw), torch.arange(8) < lengths[:, None])


def ragged(lengths: list[int], seed: int) -> Tensor:
    """Sentences of random words; the last token is eos, 2."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 23, (len(lengths), max(lengths)), generator=draw)
    for row, length in zip(tokens, lengths, strict=True):
        row[length - 1], row[length:] = 2, 0
    return tokens
