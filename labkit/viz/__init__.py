"""How notebooks show things: colours with one meaning everywhere, source code, pictures with handles."""

from labkit.viz.explorer import explore
from labkit.viz.page import show, show_source
from labkit.viz.picture import image_source
from labkit.viz.theme import COLORS, NAMED, pale, subplots, use

__all__ = [
    "COLORS",
    "NAMED",
    "explore",
    "image_source",
    "pale",
    "show",
    "show_source",
    "subplots",
    "use",
]
