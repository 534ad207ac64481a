"""What several tests of this room need."""

from collections.abc import Iterator

import pytest
import torch

from labkit.papers.pombu.experiment import offline


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Everything in float64: where two ways of computing must agree, rounding is then far below any tolerance, also
    after a training that amplifies it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    offline._prepare.cache_clear()
    yield
    torch.set_default_dtype(before)
    offline._prepare.cache_clear()
