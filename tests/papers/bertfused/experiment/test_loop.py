"""The loop's parts: step sizes, the loss, shares of a batch, the validation that keeps the best."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from labkit.papers.bertfused.experiment import data
from labkit.papers.bertfused.experiment.config import ARMS, CONFIGS, Arm
from labkit.papers.bertfused.experiment.data import Batch, Examples
from labkit.papers.bertfused.experiment.loop import (
    Objective,
    Validation,
    accumulate,
    inverse_sqrt,
    smoothed_cross_entropy,
    train_model,
)
from labkit.papers.bertfused.experiment.model import build
from labkit.papers.bertfused.method.bert import random_bert
from labkit.papers.bertfused.method.layers import Architecture
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

SIZES = Architecture(30, 16, 32, 2, 1, 1, 0.0)
EXAMPLES = Examples([[5, 6, 2], [7, 2], [8, 9, 10, 2], [11, 2]], [[12, 2], [13, 14, 15, 2], [16, 2], [17, 18, 2]])
CONFIG = CONFIGS["smoke"].override(label_smoothing=0.1)


def model(seed=0):
    return build(Arm("plain"), SIZES, 1, seed)


def test_step_sizes_of_the_official_recipe():
    """1e-7 to 5e-4 in 4000 updates, then with the root: half of it after 16000."""
    assert inverse_sqrt(4000, 5e-4, 4000) == pytest.approx(5e-4)
    assert inverse_sqrt(16000, 5e-4, 4000) == pytest.approx(2.5e-4)
    assert inverse_sqrt(1, 5e-4, 4000) == pytest.approx(1e-7 + (5e-4 - 1e-7) / 4000)
    assert inverse_sqrt(4001, 5e-4, 4000) < 5e-4


def test_the_loss_is_fairseqs():
    def loss(logits, target, eps, pad):
        batch = Batch(target, target, target, None)
        return smoothed_cross_entropy(logits.float(), batch, eps, pad).double()

    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 5, 7, generator=draw), torch.tensor([[3, 4, 2, 0, 0], [5, 6, 1, 4, 2]])
    by_hand = 0.0
    for row, token in zip(logits.flatten(0, 1).log_softmax(-1), target.flatten(), strict=True):
        if token:
            by_hand += float(0.9 * -row[token] + 0.1 / 7 * -row.sum())
    assert float(loss(logits, target, 0.1, 0)) == pytest.approx(by_hand, rel=1e-5)


def test_three_classes_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.2]]]))
    batch = Batch(*[torch.tensor([[1]])] * 3, None)
    wanted = -(0.9 * np.log(0.3) + 0.1 / 3 * (np.log(0.5) + np.log(0.3) + np.log(0.2)))
    assert float(smoothed_cross_entropy(logits, batch, 0.1, 0)) == pytest.approx(wanted, rel=1e-6)


def test_targets_are_shifted_and_padded():
    batch = data.batch_of(EXAMPLES, [1, 0], data.no_view, SIZES, torch.device("cpu"))
    assert batch.source.tolist() == [[7, 2, 0], [5, 6, 2]]
    assert batch.target_in.tolist() == [[1, 13, 14, 15], [1, 12, 0, 0]]
    assert batch.target_out.tolist() == [[13, 14, 15, 2], [12, 2, 0, 0]]
    assert batch.bert is None


def gradients(rows, workers):
    network = Objective(model(), EXAMPLES, data.no_view, CONFIG)
    loss = accumulate(network, rows, EXAMPLES, CONFIG, workers)
    return float(loss), {name: value.grad for name, value in network.named_parameters()}


def test_accumulated_batches_are_one_batch():
    """Catches: a mean of means, where batches have different numbers of tokens."""
    alone = Workers(0, 1, torch.device("cpu"))
    whole, one = gradients([[0, 1, 2, 3]], alone)
    parts, several = gradients([[0], [1, 2, 3]], alone)
    assert parts == pytest.approx(whole, rel=1e-6)
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [[[0, 1, 2, 3]], [[0, 1, 2]], [[2], [0, 1, 3]]])
def test_the_processes_shares_are_the_whole(rows):
    """What two processes compute, averaged, as DistributedDataParallel does; a share may be empty."""
    whole, one = gradients(rows, Workers(0, 1, torch.device("cpu")))
    shares = [gradients(rows, Workers(rank, 2, torch.device("cpu"))) for rank in range(2)]
    assert np.mean([loss for loss, _ in shares]) == pytest.approx(whole, rel=1e-6)
    for name, value in one.items():
        mean = sum(share[name] for _, share in shares) / 2
        torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trainable", [False, True])
def test_training_changes_bert_only_where_it_is_trained_jointly(tmp_path, trainable):
    """A frozen BERT has no parameter in the optimizer, and the same weights afterwards."""
    text = ["a dog", "dogs run", "a dog runs", "run"]
    bert = random_bert(text, width=16, trainable=trainable).train()
    before, views = bert.fingerprint(), data.live(bert, bert.tokenize(text))
    network, sides = build(ARMS["fused"], SIZES, 16, 0), (EXAMPLES, views)
    objective = Objective(network, *sides, CONFIG, bert)
    assert any(value.requires_grad for name, value in objective.named_parameters() if "bert.model" in name) == trainable
    train_model(network, sides, sides, 6, CONFIG, Workers(0, 1, torch.device("cpu")), Run.open(tmp_path, CONFIG), bert)
    assert (bert.fingerprint() == before) != trainable


def test_a_bert_that_is_trained_takes_its_share_of_the_step(tmp_path):
    """Adam's first step is as long as the step size for every weight with a gradient."""
    text, steps = ["a dog", "dogs run", "a dog runs", "run"], {}
    for share in (1.0, 0.25):
        bert, network = random_bert(text, width=16, trainable=True), build(ARMS["fused"], SIZES, 16, 0)
        start = [[value.detach().clone() for value in module.parameters()] for module in (bert, network)]
        side = EXAMPLES, data.live(bert, bert.tokenize(text))
        config = CONFIG.override(bert_rate=share, learning_rate=1e-3, warmup=1, weight_decay=0.0)
        run = Run.open(tmp_path / str(share), config)
        train_model(network, side, side, 1, config, Workers(0, 1, torch.device("cpu")), run, bert)
        steps[share] = tuple(
            max(float((new.detach() - old).abs().max()) for new, old in zip(module.parameters(), before, strict=True))
            for module, before in zip((bert, network), start, strict=True)
        )
    assert steps[1.0] == pytest.approx((1e-3, 1e-3), rel=1e-2)
    assert steps[0.25] == pytest.approx((0.25e-3, 1e-3), rel=1e-2)


