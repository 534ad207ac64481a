"""Stage 2's learner: every reading of mining changes what is learned, and only through what is mined."""

import pytest
import torch
import torch.nn.functional as F

from labkit.papers.crt.experiment.config import MINING
from labkit.papers.crt.method.ridge_head import Ridge, RidgeHead, Rivals, Rows


def rows(seed, n=9, d=12):
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(2, n, d, generator=generator, dtype=torch.float64), dim=2)
    y = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return Rows(x, y, torch.full_like(y, 1 / n))


def rivals(seed, first, k=3):
    """Half alike to the target, which is the first row."""
    noise = rows(seed, k, first.x.shape[2]).x
    x = F.normalize(first.x[:, :1] + noise, dim=2)
    return Rivals(x, torch.ones(2, k, dtype=torch.bool), torch.zeros(2, k, 4), frame=1)


def learned(mining, mined, seed=0, **settings):
    """The head after a first frame and two more; `mined`: from rivals to what is handed over."""
    head, first, everyone = RidgeHead(Ridge(mining=mining, **settings)), rows(seed), torch.ones(2)
    head.first([first])
    for t in (1, 2):
        head.update(rows(100 * seed + t), everyone, mined(rivals(100 * seed + 10 + t, first)))
    return head


@pytest.mark.parametrize("way", MINING)
def test_mining_changes_what_is_learned_only_through_what_is_mined(way):
    none = learned(way, lambda rivals: None)
    shut = learned(way, lambda rivals: rivals._replace(valid=torch.zeros_like(rivals.valid)))
    assert torch.equal(shut.w, none.w)
    if way != "irls":  # which weighs all rows by their residual
        assert torch.equal(none.w, learned("none", lambda rivals: None).w)
    assert float((learned(way, lambda rivals: rivals).w - none.w).abs().max()) > 1e-4  # over 40 seeds above .03


def test_only_the_target_that_met_rivals_learns_from_them():
    def first_target_only(rivals):
        return rivals._replace(valid=rivals.valid & torch.tensor([[True], [False]]))

    for way in MINING:
        some, none = learned(way, first_target_only), learned(way, lambda rivals: None)
        assert float((some.w - none.w)[0].abs().max()) > 1e-4, way
        torch.testing.assert_close(some.w[1], none.w[1], rtol=0, atol=1e-12)


def test_anchored_rivals_score_less_and_the_first_positives_the_same():
    head = learned("anchored", lambda rivals: rivals, anchor_lam=1e-3, hard_weight=5.0)
    plain = head.running.solve(head.settings.lam)
    before, after = ((head.hard.x @ w[..., None])[..., 0].abs().mean() for w in (plain, head.w))
    moved = (head.positives @ (head.w - plain)[..., None]).abs().mean()
    assert float(after) < 0.2 * float(before)  # over 60 seeds below .01
    assert float(moved) < 0.2 * float(before)  # over 60 seeds below .06


def test_all_rows_kept_is_the_running_gram():
    """As long as nothing is forgotten: the weights of `eta` and `keep_first`, row by row (they are float32)."""
    gram, dual = (learned("none", lambda rivals: None, solver=solver) for solver in ("gram", "dual"))
    torch.testing.assert_close(gram.w, dual.w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", ["gram", "dual"])
def test_a_frame_that_counts_twice_weighs_twice(solver):
    """By the running Gram it is eta doubled, and one that counts 0 leaves w as it is; the dual weighs its rows."""
    heads = [RidgeHead(Ridge(eta=eta, solver=solver)) for eta in (0.02, 0.04, 0.02)]
    for head, counts in zip(heads, (2.0, 1.0, 0.0), strict=True):
        head.first([rows(0)])
        before = head.w.clone()
        head.update(rows(1), torch.full((2,), counts), None)
    if solver == "gram":
        torch.testing.assert_close(heads[0].w, heads[1].w, rtol=0, atol=0)
        torch.testing.assert_close(heads[2].w, before, rtol=0, atol=1e-5)
    else:
        once = RidgeHead(Ridge(eta=0.02, solver=solver))
        once.first([rows(0)])
        once.update(rows(1), torch.ones(2), None)
        assert (heads[0].w - heads[2].w).norm() > 1.2 * (once.w - heads[2].w).norm()
