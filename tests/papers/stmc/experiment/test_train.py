"""Runs: every scale starts, a killed run ends as an undisturbed one, two processes are one, bad configs answer back."""

import math

import numpy as np
import pytest
import torch
from killed import killed
from PIL import Image
from safetensors.torch import load_file

from labkit.errors import ConfigError, DataError, InputError
from labkit.metrics.wer import word_errors
from labkit.papers.stmc import PAPER, Recognizer
from labkit.papers.stmc.experiment import avatars, data
from labkit.papers.stmc.experiment.config import ARMS, CONFIGS
from labkit.papers.stmc.experiment.evaluate import confusions
from labkit.papers.stmc.experiment.train import build, one_cycle, too_short
from labkit.workbench.runs import Run

TINY = CONFIGS["smoke"].override(train_sentences=4, test_sentences=2, epochs=1, frame_epochs=1, at_once=1, beam=4)


def opened(folder, config):
    return Run.open(folder, config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return PAPER.run(TINY, opened(folder, TINY)), folder


def test_smoke(undisturbed):
    result, folder = undisturbed
    assert result["data"] == "avatars"
    assert set(result["arms"]) == {"full-frame", "multi-cue"}
    for numbers in result["arms"].values():
        assert numbers["wer"] == pytest.approx(numbers["substitutions"] + numbers["deletions"] + numbers["insertions"])
        assert len(numbers["each"]) == 2
        assert np.sum(numbers["each"], axis=0)[3] == numbers["words"]
    assert "pixels" in result["arms"]["multi-cue"]
    assert "pixels" not in result["arms"]["full-frame"]
    assert PAPER.run(TINY, opened(folder, TINY)) == result  # finished: read, not trained again


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(tmp_path, undisturbed):
    """Killed in the aligner, in stage 1 and in stage 2; there is a checkpoint after every step."""
    wanted, folder = undisturbed
    for stop in (1, 2, 2):
        with killed(stop):
            PAPER.run(TINY, opened(tmp_path / "run", TINY))
    assert PAPER.run(TINY, opened(tmp_path / "run", TINY)) == wanted
    for arm in TINY.arms:
        whole, resumed = (load_file(f / arm / "weights.safetensors") for f in (folder, tmp_path / "run"))
        for name, value in whole.items():
            assert torch.equal(resumed[name], value), name


@pytest.mark.slow
def test_arms_side_by_side_are_arms_one_by_one(tmp_path, undisturbed):
    """Two threads: no arm draws from a generator that the other one uses."""
    config = TINY.override(at_once=2)
    assert PAPER.run(config, opened(tmp_path / "run", config)) == undisturbed[0]


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, undisturbed):
    """The weights move to the same place. Of the way: .02 apart by sums in another order, which Adam blows up where a
    gradient is small; 1.1 apart where each process keeps to its own share."""
    config = TINY.override(devices=2, device="cpu")
    PAPER.run(config, opened(tmp_path / "two", config))
    for arm in config.arms:
        one, two = (load_file(f / arm / "weights.safetensors") for f in (undisturbed[1], tmp_path / "two"))
        start = dict(build(ARMS[arm].architecture(config.base()), 13, config).backbone.named_parameters("backbone"))
        way, apart = (
            math.sqrt(sum(float((one[name] - other[name].detach()).double().square().sum()) for name in start))
            for other in (start, two)
        )
        assert way > 0
        assert apart < 0.2 * way, arm


@pytest.mark.slow
@pytest.mark.parametrize("arm", [name for name in ARMS if name not in TINY.arms])
def test_every_arm_trains_and_reads(tmp_path, arm):
    config = TINY.override(arms=(arm,), labels="even")
    result = PAPER.run(config, opened(tmp_path, config))
    assert 0 < result["arms"][arm]["wer"] < 5
    if arm == "frozen-spatial":
        first, last = (load_file(tmp_path / arm / part / "weights.safetensors") for part in ("stage-1", "."))
        spatial = [name for name in last if "spatial" in name]
        assert spatial
        assert all(torch.equal(first[name], last[name]) for name in spatial)


