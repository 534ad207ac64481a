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
#
# You work in copies. `make lab` made them in the folder `workspace/` and never overwrites them;
# `labkit lab --fresh 01_qnet` gives you a new one beside the old one.

# %% jupyter={"source_hidden": true} tags=["setup"]
# nothing to read: where labkit is missing (on Colab), this installs it from its clone
import importlib.util

if getattr(importlib.util.find_spec("labkit"), "origin", None) is None:  # the clone's folder alone is no package
    from pathlib import Path
    from runpy import run_path

    files = [*Path().glob("*/notebooks/install.py"), *Path("..").glob("notebooks/install.py")]
    if not files:
        raise RuntimeError("There is no clone of labkit here. Make one first, in a cell: !git clone ADDRESS")
    run_path(str(files[0].resolve()), run_name="__main__")

# %% [markdown]
# ## The notebooks, in reading order
#
# Each stands on its own. Those of one field build on each other.
#
# | notebook | what it teaches | what it needs |
# |---|---|---|
# | [01_qnet](01_qnet.ipynb) | *Quantisation.* Train a step function by making it out of sigmoids that sharpen; straight-through gradients and where they differ; store a weight in one bit | convolutional networks, gradient descent |
# | [02_brelu](02_brelu.ipynb) | *Quantisation.* A network that computes in integers alone: where to clip, how to multiply and shift, what an addition of two scales needs | 01 helps: what a quantiser is |
# | [03_sher](03_sher.ipynb) | *Reinforcement learning.* Learn from failures by asking which goal they reached; what an entropy bonus does to values and policies | Q-learning, the idea of a policy |
# | [04_pombu](04_pombu.ipynb) | *Reinforcement learning.* Learned models are wrong somewhere: bound the uncertainty of a value, and change a policy only where the gain is larger | policy gradients, variance and expectation |
# | [05_itid](05_itid.ipynb) | *Generalisation.* What may vary between training and use, what a network that ignores it is worth, and how to change data until it does | conditional probability; no measure theory |
# | [06_mlvc](06_mlvc.ipynb) | *Video coding.* Predict a frame and its motion from several decoded frames, count bits and not errors, and write files that decode anywhere | entropy, convolutions |
# | [07_crt](07_crt.ipynb) | *Tracking.* Follow one object among look-alikes: a quick filter first, ridge regression in closed form for the hard cases | least squares, convolutions |
# | [08_bertfused](08_bertfused.ipynb) | *Translation.* What a frozen BERT knows beyond the pairs of sentences, and how every layer of a translation model can listen to it | attention, the Transformer |
# | [09_stmc](09_stmc.ipynb) | *Sign language.* Read signed sentences: look at hands, face and pose one by one, follow each through time; sequence labels without times (CTC) | convolutions, the idea of a recurrent network |
# | [10_lstr](10_lstr.ipynb) | *Video.* Detect who does what, where and when: each actor looks around in its clip, then listens to earlier clips | attention, convolutions |

# %% [markdown]
# ## Moving around
#
# Every notebook has the same ten headings:
#
# | | | |
# |---|---|---|
# | 1 The idea in one picture | 2 Parameters | 3 What the paper claims |
# | 4 The method, step by step | 5 Prove it | 6 Train and compare |
# | 7 Explore | 8 Verdict | 9 Your turn |
# | 10 Take it home, and full scale | | |
#
# A room has three floors: `labkit/papers/<slug>/method/` is the paper's idea, `experiment/` puts it to the test, and
# `teaching/` draws the pictures. `viz.show_source(thing)` shows the code behind anything. The notebooks hold no methods of
# their own: what you read is what runs. Marks tell where a detail comes from: [paper], [official code], [inferred], [ours].
#
# **Exercises** say how hard they are (●○○ to ●●●) and how many minutes they take. `.check(answer)` names the property that
# your answer breaks, `.hint()` in its place gives two hints, one after the other, and the solution is folded below.
#
# One code path has four scales:
#
# | scale | takes | on |
# |---|---|---|
# | `smoke` | seconds | anything, for tests |
# | `lesson` | up to two minutes on two CPU cores | data that is bundled, or real data where it is present |
# | `gpu` | up to ten minutes on one data-centre GPU | data anyone can get |
# | `full` | the paper's own setting | the paper's own data, one or many GPUs |
#
# A word means the same in every notebook:
#
# | word | meaning |
# |---|---|
# | arm | one of the things that a run compares: the paper's method, a rival, the method with a part left out |
# | run | one execution with one config, kept in `runs/`; all its arms have the same data |
# | seed | the number with which a run's random choices begin |
# | record | results of several runs, one a seed, kept in `data/records/` by `labkit record` |
# | claim | one statement of the abstract in our words, with a measure |
# | effect | what the measure gives, one number a seed; more of it speaks for the statement |
# | margin | the least effect that counts, written down before measuring; a negative one allows a small loss |
# | holds | the near end of the 95 % interval of the effect over seeds reaches the margin |
# | not shown | the margin lies inside of the interval: more seeds could decide either way |
# | does not hold | the whole interval lies below the margin |
#
# The next table has the size of each notebook, the times of recorded runs, and what you have to bring. A star: you have
# to ask for these data, `labkit data list` says whom.

# %%
from labkit import papers, viz
from labkit.workbench import doctor, show

viz.use()
rooms = sorted((papers.load(slug) for slug in papers.names()), key=lambda room: room.notebook)
show.costs(rooms)

# %% [markdown]
# ## The ledger
#
# What the abstracts say against what was measured, from the recorded runs in `data/records/`; a click opens a paper. A
# claim holds when the near end of the 95 % interval over seeds passes the margin. A claim that does not hold is shown like
# any other: at the scale of a lesson that is a finding about this scale, not a verdict on the paper.

# %%
show.ledgers(rooms)

# %% [markdown]
# ## Gallery
#
# The first picture of each notebook.

# %%
show.gallery(rooms)

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
