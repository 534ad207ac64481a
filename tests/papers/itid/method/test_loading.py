"""Modifiers behind any DataLoader: pixel types, sizes, forms of samples, randomness in workers, refusals."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from labkit.errors import InputError
from labkit.papers.itid.method import edits
from labkit.papers.itid.method.batch import Batch
from labkit.papers.itid.method.edits import EditTransform
from labkit.papers.itid.method.loading import BatchModifier
from labkit.papers.itid.method.modifiers import (
    Adaptive,
    Chain,
    Edit,
    InterdomainMixup,
    Mixup,
    Neutral,
    Paired,
    Resample,
    Swap,
    Unchanged,
    Uniform,
    Weight,
    balancing_probabilities,
    cell_counts,
)
from labkit.papers.itid.method.renderers import Backgrounds, Borders, Photographs, Rotations, TwoColors

LABELS = torch.arange(12) % 3
NUISANCE = torch.arange(12) % 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(channels=3, height=10, width=14, n=12):
    return torch.rand(n, channels, height, width, generator=generator(1))


def as_type(images, dtype):
    return (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)


def test_without_a_modifier_nothing_happens():
    images = pixels()
    for fields in (("images", "labels"), ("labels", "images"), ("images", "labels", "nuisance", "weights")):
        out = BatchModifier(Unchanged(), fields=fields)(images, LABELS, NUISANCE)
        for name, value in zip(fields, out, strict=True):
            wanted = {"images": images, "labels": LABELS, "nuisance": NUISANCE, "weights": torch.ones(12)}[name]
            assert torch.equal(value, wanted)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 7, 5), (2, 28, 28), (3, 10, 14), (4, 1, 1)])
@pytest.mark.parametrize("name", edits.EDITS)
def test_edits_of_every_pixel_type_are_those_of_floats_rounded(name, dtype, channels, height, width):
    if name == "colour" and channels == 1:
        return
    images = as_type(pixels(channels, height, width), dtype)
    exact = images.double() / (255 if dtype == torch.uint8 else 1)
    edited, _ = BatchModifier(Edit(edits.EDITS[name]))(images, LABELS, generator=generator(7))
    wanted, _ = BatchModifier(Edit(edits.EDITS[name]))(exact.float(), LABELS, generator=generator(7))
    assert edited.dtype == dtype
    assert edited.shape == images.shape
    step = {torch.uint8: 1 / 255, torch.float16: 2**-11, torch.bfloat16: 2**-8}.get(dtype, 1e-5)
    scaled = edited.double() / (255 if dtype == torch.uint8 else 1)
    assert float((scaled - wanted.double()).abs().max()) <= step
    transformed = EditTransform(edits.EDITS[name])(images[0])
    assert transformed.dtype == dtype
    assert transformed.shape == images[0].shape


def test_a_turn_of_an_oblong_image_turns_it_and_does_not_shear_it():
    """A quarter turn of a picture twice as wide as high: what lies up to half the height away swings round exactly."""
    images = torch.rand(1, 1, 9, 17, generator=generator(), dtype=torch.float64)
    turned = edits.turned_by(images, torch.tensor([torch.pi / 2], dtype=torch.float64))
    square = images[..., 4:13]
    assert min(float((turned[..., 4:13] - square.rot90(k, (2, 3))).abs().max()) for k in (1, -1)) < 1e-9


def test_grey_images_have_no_colours_to_edit():
    with pytest.raises(InputError, match="grey images have no colours"):
        BatchModifier(Edit(edits.color_matrix))(pixels(1), LABELS)


@pytest.mark.parametrize("renderer", [Backgrounds(), Borders(2), TwoColors(), Rotations((0.0, 40.0))])
def test_renderers_of_8_bits_are_those_of_floats_rounded(renderer):
    content = as_type(pixels(3 if isinstance(renderer, Borders) else 1, 12, 12), torch.uint8)
    exact = renderer(content.double() / 255, NUISANCE)
    rendered = renderer(content, NUISANCE)
    assert rendered.dtype == torch.uint8
    assert float((rendered.double() / 255 - exact).abs().max()) <= 0.5 / 255 + 1e-6
    neutral = renderer.neutral(content)
    assert float((neutral.double() / 255 - renderer.neutral(content.double() / 255)).abs().max()) <= 0.5 / 255 + 1e-6


def paint(content, nuisance):
    """A reader's own renderer: the nuisance is the value of the first row."""
    images = content.clone()
    images[:, :, 0] = nuisance[:, None, None].to(content.dtype)
    return images


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_swap_with_a_renderer_of_ones_own(dtype):
    content = as_type(pixels(1), dtype)
    z = torch.arange(12)
    fields = ("images", "labels", "nuisance")
    images, labels, swapped = BatchModifier(Swap(), renderer=paint, fields=fields)(content, LABELS, z)
    assert torch.equal(labels, LABELS)
    assert torch.equal(swapped.sort().values, z)
    assert not torch.equal(swapped, z)
    assert torch.equal(images, paint(content, swapped))


