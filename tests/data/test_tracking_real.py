"""The five real sequences and OxUvA's development annotations, where LABKIT_DATA holds them."""

import numpy as np
import pytest

from labkit import paths
from labkit.data import registry, tracking
from labkit.data.tracking.development import is_there
from labkit.data.tracking.oxuva import read_tracks

pytestmark = pytest.mark.skipif(not is_there(), reason="LABKIT_DATA holds no tracking/ (research-only sequences)")


def test_the_sequences_are_what_their_readme_says():
    by_name = {sequence.name: sequence for sequence in tracking.development()}
    lengths = {"Crossing": 120, "DragonBaby": 113, "Jogging2": 307, "TLD_pedestrian2": 338, "bag": 196}
    assert {name: len(sequence) for name, sequence in by_name.items()} == lengths
    assert {name: int(s.absent.sum()) for name, s in by_name.items() if s.absent.any()} == {"TLD_pedestrian2": 72}
    assert by_name["Crossing"].boxes[0].tolist() == [204, 150, 17, 50]
    assert by_name["TLD_pedestrian2"].boxes[0].tolist() == [124, 136, 22, 54]
    assert by_name["bag"].polygons is not None
    assert by_name["Jogging2"].frames[306].shape == (288, 352, 3)
    for sequence in by_name.values():
        height, width, _ = sequence.frames[0].shape
        boxes = sequence.boxes[sequence.annotated]
        assert (boxes[:, :2] < [width, height]).all()  # each box has a part in the frame
        assert (boxes[:, :2] + boxes[:, 2:] > 0).all()


def test_every_file_is_counted():
    assert registry.check("tracking").state == "present"


def test_oxuva_development_annotations():
    """200 tracks, 11,822 rows: 11,468 present, 354 absent. The first row of each is what a tracker is given."""
    folder = paths.data_dir() / "tracking" / "oxuva_dev"
    tracks = read_tracks(folder / "tasks_dev.csv", folder / "annotations_dev.csv")
    assert len(tracks) == 200
    assert sum(int(track.present.sum()) for track in tracks) == 11_468 - 200
    assert sum(int((~track.present).sum()) for track in tracks) == 354
    assert all(np.isnan(track.boxes[~track.present]).all() for track in tracks)
    assert all((np.diff(track.frames) > 0).all() for track in tracks)
