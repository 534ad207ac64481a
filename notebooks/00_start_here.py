# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here
#
# **labkit** is a workbench for published papers. Each paper has one notebook that tells its story on real data in about
# two minutes on a laptop, and one room of the Python package `labkit` with the real implementation behind it.
#
# - **Read and explore** in JupyterLab: run all cells, move the sliders, do the exercises.
# - **Scale up** without changing a line: `labkit run qnet --scale gpu` executes the same notebook headless.
# - **Trust**: every statement of each abstract is a claim with a margin, measured over seeds, and shown whether it
#   holds or not. Every notebook is executed and compared on every change.

# %% [markdown]
# ## The papers
#
# A paper appears here when its room is built.

# %%
from IPython.display import Markdown, display

from labkit import papers, viz
from labkit.workbench import doctor, show

viz.use()
rooms = [papers.load(slug) for slug in papers.names()]
rows = [
    f"| [{room.notebook}]({room.notebook}.ipynb) | {room.title} | [{room.arxiv}](https://arxiv.org/abs/{room.arxiv}) "
    f"| {room.venue} | {room.idea} |"
    for room in rooms
]
Markdown("\n".join(["| notebook | paper | arXiv | venue | idea |\n|---|---|---|---|---|", *rows]))

# %% [markdown]
# ## The ledger
#
# What the abstracts say against what was measured, from the recorded runs in `data/records/`. A claim holds when the
# near end of the 95 % interval over seeds passes the margin. A claim that does not hold is shown like any other: at the
# scale of a lesson that is a finding about this scale, not a verdict on the paper.

# %%
show.ledger([verdict for room in rooms for verdict in room.verdicts()])

# %% [markdown]
# ## Moving around
#
# Every notebook has the same ten headings:
#
# | | | |
# |---|---|---|
# | 1 The idea in one picture | 2 Parameters | 3 What the paper claims |
# | 4 The method, step by step | 5 Prove it | 6 Train and compare |
# | 7 Explore | 8 Verdict | 9 Your turn · 10 Full scale |
#
# A room has three floors: `labkit/papers/<slug>/method/` is the paper's idea, `experiment/` puts it to the test, `teaching/`
# draws the pictures. `viz.show_source(thing)` shows the code behind anything. The notebooks hold no methods of their own: what you read is
# what runs. Marks tell where a detail comes from: [paper], [official code], [inferred], [ours].
#
# ## Scales
#
# One code path, four configurations:
#
# | scale | takes | on |
# |---|---|---|
# | `smoke` | seconds | anything, for tests |
# | `lesson` | up to two minutes on two CPU cores | data that is bundled, or real data where it is present |
# | `gpu` | up to ten minutes on one data-centre GPU | data anyone can get |
# | `full` | the paper's own setting | the paper's own data, one or many GPUs |

# %% [markdown]
# ## Gallery
#
# One picture from each room.

# %%
import importlib

for room in rooms:
    display(importlib.import_module(f"{room.room}.teaching.figures").idea_figure())

# %% [markdown]
# ## Is this machine ready?
#
# `labkit doctor` tries each thing the notebooks stand on: the packages, a GPU if there is one, a step of the MuJoCo
# simulator, a rendered picture, the datasets.

# %%
# NBVAL_CHECK_OUTPUT
for finding in doctor.examine():
    if not finding.optional:
        print(f"{finding.what:14} {'ok' if finding.ok else finding.remedy}")
