"""Image classification for a training loop: the same images in the same order, however they are stored and shared."""

import pytest
import torch

from labkit.data import IMAGENET_MEAN, IMAGENET_STD, ImageSet, labelled_images, normalize, random_crop_flip
from labkit.errors import InputError
from labkit.workbench.images import ImageTask, TrainingBatches, accuracy
from labkit.workbench.training import CROPS, ShuffledIndices, Workers, generator_at

ALONE = Workers(0, 1, torch.device("cpu"))


def half(pixels):
    return pixels.float() / 2


def crops(pixels, generator):
    return half(random_crop_flip(pixels, padding=2, generator=generator))


@pytest.fixture
def numbered():
    """12 images of 5x5 whose first pixel is their index; labels 0, 1, 0, 1, ..."""
    pixels = torch.randint(0, 256, (12, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[:, 0, 0, 0] = torch.arange(12)
    return ImageSet(pixels, torch.arange(12) % 2, ("even", "odd"), "numbered", "hand-made")


@pytest.fixture
def pictures(imagenet):
    return labelled_images("imagenet", seed=0)


def task_of(sets, workers=ALONE, **options):
    return ImageTask(*sets, half, workers, **options)


def test_batches_follow_the_shuffled_indices(numbered):
    batches, indices = TrainingBatches(task_of((numbered, numbered)), 4, seed=3), ShuffledIndices(12, 4, seed=3)
    for _ in range(7):  # past the second epoch
        images, labels = next(batches)
        order = next(indices)
        assert torch.equal(images, half(numbered.images[order]))
        assert torch.equal(labels, numbered.labels[order])


@pytest.mark.parametrize("augment", [None, crops])
def test_batches_go_on_where_a_checkpoint_left_them(numbered, augment):
    source = lambda: TrainingBatches(task_of((numbered, numbered), train_examples=9), 2, 1, augment)  # noqa: E731
    undisturbed = source()
    whole = [next(undisturbed) for _ in range(11)]
    for left in (1, 4, 5):  # within, at the end of, and just past the first epoch of 4 batches
        first, resumed = source(), source()
        for _ in range(left):
            next(first)
        resumed.load_state_dict(first.state_dict())
        for wanted in whole[left:]:
            assert all(torch.equal(a, b) for a, b in zip(next(resumed), wanted, strict=True))


def test_crops_depend_on_seed_position_and_process(numbered):
    pair = [Workers(rank, 2, ALONE.device) for rank in (0, 1)]
    images = [next(TrainingBatches(task_of((numbered, numbered), worker), 4, 7, crops))[0] for worker in pair]
    order = next(ShuffledIndices(12, 4, seed=7))
    for rank in (0, 1):
        generator = generator_at(7, CROPS, 0, 1, rank)
        assert torch.equal(images[rank], crops(numbered.images[order[rank::2]], generator))
    assert generator_at(7, CROPS, 1, 0, 0).get_state().ne(generator_at(7, 0, 1).get_state()).any()  # epoch 1's order


def test_processes_share_training_and_test(numbered, pictures):
    """Catches: a share taken twice, or left out; crops that depend on the process."""
    for sets in ((numbered, numbered), pictures):
        whole, tested = next(TrainingBatches(task_of(sets), 4, 0)), list(task_of(sets).test_batches())
        pair = [task_of(sets, Workers(rank, 2, ALONE.device)) for rank in (0, 1)]
        shares = [next(TrainingBatches(task, 4, 0)) for task in pair]
        for part in (0, 1):
            assert torch.equal(torch.stack([share[part] for share in shares], 1).flatten(0, 1), whole[part])
        halves = [torch.cat([labels for _, labels in task.test_batches()]) for task in pair]
        assert torch.equal(torch.stack(halves, 1).flatten(), torch.cat([labels for _, labels in tested]))


def test_a_part_of_a_folder_holds_all_its_classes_and_calibration_is_not_augmented(pictures):
    """Catches: the first images of a folder that is sorted by class, which are those of its first classes."""
    task = task_of(pictures, train_examples=4, test_examples=2)
    assert (task.name, task.classes, task.channels, task.image_size) == ("imagenet", 2, 3, 224)
    assert sorted(next(TrainingBatches(task, 4, 0))[1].tolist()) == [0, 0, 1, 1]
    assert [labels.tolist() for _, labels in task.test_batches()] == [[0, 1]]
    plain = pictures[0].without_augmentation()
    wanted = torch.stack([plain.image(k) for k in (0, 6)])
    assert torch.equal(torch.cat(list(task.calibration_inputs(2, 1))), half(wanted))
    assert not torch.equal(pictures[0].image(0), plain.image(0))


def test_calibration_takes_the_first_training_images_in_use(numbered):
    task = task_of((numbered, numbered), train_examples=5)
    assert torch.equal(torch.cat(list(task.calibration_inputs(9, 2))), half(numbered.images[:5]))
    assert [len(batch) for batch in task.calibration_inputs(3, 2)] == [2, 1]


def test_a_batch_that_cannot_be_shared_is_refused(numbered):
    with pytest.raises(InputError, match="must be a multiple of the 2 processes"):
        next(TrainingBatches(task_of((numbered, numbered), Workers(0, 2, ALONE.device)), 3, 0))


@pytest.mark.parametrize("shape", [(12, 2), (12, 2, 1, 1)])
def test_accuracy_counts_the_right_ones(numbered, shape):
    def scores(pixels):
        guess = (pixels[:, 0, 0, 0] < 9).long()  # 1 for the first nine: right for 1, 3, 5, 7 and 10
        return torch.nn.functional.one_hot(guess, 2).float().view(len(pixels), *shape[1:])

    assert accuracy(scores, task_of((numbered, numbered)).test_batches(), ALONE) == 100 * 5 / 12


def test_unknown_images_are_refused_by_name():
    with pytest.raises(InputError, match="no images 'mnist'; there are best, digits, fashion-mnist, cifar10, imagenet"):
        labelled_images("mnist", 0)


def test_normalize_on_the_folder_s_pixels(pictures):
    pixels = pictures[1].image(0)[None]
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])
    assert torch.equal(normalize(pixels, mean, std), normalize(pixels, IMAGENET_MEAN, IMAGENET_STD))
