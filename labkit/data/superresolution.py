"""Photographs as luma, for super-resolution and artifact reduction: benchmark sets, or two bundled ones.

Expected below LABKIT_DATA: sr/<set>/*.png (or .bmp), one folder a set. The benchmark sets have no formal licence: for
education and research, with credit to Yang et al. 2010 (T91), Martin et al. 2001 (BSD), Bevilacqua et al. 2012 (Set5)
and Zeyde et al. 2010 (Set14).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from labkit import paths
from labkit.data.pictures import read_picture
from labkit.errors import DataError, InputError

COUNTS = {"T91": 91, "BSD200": 200, "Set5": 5, "Set14": 14, "BSD68": 68}
BUNDLED_SPLIT = 448  # of the 640 columns of the two bundled photographs: left for training, right for testing


@dataclass(frozen=True, eq=False)
class Photographs:
    """Luma planes of some photographs.

    images: 0..255 (16..235 where they were colour), not rounded.
    """

    images: tuple[Float32[Tensor, "_ _"], ...]
    titles: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "Photographs":
        if not 0 < count <= len(self):
            raise InputError(f"{self.name} has {len(self)} images here; asked for the first {count}.")
        return Photographs(self.images[:count], self.titles[:count], self.name)


def photographs(name: str) -> Photographs:
    """The set of that name: T91, BSD200, 291 (both), Set5, Set14, BSD68, "bundled train" or "bundled test".

    Empty files are left out.

    Raises:
        InputError: no such set. DataError: it is not in LABKIT_DATA, incomplete or damaged.
    """
    if name == "291":
        first, second = photographs("T91"), photographs("BSD200")
        return Photographs(first.images + second.images, first.titles + second.titles, "291")
    if name in ("bundled train", "bundled test"):
        return _bundled(name)
    if name not in COUNTS:
        raise InputError(f"there is no set '{name}'; there are {', '.join(COUNTS)}, 291, bundled train, bundled test.")
    folder = paths.data_dir() / "sr" / name
    files = sorted(path for ending in ("png", "bmp") for path in folder.glob(f"*.{ending}"))
    if len(files) != COUNTS[name]:
        problem = "is not in LABKIT_DATA" if not files else f"holds {len(files)} images in {folder}"
        raise DataError(
            f"{name} {problem}; {COUNTS[name]} images are expected as sr/{name}/*.png below {paths.data_dir()}. It has "
            "no licence that lets labkit pass it on: get it from its authors' pages, or choose the bundled photographs."
        )
    readable = [path for path in files if path.stat().st_size]  # one empty file of T91 is in wide circulation
    return Photographs(tuple(_read(path) for path in readable), tuple(path.stem for path in readable), name)


def available(name: str) -> bool:
    """Does the set's folder exist? Its files are not looked at."""
    return (paths.data_dir() / "sr" / name).is_dir()


def _read(path: Path) -> Float32[Tensor, "h w"]:
    picture = read_picture(path, "Get that file anew.", keep_grey=True)
    pixels = torch.from_numpy(np.array(picture))
    return pixels.float() if picture.mode == "L" else luma(pixels)


def _bundled(name: str) -> Photographs:
    from sklearn.datasets import load_sample_images

    source = load_sample_images()
    columns = slice(0, BUNDLED_SPLIT) if name == "bundled train" else slice(BUNDLED_SPLIT, None)
    images = tuple(luma(torch.from_numpy(image[:, columns].copy())) for image in source.images)
    return Photographs(images, tuple(Path(file).stem for file in source.filenames), name)


def luma(rgb: Tensor) -> Float32[Tensor, "h w"]:
    """Y of BT.601 studio range, as MATLAB's rgb2ycbcr: 16 + 65.481 R + 128.553 G + 24.966 B, R, G, B in 0..1."""
    if rgb.shape[-1] != 3:
        raise InputError(f"luma takes colours last, (h, w, 3); got {tuple(rgb.shape)}.")
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    return (16 + rgb.double() @ weights).float()


def crop_to_multiple(image: Float[Tensor, "h w"], multiple: int) -> Float[Tensor, "h2 w2"]:
    """The upper left part whose sides are multiples of `multiple` ("modcrop")."""
    h, w = (size - size % multiple for size in image.shape)
    if not (h and w):
        raise InputError(f"an image of {tuple(image.shape)} pixels is smaller than the scale {multiple}.")
    return image[:h, :w]


def jpeg_pair(image: Float[Tensor, "h w"], quality: int) -> tuple[Float[Tensor, "h2 w2"], Float[Tensor, "h2 w2"]]:
    """(decoded, original) of grey JPEG compression; the original is rounded to whole grey levels first."""
    from PIL import Image

    if not 1 <= quality <= 95:
        raise InputError(f"JPEG quality lies between 1 and 95; got {quality}.")
    original = image.round().clamp(0, 255)
    stream = io.BytesIO()
    Image.fromarray(original.to(torch.uint8).numpy()).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as decoded:
        return torch.from_numpy(np.array(decoded)).float(), original


def hevc_pair(image: Float[Tensor, "h w"], qp: int) -> tuple[Float[Tensor, "h2 w2"], Float[Tensor, "h2 w2"]]:
    """(decoded, original) of one HEVC intra picture at constant `qp`, deblocking and SAO on; even sides.

    libx265 through PyAV stands in for the reference encoder of the common test conditions [ours].

    Raises:
        InputError: PyAV or its libx265 is not installed, or qp is out of range.
    """
    if not 0 <= qp <= 51:
        raise InputError(f"an HEVC quantisation parameter lies between 0 and 51; got {qp}.")
    try:
        import av
    except ImportError:
        raise InputError("HEVC needs PyAV: pip install av. Or choose codec jpeg.") from None
    original = crop_to_multiple(image, 2).round().clamp(0, 255)
    h, w = original.shape
    stream = io.BytesIO()
    try:
        with av.open(stream, "w", format="hevc") as out:
            video = out.add_stream("libx265", rate=1, options={"x265-params": f"qp={qp}:keyint=1:log-level=none"})
            video.width, video.height, video.pix_fmt = w, h, "yuv420p"
            planes = np.full((h * 3 // 2, w), 128, np.uint8)
            planes[:h] = original.numpy()
            for packet in (*video.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")), *video.encode(None)):
                out.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise InputError(f"this PyAV cannot encode HEVC ({error}). Install one with libx265, or choose jpeg.") from None
    stream.seek(0)
    with av.open(stream, "r", format="hevc") as source:
        decoded = next(source.decode(video=0)).to_ndarray(format="yuv420p")[:h]
    return torch.from_numpy(decoded.copy()).float(), original


def psnr(output: Float[Tensor, "h w"], original: Float[Tensor, "h w"], shave: int = 0) -> float:
    """10 log10(255^2 / MSE) in dB, without `shave` pixels on each side; infinite for equal images."""
    if output.shape != original.shape:
        raise InputError(f"two images of one size are compared; got {tuple(output.shape)}, {tuple(original.shape)}.")
    if shave:
        output, original = (x[shave:-shave, shave:-shave] for x in (output, original))
    if not output.numel():
        raise InputError(f"nothing is left of the image after shaving {shave} pixels.")
    error = float((output.double() - original.double()).square().mean())
    return float("inf") if error == 0 else 10 * float(torch.log10(torch.tensor(255.0**2 / error, dtype=torch.float64)))