@pytest.mark.slow
def test_gpu_starts_on_a_few_sentences(tmp_path):
    config = CONFIGS["gpu"].override(
        train_sentences=2, test_sentences=1, batch_size=2, frame_batch=2, frame_epochs=1, epochs=1, width=0.1,
        arms=("multi-cue",), bf16=False,
    )  # fmt: skip
    result = PAPER.run(config, opened(tmp_path, config))
    assert set(result["arms"]) == {"multi-cue"}


def write_phoenix(root, splits=("train", "dev"), frames=20):
    """PHOENIX-2014's layout with two sentences of noise a split, and key points."""
    from labkit.data.sign.phoenix import PIXELS

    inner = root / "phoenix2014" / "phoenix-2014-multisigner"
    random = np.random.default_rng(0)
    for split in splits:
        rows = ["id|folder|signer|annotation"]
        points = {}
        for k in range(2):
            name = f"{split}-{k}"
            rows.append(f"{name}|{name}/1/*.png|Signer01|REGEN SONNE")
            folder = inner / PIXELS / split / name / "1"
            folder.mkdir(parents=True)
            for t in range(frames):
                Image.fromarray(random.integers(0, 256, (26, 21, 3), dtype=np.uint8)).save(folder / f"{t:03d}.png")
            points[name] = random.random((frames, 7, 2)).astype(np.float32)
        np.savez(inner / PIXELS / f"{split}-keypoints.npz", **points)
        path = inner / "annotations" / "manual" / f"{split}.corpus.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")


