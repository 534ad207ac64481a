"""The checks pass on our implementation and reject wrong ones: each mutant here is a mistake somebody could make."""

import pytest
import torch
from torch import nn

from labkit.kernels import soft_quantize, soft_quantize_reference
from labkit.papers.qnet.method.batch_norm import reestimate_batch_norm
from labkit.papers.qnet.method.packing import pack_weights, unpack_weights
from labkit.papers.qnet.method.soft_quantizer import forward_mode
from labkit.papers.qnet.method.thresholds import kmeans_centroids, kmeans_thresholds
from labkit.papers.qnet.teaching.checks import (
    check_batch_norm_reestimation,
    check_binary_is_tanh,
    check_packing,
    check_soft_quantizer,
    check_thresholds_are_midpoints,
)


def staircase(z, levels, temperature):
    return levels[0] + (torch.sigmoid(temperature * z) * levels.diff()).sum(-1)


QUANTIZER_MUTANTS = {
    "forgets the gaps": lambda x, Y, b, a, be, T: a * (Y[0] + torch.sigmoid(T * (be * x[..., None] - b)).sum(-1)),
    "offset of a symmetric set": lambda x, Y, b, a, be, T: (
        a * (staircase(be * x[..., None] - b, Y, T) - Y[0] - Y.diff().sum() / 2)
    ),
    "forgets alpha": lambda x, Y, b, a, be, T: staircase(be * x[..., None] - b, Y, T),
    "alpha is 1 / beta": lambda x, Y, b, a, be, T: staircase(be * x[..., None] - b, Y, T) / be,
    "beta outside": lambda x, Y, b, a, be, T: a * staircase(be * (x[..., None] - b), Y, T),
    "T on beta x only": lambda x, Y, b, a, be, T: a * staircase(T * be * x[..., None] - b, Y, 1.0),
    "forgets T": lambda x, Y, b, a, be, T: a * staircase(be * x[..., None] - b, Y, 10.0),
    "falls": lambda x, Y, b, a, be, T: a * staircase(b - be * x[..., None], Y, T),
    "gaps reversed": lambda x, Y, b, a, be, T: (
        a * (Y[0] + (torch.sigmoid(T * (be * x[..., None] - b)) * Y.diff().roll(1)).sum(-1))
    ),
    "hard": lambda x, Y, b, a, be, T: a * Y[torch.bucketize(be * x, b)],
    "tanh, not sigmoid": lambda x, Y, b, a, be, T: (
        a * (Y[0] + (((T * (be * x[..., None] - b)).tanh() + 1) / 2 * Y.diff()).sum(-1))
    ),
}


@pytest.mark.parametrize("right", [soft_quantize, soft_quantize_reference])
def test_the_quantiser_passes(right):
    check_soft_quantizer(right)
    check_binary_is_tanh(right)


@pytest.mark.parametrize("wrong", QUANTIZER_MUTANTS)
def test_a_wrong_quantiser_is_rejected(wrong):
    with pytest.raises(AssertionError):
        check_soft_quantizer(QUANTIZER_MUTANTS[wrong])


@pytest.mark.parametrize(
    "wrong", ["forgets alpha", "alpha is 1 / beta", "forgets T", "falls", "hard", "tanh, not sigmoid"]
)
def test_the_tanh_identity_rejects(wrong):
    with pytest.raises(AssertionError, match="must be alpha tanh"):
        check_binary_is_tanh(QUANTIZER_MUTANTS[wrong])


def test_thresholds_pass():
    check_thresholds_are_midpoints(kmeans_thresholds)


def one_round(samples, count):
    centroids = torch.quantile(samples, (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return (centroids[1:] + centroids[:-1]) / 2


THRESHOLD_MUTANTS = {
    "quantiles": lambda samples, count: torch.quantile(samples, torch.arange(1, count, dtype=torch.float64) / count),
    "evenly spaced": lambda samples, count: torch.linspace(samples.min(), samples.max(), count + 1)[1:-1],
    "centroids": lambda samples, count: kmeans_centroids(samples, count)[1:],
    "no rounds": one_round,
    "one cluster more": lambda samples, count: kmeans_thresholds(samples, count + 1),
    "descending": lambda samples, count: kmeans_thresholds(samples, count).flip(0) + 1e-3,
    "of magnitudes": lambda samples, count: kmeans_thresholds(samples.abs(), count),
}


@pytest.mark.parametrize("wrong", THRESHOLD_MUTANTS)
def test_wrong_thresholds_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_thresholds_are_midpoints(THRESHOLD_MUTANTS[wrong])


def test_reestimation_passes():
    check_batch_norm_reestimation(reestimate_batch_norm)


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def reestimate_wrongly(model, batches, *, reset=True, average=True, mode="hard", restore=True, affine=False):
    for norm in norms(model):
        if reset:
            norm.reset_running_stats()
        if affine:
            norm.reset_parameters()
        norm.momentum = None if average else 0.1
        norm.train()
    with forward_mode(model, mode):
        for batch in batches:
            model(batch)
    if restore:
        for norm in norms(model):
            norm.momentum = 0.1
            norm.eval()


REESTIMATION_MUTANTS = {
    "does nothing": lambda model, batches: None,
    "moving average": lambda model, batches: reestimate_wrongly(model, batches, average=False),
    "keeps the old": lambda model, batches: reestimate_wrongly(model, batches, reset=False, average=False),
    "soft weights": lambda model, batches: reestimate_wrongly(model, batches, mode="soft"),
    "last batch only": lambda model, batches: reestimate_wrongly(model, batches[-1:]),
    "left in training": lambda model, batches: reestimate_wrongly(model, batches, restore=False),
    "changes gamma": lambda model, batches: (
        nn.init.constant_(model[2].weight, 2.0), reestimate_wrongly(model, batches)
    ),
}  # fmt: skip


def test_the_mutants_differ_from_the_right_one_in_one_thing():
    check_batch_norm_reestimation(reestimate_wrongly)


@pytest.mark.parametrize("wrong", REESTIMATION_MUTANTS)
def test_wrong_reestimation_is_rejected(wrong):
    with pytest.raises(AssertionError):
        check_batch_norm_reestimation(REESTIMATION_MUTANTS[wrong])


def test_packing_passes():
    check_packing(pack_weights, unpack_weights)


PACKING_MUTANTS = {
    "a byte a code": (lambda codes, bits: codes, lambda packed, shape: packed),
    "two bits for three": (lambda codes, bits: pack_weights(codes & 3, min(bits, 2)), unpack_weights),
    "always four bits": (lambda codes, bits: pack_weights(codes, 4), unpack_weights),
    "loses the shape": (pack_weights, lambda packed, shape: unpack_weights(packed, [torch.Size(shape).numel()])),
    "bits reversed": (pack_weights, lambda packed, shape: unpack_weights(packed.flip(0), shape)),
    "codes reversed": (pack_weights, lambda packed, shape: unpack_weights(packed.flip(1), shape)),
}


@pytest.mark.parametrize("wrong", PACKING_MUTANTS)
def test_wrong_packing_is_rejected(wrong):
    with pytest.raises(AssertionError):
        check_packing(*PACKING_MUTANTS[wrong])
