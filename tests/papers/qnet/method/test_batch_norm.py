import copy

import pytest
import torch
from torch import nn

from labkit.errors import InputError
from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
from labkit.papers.qnet.method.levels import LEVELS
from labkit.papers.qnet.method.weights import quantize_weights


def test_without_batches():
    with pytest.raises(InputError, match="give at least one batch of inputs"):
        reestimate_batch_norm(nn.Sequential(nn.BatchNorm1d(3)), [])


def test_dropout_is_off_and_every_mode_comes_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    model.train()
    model[0].eval()
    before = [module.training for module in model.modules()]
    x = torch.randn(64, 3)
    reestimate_batch_norm(model, [x])
    torch.testing.assert_close(model[2].running_mean, model[0](x).mean(0))
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("batches", [[], [torch.ones(4, 3), torch.ones(4, 5)], [torch.ones(4, 3), "no tensor"]])
def test_an_error_leaves_the_statistics(batches):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model(torch.randn(64, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((InputError, RuntimeError)):
        reestimate_batch_norm(model, batches)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_pairs_with_labels_and_a_lone_tensor():
    model = nn.Sequential(nn.BatchNorm1d(3))
    x = torch.randn(64, 3)
    for batches in ([(x, torch.zeros(64))], x):
        model[0].reset_running_stats()
        reestimate_batch_norm(model, batches)
        torch.testing.assert_close(model[0].running_mean, x.mean(0))


def test_an_error_within_leaves_the_model_usable():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(model, [torch.randn(4, 5)])
    assert model[1].momentum == 0.1
    assert model[1].training


def test_it_repairs_what_post_training_quantisation_breaks():
    """One-bit weights on the wrong scale: with statistics of the hard network outputs are normalised again."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    x = torch.randn(500, 8)
    reestimate_batch_norm(model, [x])
    quantize_weights(model, LEVELS["W1"])
    broken = copy.deepcopy(model)[:3](x).std(0)
    reestimate_batch_norm(model, [x])
    repaired = model[:3](x).std(0)
    assert (broken - 1).abs().max() > 0.05  # over 40 seeds 0.45 or more; repaired, 2e-4 or less
    torch.testing.assert_close(repaired, torch.ones(8), atol=1e-3, rtol=0)