@pytest.mark.slow
def test_full_starts_on_made_up_data_of_the_real_layout(tmp_path, monkeypatch):
    """224 pixels, clips of 16 frames, SGD, augmentation, aligned labels, threads that read ahead; a small width."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    write_phoenix(tmp_path)
    config = CONFIGS["full"].override(
        arms=("multi-cue",), width=0.06, frame_epochs=1, epochs=1, frame_batch=2, batch_size=2, bf16=False,
        device="cpu", data_workers=1,
    )  # fmt: skip
    result = PAPER.run(config, opened(tmp_path / "run", config))
    assert result["data"] == "phoenix2014"
    assert result["sentences"] == [2, 2]
    assert "confusions" not in result["arms"]["multi-cue"]


def test_data_that_is_not_there_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    for name in ("phoenix2014", "phoenix2014t", "csl-1"):
        config = CONFIGS["full"].override(data=name, width=0.06)
        with pytest.raises(DataError, match=r"is not in LABKIT_DATA"):
            PAPER.run(config, opened(tmp_path / f"run-{name}", config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ("magic",)}, "there is no arm 'magic'"),
        ({"arms": ("multi-cue", "multi-cue")}, "stands there twice"),
        ({"data": "movies"}, "data is one of avatars"),
        ({"data": "folder:"}, "or folder:PATH"),
        ({"train_sentences": 0}, "say how many"),
        ({"batch_size": 500}, "must not be larger than train_sentences"),
        ({"clip_frames": 8}, "16 frames or more"),
        ({"model": "huge"}, "model"),
        ({"epoch": 3}, "did you mean"),
    ],
)
def test_config_answers_back(changes, words):
    with pytest.raises(ConfigError, match=words):
        CONFIGS["smoke"].override(**changes)


# -- pieces -----------------------------------------------------------------------------------------------------------


def test_the_step_size_rises_and_falls():
    shape = [one_cycle(step, 100) for step in range(101)]
    assert shape[0] < 0.05
    assert max(shape) == pytest.approx(1.0, abs=0.04)
    assert shape[100] == pytest.approx(0.0, abs=1e-9)
    assert one_cycle(0, 1) > 0


def test_a_batch_is_a_function_of_its_step():
    batches = data.Batches(7, 3, 5, lambda step, chosen: None, 0)
    assert batches.per_epoch == 2
    epoch = torch.cat([batches.indices(0), batches.indices(1)])
    assert len(set(epoch.tolist())) == 6
    assert torch.equal(data.Batches(7, 3, 5, lambda step, chosen: None, 0).indices(5), batches.indices(5))


def test_augmentation_moves_points_with_the_picture():
    """A single bright pixel stays under its key point, through crop, mirror image and lost frames."""
    for seed in range(6):
        pictures = torch.zeros(10, 3, 46, 46, dtype=torch.uint8)
        points = torch.full((10, 7, 2), 0.5)
        for t in range(10):
            pictures[t, :, 20 + t, 17] = 255
            points[t, 1] = torch.tensor([(20 + t) / 45, 17 / 45])
        changed, moved = data.augmented(pictures, points, 40, torch.Generator().manual_seed(seed), 1)
        assert len(changed) == len(moved) == 8
        for frame, keys in zip(changed, moved, strict=True):
            row, column = (frame[0] == 255).nonzero()[0].tolist()
            near = (keys[[1, 2]] * 39 - torch.tensor([row, column])).abs().amax(-1)
            assert near.min() < 1e-3  # point 1, or point 2 in a mirror


def test_clips_and_their_starts():
    some = avatars.sentences(2, 1)
    batch = data.batch(some, 7, 40, [torch.Generator().manual_seed(k) for k in range(2)], clip_frames=16)
    assert batch.lengths.tolist() == [16, 16]
    for k, start in enumerate(batch.starts):
        wanted = torch.from_numpy(some[k].frames[start : start + 16]).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(batch.frames[16 * k : 16 * k + 16], wanted)
    with pytest.raises(DataError, match="frames, and 99 are needed"):
        data.batch(some, 7, 40, fewest=99)


def test_key_points_are_turned_to_row_and_column():
    (sentence,) = avatars.sentences(1, 1)
    batch = data.batch([sentence], 7, 40)
    np.testing.assert_array_equal(batch.points[..., 0], sentence.points[..., 1])
    np.testing.assert_array_equal(batch.points[..., 1], sentence.points[..., 0])


def test_confusions_are_counted_by_cue():
    reference = ["LOWER-RING-SHUT CROSS-PLUS-OPEN RAISE-RING-SHUT RAISE-RING-OPEN"]
    read = ["LOWER-PLUS-SHUT CROSS-PLUS-OPEN RAISE-RING-OPEN LOWER-PLUS-SHUT"]
    table = confusions(word_errors(reference, read))
    assert table["hand"] == {"alone": 0.5, "any": 0.5}
    assert table["face"] == {"alone": 0.5, "any": 0.5}
    assert table["motion"] == {"alone": 0.0, "any": 0.25}


def test_sentences_too_short_for_ctc_are_counted():
    config = TINY.override(padded=True)
    task = data.load(config)
    assert too_short(config, task) == 0
    short = [avatars.Sentence("s", "", ("LOWER-RING-SHUT",) * 3, s.frames[:12]) for s in task.train]
    assert too_short(config, data.Task("x", short, [], task.glosses, 0)) == 4


# -- own clips, without key points ------------------------------------------------------------------------------------


def own_folder(root, count=6, points=False):
    rows = ["name,glosses"]
    arrays = {}
    for sentence in avatars.sentences(count, 77):
        (root / sentence.name).mkdir(parents=True)
        for t, frame in enumerate(sentence.frames):
            Image.fromarray(frame).save(root / sentence.name / f"{t:03d}.png")
        rows.append(f"{sentence.name},{' '.join(sentence.glosses)}")
        arrays[sentence.name] = sentence.points
    (root / "glosses.csv").write_text("\n".join(rows) + "\n")
    if points:
        np.savez(root / "keypoints.npz", **arrays)
    return root


def test_clips_without_key_points_train_the_full_frame_alone(tmp_path):
    folder = own_folder(tmp_path / "clips")
    config = TINY.override(data=f"folder:{folder}", labels="even", train_sentences=0, test_sentences=0)
    result = PAPER.run(config, opened(tmp_path / "run", config))
    assert result["data"] == "folder clips, no key points"
    assert list(result["arms"]) == ["full-frame"]
    recognizer = Recognizer.load(tmp_path / "run")
    assert recognizer.arm == "full-frame"
    assert set(recognizer.glosses) <= set(avatars.GLOSSES)
    only = config.override(arms=("multi-cue",))
    with pytest.raises(InputError, match="has no key points"):
        PAPER.run(only, opened(tmp_path / "only", only))


@pytest.mark.slow
def test_clips_with_key_points_train_all_arms(tmp_path):
    folder = own_folder(tmp_path / "clips", points=True)
    config = TINY.override(data=f"folder:{folder}", labels="even", train_sentences=0, test_sentences=0)
    result = PAPER.run(config, opened(tmp_path / "run", config))
    assert list(result["arms"]) == ["full-frame", "multi-cue"]
    assert result["data"] == "folder clips"
