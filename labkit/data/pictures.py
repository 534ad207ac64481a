"""One door for picture files: damaged ones, decompression bombs and strips end as one sentence in every loader."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # Pillow would start Ghostscript for an EPS named .jpg
MAX_PIXELS = 2**26  # 8192 x 8192: 200 MB as RGB, where the file itself may have a few hundred bytes
MAX_RATIO = 100  # longer to shorter side: a picture of 60,000 x 1 becomes 12 GB once its shorter side is made 256


def read_picture(source: Path | bytes, mend: str, *, name: str = "", keep_grey: bool = False) -> "Image.Image":
    """A picture whole in memory, as RGB; with `keep_grey` a grey one has mode L. Its size is checked before its pixels.

    Args:
        source: a file, or its content.
        mend: the last sentence of an error, what to do about a damaged file.
        name: what an error calls the picture; the path where there is one.

    Raises:
        DataError: it cannot be read, is damaged or of another format, or is too large; names the picture.
    """
    from PIL import Image

    name = name or str(source)
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # Pillow's own limits are above ours
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
            if problem := _too_large(*picture.size):
                raise DataError(f"Image {name} {problem}.")
            grey = keep_grey and picture.mode in ("1", "L", "I", "I;16")
            return picture.convert("L" if grey else "RGB")
    except (DataError, *bombs) as error:
        problem = str(error) if isinstance(error, DataError) else f"Image {name} is too large ({error})."
        raise DataError(f"{problem} Make it smaller, or leave it out.") from None
    except Exception as error:  # damaged bytes make Pillow's readers raise nearly anything
        state = "cannot be read" if getattr(error, "errno", None) else "is damaged"
        raise DataError(f"Image {name} {state} ({error or type(error).__name__}). {mend}") from error


def _too_large(width: int, height: int) -> str:
    """What is wrong with a picture of this size; empty when it may be read."""
    size = f"has {width:,} x {height:,} pixels"
    if width * height > MAX_PIXELS:
        return f"{size}, more than {MAX_PIXELS:,}"
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"{size}, sides of more than {MAX_RATIO} to 1"
    return ""
