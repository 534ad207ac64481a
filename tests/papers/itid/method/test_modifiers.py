"""Modified data: z independent of y afterwards, labels untouched, weights of the whole data set."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chi2_contingency

from labkit.errors import InputError
from labkit.papers.itid.method import bounds, edits
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.modifiers import (
    Adaptive,
    Chain,
    Edit,
    Mixup,
    Neutral,
    Paired,
    Resample,
    Swap,
    Unchanged,
    Uniform,
    Weight,
    cell_counts,
    g_statistic,
)
from labkit.papers.itid.method.renderers import Backgrounds, Borders, Photographs, Rotations, Shifts, TwoColors
from labkit.papers.itid.teaching import checks, exercises
from labkit.workbench.exercises import close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def example(n=1200, rho=0.98):
    labels, nuisance = checks.example_data(n, rho)
    content = torch.rand(n, 1, 8, 8, generator=generator(1))
    return Batch.render(content, labels, nuisance, torch.arange(n) % 2, Backgrounds())


BATCH = example()


def test_g_is_scipys_and_the_sheets():
    counts = cell_counts(BATCH.labels, BATCH.nuisance)
    g, freedom = g_statistic(BATCH.labels, BATCH.nuisance)
    wanted = chi2_contingency(counts.numpy(), correction=False, lambda_="log-likelihood")
    assert g == pytest.approx(wanted.statistic, rel=1e-10)
    assert freedom == wanted.dof == 81
    assert g == pytest.approx(5263, abs=1)
    assert chi2.ppf(0.999, 81) == pytest.approx(checks.G_LIMIT, abs=0.01)


def test_swap_makes_the_nuisance_independent_and_keeps_everything_else():
    swapped = Swap()(BATCH, generator())
    assert g_statistic(swapped.labels, swapped.nuisance)[0] < 200  # 83 +- 14 over 400 seeds, 5263 before
    assert torch.equal(swapped.nuisance.sort().values, BATCH.nuisance.sort().values)
    assert torch.equal(swapped.labels, BATCH.labels)
    assert torch.equal(swapped.content, BATCH.content)
    assert torch.equal(swapped.images, Backgrounds()(BATCH.content, swapped.nuisance))
    actual = [g_statistic(BATCH.labels, Swap()(BATCH, generator(s)).nuisance)[0] for s in range(100)]
    assert np.mean(actual) == pytest.approx(83.4, abs=6)  # a mean of 100 scatters by 1.4


def check_weights(weights):
    """`weights(labels, nuisance)`, one weight per datum: z and y are independent under them."""
    labels, nuisance = checks.example_data(4000, 0.7)
    got = torch.as_tensor(weights(labels, nuisance), dtype=torch.float64)
    assert got.shape == labels.shape, f"one weight per datum: wanted {tuple(labels.shape)}, got {tuple(got.shape)}"
    joint = torch.zeros(10, 10, dtype=torch.float64).index_put_((labels, nuisance), got, accumulate=True)
    joint = joint / joint.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    assert float((joint - product).abs().max()) < 1e-9, "under the weights z must be independent of y"
    counts = cell_counts(labels, nuisance)
    close(joint.sum(1), counts.sum(1) / len(labels), "The shares of the classes must stay as they were.")
    assert abs(float(got.mean()) - 1) < 1e-9, f"with all cells filled, weights have mean 1; got {float(got.mean()):.3f}"
    wanted = bounds.independence_weights(counts)[labels, nuisance]
    close(got, wanted, "w = p(y) p(z) / p(y, z), with shares of the whole data set.")


def test_the_checks_pass_on_ours():
    checks.check_swap(
        lambda y, z, g: Swap()(Batch.render(torch.zeros(len(y), 1, 1, 1), y, z, y, Backgrounds()), g).nuisance
    )
    check_weights(lambda y, z: Weight(y, z).table.double()[y, z])


@pytest.mark.parametrize(
    "wrong",
    [
        exercises.broken_swap,
        exercises.labels_along,
        exercises.draw_uniformly,
        lambda y, z, g: z,
        lambda y, z, g: z.flip(0),
    ],
)
def test_the_check_of_swaps_rejects(wrong):
    with pytest.raises(AssertionError):
        checks.check_swap(wrong)


def test_within_class_swap_leaves_g_as_it_was():
    swapped = exercises.broken_swap(BATCH.labels, BATCH.nuisance, generator())
    assert g_statistic(BATCH.labels, swapped)[0] == pytest.approx(g_statistic(BATCH.labels, BATCH.nuisance)[0])


WEIGHT_MUTANTS = {
    "inverted": lambda y, z: 1 / Weight(y, z).table.double()[y, z],
    "per batch": lambda y, z: torch.cat(
        [Weight(a, b).table.double()[a, b] for a, b in zip(y.split(500), z.split(500), strict=True)]
    ),
    "renormalised per batch": lambda y, z: torch.cat(
        [w / w.mean() for w in Weight(y, z).table.double()[y, z].split(500)]
    ),
    "only p(z) / p(y, z)": lambda y, z: (cell_counts(y, z).sum(0) / cell_counts(y, z).clamp(min=1))[y, z],
    "ones": lambda y, z: torch.ones(len(y)),
}


@pytest.mark.parametrize("wrong", WEIGHT_MUTANTS)
def test_the_check_of_weights_rejects(wrong):
    with pytest.raises(AssertionError):
        check_weights(WEIGHT_MUTANTS[wrong])


def test_weights_of_independent_data_go_to_one():
    labels = torch.arange(10_000) % 10
    nuisance = torch.arange(10_000) // 10 % 10
    assert torch.allclose(Weight(labels, nuisance).table, torch.ones(10, 10).double())


def test_rare_cells_raise_the_overlap_alarm():
    """The sheet's E1: population n_eff 20.7, 3/4 of the cells empty. Samples: n_eff 43 +- 3, mean weight .26 +- .04."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 1200)
    rho = np.where(np.arange(1200) % 2, 0.97, 0.999)
    nuisance = np.where(generator.random(1200) < rho, labels, generator.integers(0, 10, 1200))
    weight = Weight(torch.from_numpy(labels), torch.from_numpy(nuisance))
    assert weight.overlap_alarm
    assert weight.mean_weight < 0.5
    assert 25 < weight.effective_sample_size < 80
    assert 1200 / bounds.second_moment_aligned(0.9845, 10) == pytest.approx(20.7, abs=0.5)