@pytest.mark.parametrize("trainable", [False, True])
def test_berts_dropout_is_on_in_training_and_nowhere_else(tmp_path, trainable):
    """Frozen or not: off while the validation loss is measured, and off when the training has ended."""
    text = ["a dog", "dogs run", "a dog runs", "run"]
    bert = random_bert(text, width=16, trainable=trainable, dropout=not trainable)
    live, modes = data.live(bert, bert.tokenize(text)), {"train": set(), "valid": set()}

    def watched(side):
        return lambda rows: modes[side].add(bert.model.training) or live(rows)

    network = build(ARMS["fused"], SIZES, 16, 0)
    sides = (EXAMPLES, watched("train")), (EXAMPLES, watched("valid"))
    train_model(network, *sides, 4, CONFIG, Workers(0, 1, torch.device("cpu")), Run.open(tmp_path, CONFIG), bert)
    assert modes == {"train": {True}, "valid": {False}}
    assert not bert.model.training


def test_validation_is_the_mean_over_tokens_and_keeps_the_best():
    network = Objective(model(), EXAMPLES, data.no_view, CONFIG)
    validation = Validation(network, EXAMPLES, data.no_view, tokens=8)
    batch = data.batch_of(EXAMPLES, range(4), data.no_view, SIZES, torch.device("cpu"))
    with torch.inference_mode():
        logits = network.model.eval()(batch.source, batch.target_in)
    wanted = F.cross_entropy(logits.flatten(0, 1), batch.target_out.flatten(), ignore_index=0)
    assert validation.look(network.model, 0) == pytest.approx(float(wanted), rel=1e-5)
    best = {name: value.clone() for name, value in validation.best.items()}
    with torch.no_grad():
        network.model.embed_tokens.weight.mul_(50)  # worse
    assert validation.look(network.model, 1) > validation.curve[0][1]
    assert all(torch.equal(validation.best[name], value) for name, value in best.items())
    other = Validation(network, EXAMPLES, data.no_view, tokens=8)
    other.load_state_dict(validation.state_dict())
    assert other.curve == validation.curve
