"""Files that grow piece by piece: whole at the end, or not there."""

import os
from pathlib import Path

import pytest

from labkit.files import growing


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with growing(target) as part:
        part.write_text("new")
        assert part.suffix == ".txt"  # what writes by the ending of a name finds it
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_error_or_ctrl_c_only_the_old_one_is_there(tmp_path: Path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with growing(target) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_longest_name_that_may_be(tmp_path: Path):
    target = tmp_path / ("x" * 251 + ".txt")
    with growing(target) as part:
        part.write_text("new")
    assert target.read_text() == "new"


def test_nothing_was_written(tmp_path: Path):
    with pytest.raises(FileNotFoundError), growing(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []
