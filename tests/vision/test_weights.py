"""Weights from a file: what fits is loaded, what does not is refused in words."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_paper import ToyConfig

from labkit.errors import InputError
from labkit.vision.weights import load_float_weights
from labkit.workbench.runs import Run


def test_weights_are_loaded(tmp_path):
    torch.manual_seed(0)
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_float_weights(target, str(tmp_path / "w.safetensors"))
    assert torch.equal(source.weight, target.weight)


def test_what_cannot_be_loaded_is_refused_and_leaves_the_network(tmp_path):
    network = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"float_weights: there is no file '.*none'.*Give a safetensors file"):
        load_float_weights(network, str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"float_weights: .*cannot be read"):
        load_float_weights(network, str(tmp_path))
    (tmp_path / "bad").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"'.*bad' is damaged, or not a safetensors file"):
        load_float_weights(network, str(tmp_path / "bad"))
    save_file({"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}, tmp_path / "diverged")
    with pytest.raises(InputError, match=r"'.*diverged' holds numbers that are not finite \(weight\)"):
        load_float_weights(network, str(tmp_path / "diverged"))
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "other")
    with pytest.raises(InputError, match=r"'.*other' does not fit the network"):
        load_float_weights(nn.Linear(4, 2), str(tmp_path / "other"))


def test_a_run_s_weights_are_checked_against_their_sum(tmp_path):
    """Catches: a flipped bit that is another network, as a plain safetensors file would give."""
    run, network = Run.open(tmp_path / "run", ToyConfig()), nn.Linear(3, 2)
    run.write_weights(network)
    path = run.directory / "weights.safetensors"
    load_float_weights(nn.Linear(3, 2), str(path))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"float_weights: '.*weights\.safetensors' is damaged: its checksum"):
        load_float_weights(nn.Linear(3, 2), str(path))
