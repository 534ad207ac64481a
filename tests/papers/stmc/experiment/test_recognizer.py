"""A trained network as a file and as something to use; everything else is refused in words."""

import numpy as np
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.stmc import MEDIUM, PAPER, SMALL, STMC, Recognizer, load
from labkit.papers.stmc.experiment import avatars
from labkit.papers.stmc.experiment.config import CONFIGS
from labkit.papers.stmc.experiment.export import arms, export
from labkit.papers.stmc.experiment.recognizer import FILE
from labkit.workbench.runs import Run

CONFIG = CONFIGS["smoke"].override(labels="even", at_once=1)


def recognizer(architecture=SMALL, glosses=("A", "B", "C")) -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(STMC(architecture, len(glosses) + 1), glosses, "multi-cue")


FRAMES = avatars.clip("CROSS-RING-OPEN", 1).frames.repeat(3, 0)[:24]


def certain(labels, steps) -> np.ndarray:
    """Log-probabilities of a path that is nearly sure."""
    table = np.full((steps, 4), np.log(0.01))
    table[range(steps), labels] = np.log(0.97)
    return table


def test_glosses_come_with_the_frames_that_their_steps_stand_for(monkeypatch):
    """Steps 1 and 2 say A, step 4 says C: frames 4 to 11 and 16 to 19, padded; 6 more without padding."""
    trained = recognizer()
    monkeypatch.setattr(trained, "log_probs", lambda frames: certain([0, 1, 1, 0, 3, 0], 6))
    transcript = trained.transcribe(FRAMES)
    assert str(transcript) == "A C"
    assert [(s.gloss, s.first, s.last) for s in transcript.glosses] == [("A", 4, 11), ("C", 16, 19)]
    assert transcript.log_prob < 0
    bare = recognizer(MEDIUM)
    monkeypatch.setattr(bare, "log_probs", lambda frames: certain([0, 1, 1, 0, 3, 0], 6))
    assert [(s.first, s.last) for s in bare.transcribe(FRAMES).glosses] == [(10, 17), (22, 25)]


def test_frames_of_any_size_and_a_list_of_pictures_are_the_same():
    trained = recognizer()
    as_array, as_list = trained.log_probs(FRAMES), trained.log_probs(list(FRAMES))
    np.testing.assert_array_equal(as_array, as_list)
    assert as_array.shape == (6, 4)
    np.testing.assert_allclose(np.exp(as_array).sum(1), 1, atol=1e-5)
    assert trained.log_probs(FRAMES.repeat(2, 1).repeat(3, 2)).shape == (6, 4)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (FRAMES[:3], "4 frames at least; got 3"),
        (FRAMES.astype(np.float32), "must be uint8 RGB"),
        (FRAMES[..., 0], "must be uint8 RGB"),
        (np.zeros((8, 0, 4, 3), np.uint8), "must be uint8 RGB"),
        ([], "got 0"),
    ],
)
def test_other_frames_are_refused(frames, words):
    with pytest.raises(InputError, match=words):
        recognizer().transcribe(frames)


def test_a_file_reads_as_before(tmp_path):
    trained = recognizer()
    trained.save(tmp_path / FILE)
    for path in (tmp_path, tmp_path / FILE):
        again = load(path)
        np.testing.assert_array_equal(again.log_probs(FRAMES), trained.log_probs(FRAMES))
        assert (again.glosses, again.arm) == (trained.glosses, "multi-cue")


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    trained = recognizer()
    trained.save(tmp_path / "a.safetensors")
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "b.safetensors")
    other = Recognizer(trained.model, ("A", "B"), "multi-cue")  # a vocabulary that does not fit the heads
    other.save(tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="does not hold this network"):
        load(tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    PAPER.run(CONFIG, Run.open(folder, CONFIG))
    return folder


def test_a_run_is_loaded_and_exported(run, tmp_path):
    opened = Run.open(run, CONFIG)
    assert arms(CONFIG, opened) == ("multi-cue", "full-frame")
    for arm in arms(CONFIG, opened):
        export(CONFIG, opened, arm, tmp_path / arm)
        ours, theirs = Recognizer.load(run, arm), load(tmp_path / arm)
        np.testing.assert_array_equal(ours.log_probs(FRAMES), theirs.log_probs(FRAMES))
    assert Recognizer.load(run).arm == "multi-cue"
    with pytest.raises(InputError, match="there is no arm 'hand-only' to take; there are multi-cue, full-frame"):
        Recognizer.load(run, "hand-only")


def test_a_run_that_is_not_finished_or_not_ours_says_so(tmp_path):
    Run.open(tmp_path / "new", CONFIG)
    with pytest.raises(InputError, match="is not finished"):
        Recognizer.load(tmp_path / "new")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"seed": 0}')
    with pytest.raises(InputError, match="no run of stmc"):
        Recognizer.load(tmp_path / "foreign")