def test_resampling_balances_the_cells():
    drawn = Resample(example(1200, 0.5))(BATCH, generator())
    counts = cell_counts(drawn.labels, drawn.nuisance)
    assert len(drawn) == len(BATCH)
    assert float((counts - 12).abs().max()) < 26  # Poisson with mean 12 in 100 cells; 54 without balancing
    pool = example(1200, 0.5)
    again = Resample(pool)(BATCH, generator())
    assert torch.equal(again.images, pool.renderer(again.content, again.nuisance))


def test_uniform():
    uniform = Uniform()(BATCH, generator())
    assert torch.bincount(uniform.nuisance).min() > 60  # 120 +- 10


def test_chains_compose_and_refuse_to_undo_an_edit():
    chained = Chain(Swap(), Edit(edits.shift), Weight(BATCH.labels, BATCH.nuisance))(BATCH, generator())
    assert not torch.equal(chained.weights, BATCH.weights)
    assert not torch.equal(chained.nuisance, BATCH.nuisance)
    with pytest.raises(InputError, match="would undo the edit"):
        Chain(Edit(edits.shift), Swap())(BATCH, generator())


def test_mixup_blends_images_and_labels_alike():
    mixed = Mixup(50.0)(BATCH, generator())
    share = float(mixed.mix[0])
    assert 0.2 < share < 0.8  # .5 +- .05
    for k in range(5):  # the other image is one of the batch, and the second label is its label
        other = (mixed.images[k] - share * BATCH.images[k]) / (1 - share)
        apart = (BATCH.images - other).abs().flatten(1).amax(1)
        assert float(apart.min()) < 1e-4
        assert mixed.second_labels[k] == BATCH.labels[apart.argmin()]
    none = [float(Mixup(1e-5)(BATCH, generator(s)).mix[0]) for s in range(40)]
    assert sum(min(s, 1 - s) < 1e-6 for s in none) >= 38  # one image or the other: ERM on the data in another order


def test_pairs_and_the_oracle():
    paired = Paired(Swap())(BATCH, generator())
    assert torch.equal(paired.images, BATCH.images)
    assert not torch.equal(paired.partner, BATCH.images)
    neutral = Neutral()(BATCH, generator())
    assert torch.equal(neutral.images, Neutral()(Uniform()(BATCH, generator()), generator()).images)
    assert Unchanged()(BATCH, generator()) is BATCH


