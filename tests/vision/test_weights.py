"""Weights from a file: what fits is loaded, what does not is refused in words."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from labkit.errors import InputError
from labkit.vision.weights import load_float_weights


def test_weights_are_loaded(tmp_path):
    torch.manual_seed(0)
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_float_weights(target, str(tmp_path / "w.safetensors"))
    assert torch.equal(source.weight, target.weight)


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"float_weights: there is no file '.*none'"):
        load_float_weights(nn.Linear(3, 2), str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"cannot be read .*a safetensors file, not a folder"):
        load_float_weights(nn.Linear(3, 2), str(tmp_path))
    (tmp_path / "bad").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"'.*bad' does not fit the network"):
        load_float_weights(nn.Linear(3, 2), str(tmp_path / "bad"))
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "other")
    with pytest.raises(InputError, match=r"'.*other' does not fit the network"):
        load_float_weights(nn.Linear(4, 2), str(tmp_path / "other"))
