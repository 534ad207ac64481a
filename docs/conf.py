"""Sphinx reads this. `python docs/build.py` writes the sources, then calls Sphinx on them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]

project = "labkit"
author = "the labkit authors"
copyright = "the labkit authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "house"]

nb_execution_mode = "off"  # the outputs are those that are committed
nb_mime_priority_overrides = [
    ("html", "text/html", 0),  # plots that move; see build.py
    ("html", "image/png", 5),
    ("html", "image/gif", 4),
    ("html", "text/markdown", 8),
    ("html", "text/plain", 10),
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "autosummary.import_cycle"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True

html_theme = "pydata_sphinx_theme"
html_title = "labkit"
html_math_renderer = "mathml"  # browsers draw it without a script
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_end": ["theme-switcher"],
    "navbar_align": "left",
    "show_prev_next": True,
    "use_edit_page_button": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
