"""labkit: a notebook workbench for ten published papers.

A room per paper lives in `labkit.papers`; what the rooms share lives beside it. `labkit.papers.load("qnet")` opens one.
"""

__version__ = "0.1.0"