def test_a_loader_of_tensors_and_the_batches_of_any_other():
    dataset = TensorDataset(pixels(), LABELS, NUISANCE)
    modify = BatchModifier(Chain(Edit(edits.blur), Weight(LABELS, NUISANCE)), fields=("images", "labels", "weights"))
    torch.manual_seed(3)
    collated = list(DataLoader(dataset, batch_size=5, collate_fn=modify.collate))
    assert [len(images) for images, _, _ in collated] == [5, 5, 2]
    assert torch.equal(torch.cat([labels for _, labels, _ in collated]), LABELS)
    torch.testing.assert_close(
        torch.cat([w for _, _, w in collated]), Weight(LABELS, NUISANCE).table[LABELS, NUISANCE].float()
    )
    for batch in DataLoader(dataset, batch_size=5):
        images, _, _ = modify(*batch)
        assert not torch.equal(images, batch[0])
    torch.manual_seed(3)
    again = list(DataLoader(dataset, batch_size=5, collate_fn=modify.collate))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(collated, again, strict=True))


class SameImage(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, k):
        return torch.arange(30.0).view(1, 5, 6) / 30, 0


@pytest.mark.slow
def test_workers_draw_apart_and_epochs_draw_anew():
    """A generator copied into each worker would draw the same in all of them, and the same in every epoch."""
    modify = BatchModifier(Edit(edits.blur))
    loader = DataLoader(SameImage(), batch_size=2, num_workers=2, collate_fn=modify.collate)
    torch.manual_seed(0)
    images = torch.cat([batch[0] for _ in range(2) for batch in loader])
    assert len(images.flatten(1).unique(dim=0)) == 16
    torch.manual_seed(0)
    again = torch.cat([batch[0] for _ in range(2) for batch in loader])
    assert torch.equal(images, again)


def test_mixup_across_environments_pairs_each_datum_with_another_environment():
    environment = torch.tensor([0] * 4 + [1] * 4 + [2] * 4)
    fields = ("images", "labels", "second_labels", "mix")
    images, labels = pixels(), torch.arange(12)
    modify = BatchModifier(InterdomainMixup(1.0), fields=fields)
    for seed in range(20):
        mixed, first, second, mix = modify(images, labels, NUISANCE, environment, generator=generator(seed))
        assert torch.equal(first, labels)
        assert (environment[second] != environment).all()
        assert torch.equal(second % 4, labels % 4)  # the i-th of one with the i-th of the other
        assert len(mix.view(3, 4).unique()) == 3  # one draw a pair of environments
        assert (mix.view(3, 4) == mix.view(3, 4)[:, :1]).all()
        share = mix[:, None, None, None]
        torch.testing.assert_close(mixed, share * images + (1 - share) * images[second])
        assert len(environment[second].view(3, 4).unique()) == 3  # a ring: each gives and takes once
    alone, _, second, _ = modify(images, labels, NUISANCE, torch.zeros(12).long(), generator=generator())
    torch.testing.assert_close(alone, images)  # one environment: each datum with itself, plain ERM
    assert torch.equal(second, labels)


