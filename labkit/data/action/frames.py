"""Frames of a video by number, from a folder of pictures or from a video file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from labkit.data.pictures import read_picture
from labkit.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")


@runtime_checkable
class Frames(Protocol):
    """RGB frames of one video, all of one size. rate: frames a second."""

    rate: float

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]: ...


class ImageFrames:
    """Pictures of a folder in the order of their names; numbers beyond the ends repeat the first or last one.

    rate: 30 frames a second, unless another one is given. listed: names in the folder, in their order, in place of all.
    """

    def __init__(self, folder: Path, rate: float = 30.0, listed: Sequence[str] | None = None) -> None:
        self.folder, self.rate = folder, rate
        if listed is None:
            entries = folder.iterdir() if folder.is_dir() else ()
            self.files = sorted(path for path in entries if path.suffix.lower() in PICTURES)
        else:
            self.files = [folder / name for name in listed]
        if not self.files:
            raise DataError(f"there are no pictures ({', '.join(PICTURES)}) in {folder}.")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        mend = "Cut the frames of that video anew."
        kept = [min(max(n, 0), len(self) - 1) for n in numbers]
        return np.stack([np.asarray(read_picture(self.files[n], mend)) for n in kept])


class VideoFrames:
    """A video file; numbers beyond the ends repeat the first or last frame that can be decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as source:
            stream = source.streams.video[0]
            self.rate = float(stream.average_rate or stream.guessed_rate or 25)
            duration = float(source.duration or 0) / 1e6
            self._count = int(stream.frames or round(duration * self.rate))

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        wanted = sorted({max(n, 0) for n in numbers})
        pictures: dict[int, np.ndarray] = {}
        with self._opened() as source:
            last = None
            for number, frame in self._decoded(source, wanted[0]):
                while wanted and wanted[0] < number:  # the file has no such frame: the one before it
                    pictures[wanted.pop(0)] = (last or frame).to_ndarray(format="rgb24")
                last = frame
                if wanted and wanted[0] == number:
                    pictures[wanted.pop(0)] = frame.to_ndarray(format="rgb24")
                if not wanted:
                    break
            if last is None:
                raise DataError(f"{self.path} has no frame {wanted[0]} that can be decoded.")
            pictures |= {n: last.to_ndarray(format="rgb24") for n in wanted}
        return np.stack([pictures[max(n, 0)] for n in numbers])

    def _decoded(self, source: Any, first: int) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, from a key frame before `first` on; damage ends them."""
        import av

        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        source.seek(max(int((min(first, len(self) - 1) / self.rate - 1.0) * 1e6), 0))
        try:
            for frame in source.decode(stream):
                yield round(float(frame.time or 0.0) * self.rate), frame
        except (av.FFmpegError, OSError, ValueError):
            return

    def _opened(self) -> Any:
        try:
            import av
        except ImportError:
            raise DataError("reading videos needs PyAV. Get it: pip install 'labkit[video]'") from None
        try:
            source = av.open(f"file:{self.path.absolute()}")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read as a video ({error}).") from None
        if not source.streams.video:
            source.close()
            raise DataError(f"{self.path} holds no video.")
        return source


def read_frame_list(path: Path) -> dict[str, list[str]]:
    """Names of pictures by video, in the order of their frames, from a frame list in SlowFast's layout [peer code]:

        original_vido_id video_id frame_id path labels            a header (that spelling), then one row a frame

    The path is relative to the folder of all frames. Video ids that are numbers, and labels, are not used.

    Raises:
        DataError: no such file, a damaged line, frames out of order, or a path that leaves the folder; names the line.
    """
    pictures: dict[str, list[str]] = {}
    last: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            if not next(lines, "").startswith("original_vi"):
                raise DataError(f"{path} begins with a header: original_vido_id video_id frame_id path labels.")
            for number, line in enumerate(lines, 2):
                if not (cells := line.split()):
                    continue
                if len(cells) != 5 or not (cells[2].isascii() and cells[2].isdigit() and len(cells[2]) < 10):
                    raise DataError(
                        f"{path}, line {number}: video, its number, frame, path, labels; got '{line[:60]}'."
                    )
                video, frame, name = cells[0], int(cells[2]), cells[3]
                if name.startswith("/") or "/../" in f"/{name}/":
                    raise DataError(f"{path}, line {number}: a path below the folder of frames; got '{name[:60]}'.")
                if frame <= last.get(video, -1):
                    raise DataError(f"{path}, line {number}: frame {frame} of {video} stands after {last[video]}.")
                last[video] = frame
                pictures.setdefault(video, []).append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}).") from None
    return pictures


def frames_of(folder: Path, name: str, layouts: Sequence[str]) -> Frames:
    """The frames of a video: pictures in the first layout that exists, or a video file of that name.

    Raises:
        DataError: there are neither; says where they were looked for.
    """
    for layout in layouts:
        where = folder / layout.format(name)
        if where.is_dir():
            return ImageFrames(where)
    for file in (folder / "videos" / f"{name}{ending}" for ending in VIDEOS):
        if file.is_file():
            return VideoFrames(file)
    tried = ", ".join([*(layout.format(name) + "/" for layout in layouts), f"videos/{name}.mp4"])
    raise DataError(f"the frames of '{name}' are not in {folder}; looked for {tried}.")
