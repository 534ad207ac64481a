"""Your own clips: one folder of frames or one video a sentence, and a table that says what is signed.

my_clips/glosses.csv         name,glosses,split        split: train, dev or test; without the column every fifth is dev
my_clips/hello-01/*.png      or my_clips/hello-01.mp4
my_clips/keypoints.npz       optional: an array (time, points, 2) a sentence, see `keypoints`
"""

import csv
from pathlib import Path

from labkit.data.sign.keypoints import read_points
from labkit.data.sign.sentence import VIDEOS, Sentence
from labkit.data.tracking.text import read_lines
from labkit.errors import DataError

TABLE = "glosses.csv"
DEV_EVERY = 5


def sign_folder(path: str | Path) -> dict[str, list[Sentence]]:
    """Sentences by split, "train" and "dev" at least.

    Raises:
        DataError: no such folder or table, a damaged table, a sentence without frames, or a split without sentences.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}.")
    rows, points = _rows(root / TABLE), read_points(root / "keypoints.npz")
    splits: dict[str, list[Sentence]] = {"train": [], "dev": []}
    for k, (name, glosses, split) in enumerate(rows):
        chosen = split or ("dev" if k % DEV_EVERY == DEV_EVERY - 1 else "train")
        splits.setdefault(chosen, []).append(Sentence(name, "", glosses, _source(root, name), points.get(name)))
    for split in ("train", "dev"):
        if not splits[split]:
            raise DataError(
                f"{root / TABLE} has no sentence for '{split}': name some in its column split, or give "
                f"{DEV_EVERY} sentences or more."
            )
    return splits


def _rows(path: Path) -> list[tuple[str, tuple[str, ...], str]]:
    if not path.is_file():
        raise DataError(f"there is no {path}: a table with the columns name and glosses, and split if you like.")
    reader = csv.reader(read_lines(path), skipinitialspace=True)
    try:
        lines = list(reader)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table ({error}).") from None
    head = [cell.strip().lower() for cell in lines[0]] if lines else []
    if head[:2] != ["name", "glosses"] or head[2:] not in ([], ["split"]):
        raise DataError(f"{path}, line 1: the columns are name,glosses or name,glosses,split; got {','.join(head)!r}.")
    rows, names = [], set()
    for number, cells in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        if len(cells) != len(head):
            raise DataError(f"{where}: {len(cells)} cells in place of {len(head)}.")
        name, glosses, split = cells[0].strip(), tuple(cells[1].split()), (cells[2].strip() if len(head) > 2 else "")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name or len(name) > 255:
            raise DataError(f"{where}: a name is that of a folder or video in here; got {name[:60]!r}.")
        if not glosses or split not in ("", "train", "dev", "test"):
            raise DataError(f"{where}: glosses are wanted, and a split of train, dev or test; got {cells[1:]}.")
        if name in names:
            raise DataError(f"{where}: '{name}' stands there twice.")
        names.add(name)
        rows.append((name, glosses, split))
    return rows


def _source(root: Path, name: str) -> Path:
    path = root / name
    if path.is_dir() or (path.is_file() and path.suffix.lower() in VIDEOS):
        return path
    for ending in VIDEOS:
        if (video := path.with_name(path.name + ending)).is_file():
            return video
    raise DataError(f"{root / TABLE} names '{name}', and there is no folder of frames and no video of that name.")