def test_environments_of_unequal_size_are_mixed_too():
    environment = torch.tensor([0] * 3 + [1] * 9)
    modify = BatchModifier(InterdomainMixup(), fields=("images", "labels", "second_labels", "mix"))
    _, _, second, _ = modify(pixels(), torch.arange(12), None, environment)
    assert second.tolist() == [3, 4, 5, *[0, 1, 2] * 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_mixup_pairs_and_adaptive_edits_keep_the_pixel_type(dtype):
    images = as_type(pixels(), dtype)
    mixed, _, _, mix = BatchModifier(Mixup(1.0), fields=("images", "labels", "second_labels", "mix"))(
        images, LABELS, generator=generator(2)
    )
    assert mixed.dtype == dtype
    assert 0 < float(mix[0]) < 1
    same, _, partner = BatchModifier(Paired(Edit(edits.blur)), fields=("images", "labels", "partner"))(images, LABELS)
    assert torch.equal(same, images)
    assert partner.dtype == dtype
    adaptive = Adaptive({"blur": edits.blur, "mirror": edits.mirror})
    edited, _ = BatchModifier(adaptive)(images, LABELS)
    assert edited.dtype == dtype
    deltas = adaptive.update(lambda x: x.float().mean((1, 2, 3)).gt(0.5).long(), images, generator())
    assert deltas["mirror"] == 0


def test_neutral_and_uniform_with_a_renderer_of_the_house():
    grey = pixels(1)
    neutral, _ = BatchModifier(Neutral(), renderer=Backgrounds())(grey, LABELS, NUISANCE)
    assert torch.equal(neutral, Backgrounds().neutral(grey))
    _, z = BatchModifier(Uniform(), renderer=Backgrounds(), fields=("images", "nuisance"))(grey, LABELS, NUISANCE)
    assert int(z.max()) > 1


def test_regression_targets_pass_through_edits():
    targets = torch.rand(12, 4)
    _, same = BatchModifier(Edit(edits.shift))(pixels(), targets)
    assert torch.equal(same, targets)


def test_a_sampler_balances_the_cells_of_any_dataset():
    labels, nuisance = [0] * 90 + [1] * 10, [0] * 80 + [1] * 15 + [0] * 5
    probabilities = balancing_probabilities(labels, nuisance)
    drawn = list(WeightedRandomSampler(probabilities, 4000, generator=generator()))
    counts = cell_counts([labels[k] for k in drawn], [nuisance[k] for k in drawn])
    present = counts[counts > 0]
    assert len(present) == 4
    assert float((present - 1000).abs().max()) < 150  # 27 is one standard deviation


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BatchModifier(Swap())(pixels(), LABELS), "nuisance of these data is not known"),
        (lambda: BatchModifier(Swap())(pixels(), LABELS, NUISANCE), "photographs cannot be rendered"),
        (lambda: BatchModifier(Swap(), Backgrounds())(pixels(1), LABELS), "a renderer needs the nuisance, too"),
        (lambda: BatchModifier(Uniform(), paint)(pixels(1), LABELS, NUISANCE), "does not say how many nuisances"),
        (lambda: BatchModifier(Neutral(), paint)(pixels(1), LABELS, NUISANCE), "give the renderer `neutral`"),
        (
            lambda: BatchModifier(Weight(LABELS, NUISANCE))(pixels(), LABELS, NUISANCE),
            "sets weights, and they would be lost: name them in `fields`",
        ),
        (
            lambda: BatchModifier(Weight(LABELS, NUISANCE), fields=("images", "weights"))(pixels(), LABELS),
            "nuisance of these data is not known",
        ),
        (
            lambda: BatchModifier(Weight(LABELS, NUISANCE), fields=("images", "weights"))(pixels(), LABELS, LABELS),
            "made for nuisances 0 to 1; this batch holds others",
        ),
        (lambda: BatchModifier(Edit(edits.blur), fields=("images", "mix"))(pixels(), LABELS), "does not make"),
        (lambda: BatchModifier(Edit(edits.blur), fields=("images", "label")), "fields are some of images, labels"),
        (lambda: BatchModifier(Edit(edits.blur), fields="images"), "fields are some of"),
        (lambda: BatchModifier(edits.blur), r"blur is no modifier; write Edit\(edits.blur\)"),
        (lambda: BatchModifier(Chain(Swap)), r"Swap is no modifier; write Swap\(\)"),
        (lambda: BatchModifier(InterdomainMixup())(pixels(), LABELS), "environment of these data is not known"),
        (
            lambda: BatchModifier(
                Resample(Batch.render(pixels(1), LABELS, NUISANCE, NUISANCE, Backgrounds()))
            ),
            "sampler=WeightedRandomSampler",
        ),
        (lambda: BatchModifier(Edit(edits.blur))(pixels()[:, 0], LABELS), "Grey ones need a channel, too"),
        (lambda: BatchModifier(Edit(edits.blur))(pixels(), LABELS[:5]), "labels must have one entry per image"),
        (lambda: BatchModifier(Edit(edits.blur))(as_type(pixels() * 9, torch.int32), LABELS), "pixels must be uint8"),
        (lambda: BatchModifier(Edit(edits.blur)).collate([{"image": 1}]), "call the BatchModifier on what the loader"),
        (lambda: BatchModifier(Edit(edits.blur)).collate([(1,)]), "got a tuple of 1"),
        (
            lambda: BatchModifier(Edit(edits.blur)).collate([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 3), 1)]),
            "tensors of one size in all samples",
        ),
        (lambda: BatchModifier(Edit(edits.blur)).collate([(object(), 0)]), "must be numbers, or tensors of one size"),
        (lambda: EditTransform(edits.blur)(torch.rand(5, 5)), "an image must be"),
        (lambda: Weight([0, 1], [0, 1, 1]), "must be as many; got 2 and 3"),
        (lambda: Weight([0, -1], [0, 1]), "labels must be whole numbers from 0 on"),
        (lambda: Weight([0, 1], torch.tensor([0.5, 1.0])), "nuisances must be whole numbers"),
        (lambda: Weight([0, 10**6], [0, 10**6]), "number them from 0 on"),
        (lambda: InterdomainMixup(0.0), "alpha must be positive"),
        (lambda: Photographs(3)(pixels(), NUISANCE), "cannot be rendered"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()