def test_adaptive_moves_to_the_family_that_changes_answers():
    def answers(images):
        return images[:, 0].mean((1, 2)).gt(0.5).long()  # looks at the red channel's brightness: colours change it

    adaptive = Adaptive({"colour": edits.color_matrix, "shift": edits.shift})
    for k in range(60):
        deltas = adaptive.update(answers, BATCH.images[:100], generator(k))
    assert deltas["shift"] == 0.0
    assert deltas["colour"] > 0.1
    assert float(adaptive.probabilities[0]) > 0.8
    assert 0.05 <= float(adaptive.probabilities[1]) < 0.2  # never below the floor eps / K
    assert float(adaptive.probabilities.sum()) == pytest.approx(1.0)
    before = adaptive.probabilities.clone()
    adaptive.update(lambda images: torch.zeros(len(images)).long(), BATCH.images[:50], generator())
    assert torch.equal(adaptive.probabilities, before)  # nothing left to mend: it stops
    other = Adaptive({"colour": edits.color_matrix, "shift": edits.shift})
    other.load_state_dict(adaptive.state_dict())
    assert torch.equal(other.probabilities, before)
    assert adaptive(BATCH, generator()).edited


# -- renderers and edits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", [TwoColors(), Backgrounds(), Shifts(), Rotations(), Borders(2)])
def test_counterfactuals_differ_in_the_nuisance_only(renderer):
    channels = 3 if isinstance(renderer, Borders) else 1
    content = torch.rand(6, channels, 8, 8, generator=generator())
    images = [renderer(content, torch.full((6,), z)) for z in range(renderer.nuisances)]
    assert len(images) == renderer.nuisances
    assert all(image.shape == images[0].shape for image in images)
    assert not torch.equal(images[0], images[1])
    mixed = renderer(content, torch.tensor([1, 0, 1, 0, 1, 0]))
    torch.testing.assert_close(mixed[:2], torch.stack([images[1][0], images[0][1]]), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="nuisances are numbered 0 to"):
        renderer(content, torch.full((6,), renderer.nuisances))


def test_content_can_be_read_back():
    content = torch.rand(4, 1, 8, 8, generator=generator())
    z = torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(TwoColors()(content, z).sum(1, keepdim=True), content, rtol=0, atol=0)
    backgrounds = Backgrounds()
    colour = torch.tensor(backgrounds.palette)[z][:, :, None, None]
    image = backgrounds(content, z)
    read = ((image - colour) / (1 - colour).clamp(min=1e-9))[torch.arange(4), (colour[..., 0, 0].argmin(1))]
    torch.testing.assert_close(read[:, None], content, rtol=0, atol=1e-5)
    shifted = Shifts()(content, torch.tensor([4, 4, 4, 4]))
    torch.testing.assert_close(shifted, Shifts().neutral(content), rtol=0, atol=0)
    torch.testing.assert_close(Shifts()(content, torch.zeros(4).long()), shifted.roll((-1, -1), (2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(Rotations((0.0, 90.0))(content, torch.zeros(4).long()), content, rtol=0, atol=1e-5)
    quarter = Rotations((0.0, 90.0))(content, torch.ones(4).long())
    assert min(float((quarter - content.rot90(k, (2, 3))).abs().max()) for k in (1, -1)) < 1e-4


def test_photographs_cannot_be_rendered():
    with pytest.raises(InputError, match="cannot be rendered"):
        Photographs(3)(torch.rand(2, 3, 4, 4), torch.zeros(2).long())
    with pytest.raises(InputError, match="no oracle"):
        Photographs(3).neutral(torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize("name", edits.EDITS)
def test_edits_keep_shape_draw_anew_and_follow_the_generator(name):
    images = BATCH.images[:30]
    first, again, other = (edits.EDITS[name](images, generator(seed)) for seed in (0, 0, 1))
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, images)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Mixup(0.0), "alpha must be positive"),
        (lambda: Adaptive({}), "at least one family"),
        (lambda: Adaptive({"a": edits.blur}, eta=-1.0), "eta and every are positive"),
        (lambda: Weight(torch.zeros(5).long(), torch.zeros(5).long()), "two classes and two nuisances"),
        (lambda: Borders(4)(torch.rand(1, 3, 8, 8), torch.zeros(1).long()), "leaves nothing"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
