"""The cache of features: what was computed comes back, whole or not at all, and damage is noticed."""

import threading

import numpy as np
import pytest
import torch

from labkit.errors import DataError
from labkit.text import feature_cache
from labkit.text.feature_cache import ABOUT, OFFSETS, STATES, FeatureCache, cached, key_of

LENGTHS = [3, 1, 4, 2]
KEY = key_of("text", "model", -1)
FEATURES = [torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in LENGTHS]


def compute(rows):
    return [FEATURES[i] for i in rows]


def never(rows):
    raise AssertionError("computed again")


@pytest.fixture
def folder(tmp_path):
    cached(tmp_path, KEY, LENGTHS, 5, compute, [[2, 0], [3, 1]])
    return tmp_path


def test_what_was_computed_comes_back_in_half_precision(folder):
    cache = cached(folder, KEY, LENGTHS, 5, never, [])
    assert (len(cache), cache.width, cache.bytes) == (4, 5, 10 * 5 * 2)
    assert cache.lengths().tolist() == LENGTHS
    states, real = cache.padded([3, 0, 2])
    assert states.shape == (3, 4, 5)
    assert real.sum(1).tolist() == [2, 3, 4]
    for row, i in enumerate([3, 0, 2]):
        assert torch.equal(states[row, : LENGTHS[i]], FEATURES[i].half().float())
    assert (states[~real] == 0).all()


def test_the_states_are_mapped_not_read(folder):
    assert isinstance(FeatureCache.open(folder, KEY)._states, np.memmap)


def test_a_key_holds_text_model_and_layer():
    keys = {key_of(text, model, layer) for text in "ab" for model in "cd" for layer in (-1, 0)}
    assert len(keys) == 8
    assert key_of(["a", "b"]) != key_of(["ab"]) != key_of("ab")


@pytest.mark.parametrize("name", [STATES, OFFSETS, ABOUT])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_noticed_and_mended(folder, name, how):
    path = folder / KEY / name
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[-3] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-5])
    else:
        path.unlink()
    with pytest.raises(DataError, match="are damaged"):
        FeatureCache.open(folder, KEY)
    again = cached(folder, KEY, LENGTHS, 5, compute, [[0, 1, 2, 3]])
    assert torch.equal(again.padded([2])[0][0], FEATURES[2].half().float())


def test_another_key_is_not_there(folder):
    with pytest.raises(DataError, match="there are no features"):
        FeatureCache.open(folder, key_of("other"))


def test_a_kill_while_it_is_computed_leaves_nothing(tmp_path):
    class Killed(BaseException):
        pass

    def dying(rows):
        if rows == [1]:
            raise Killed
        return compute(rows)

    with pytest.raises(Killed):
        cached(tmp_path, KEY, LENGTHS, 5, dying, [[0], [1], [2, 3]])
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_at_once_both_go_on(tmp_path):
    """The other one finishes while this one computes."""

    def overtaken(rows):
        other = threading.Thread(target=cached, args=(tmp_path, KEY, LENGTHS, 5, compute, [[0, 1, 2, 3]]))
        other.start()
        other.join()
        return compute(rows)

    cache = cached(tmp_path, KEY, LENGTHS, 5, overtaken, [[0, 1], [2, 3]])
    assert torch.equal(cache.padded([0])[0][0], FEATURES[0].half().float())
    assert [path.name for path in tmp_path.iterdir()] == [KEY]


def test_no_space_is_said_in_words(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "_fill", full)
    with pytest.raises(DataError, match=r"No space left on device\. They take 100 bytes"):
        cached(tmp_path, KEY, LENGTHS, 5, compute, [[0, 1, 2, 3]])
