# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft Hindsight Experience Replay
#
# *Soft Hindsight Experience Replay.* He, Zhuang and co-authors, 2020, [arXiv 2002.02089](https://arxiv.org/abs/2002.02089)
#
# > **Read this first.** Of this paper only title and abstract are known to us, not its body, its table or its figures.
# > The *method* is that of the program which the authors released. No success rate in this notebook is the paper's.
#
# A robot arm is to push a cube to a mark. Its reward is $-1$ in every step in which the cube is elsewhere, and $0$ at
# the mark. An untrained arm hardly ever brings the cube there, so nearly every reward is $-1$, and there is almost
# nothing to learn from.
#
# *Hindsight* makes use of such failures. The cube ended up somewhere. If that position replaces the goal, the same
# episode is a success. *Soft* means that the learner is also rewarded for the entropy of its policy, a measure of how
# random the policy is. It then explores by itself, where other methods add random noise to the actions. The paper says
# that the combination learns better and varies less between random seeds. This notebook measures both over many seeds.
#
# **You will** relabel an episode by hand, solve small worlds exactly at several temperatures, train eighty learners at once
# in front of two walls, teach a simulated arm to reach, and see under which settings the paper's claim does not hold.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract |
# | [official code] | what the authors' program does |
# | [peer code] | what other public programs do or report |
# | [inferred] | our reading, where none of them is explicit |
# | [ours] | our addition, not the paper's |

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
# ## 1 The idea in one picture
#
# The picture shows the same failed episode twice. A point starts at the square and walks 25 steps; the thick line is a
# wall. The star is the goal, the circle its tolerance. Left, the goal that was asked for: every reward is $-1$ (red).
# Right, a position that the point reached later, taken as the goal: some rewards are $0$ (green). The recorded steps
# are valid under both goals, because the motion of the point does not depend on its goal.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.sher.teaching import exercises, figures, scenes
from labkit.workbench import show

viz.use()
paper = load("sher")
failure = scenes.failure()
viz.show(
    figures.idea_figure(failure),
    "The same path beside a wall, twice. Left, the goal is behind the wall and all 25 steps are red. Right, the goal is a "
    "place on the path and five steps near it are green.",
)

# %% [markdown]
# ## 2 Parameters
#
# The next cell holds the four parameters. `labkit run sher --scale smoke -p cycles 5` replaces them from the command line.
# `scale` selects a whole configuration, `overrides` changes single fields of it.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as replicas

# %% [markdown]
# Three fields are worth changing. `experiments` selects what is trained. `replicas` is the number of training seeds: with
# fewer the lesson is faster and its intervals wider. `alpha` sets the temperature of every SHER learner, that is, the weight
# of the entropy. All fields: section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["experiments", "replicas", "alpha"])

# %% [markdown]
# ## 3 What the paper claims
#
# The three main claims of the abstract, in our words. Each is followed by the least effect that we count as holding it.
# HER is *hindsight experience replay*, the method that the paper extends; OpenAI's version adds noise to the actions.
# IQM, the *interquartile mean*, is the mean of the middle half of all seeds. Spread is the standard deviation over
# seeds. The abstract gives no numbers, so none of the paper's stand here.

# %%
show.claims(paper, main=["deterministic-methods-are-brittle", "better-than-tuned-her", "stable-against-tuned-noise"])

# %% [markdown]
# ## 4 The method, step by step
#
# **The task.** A goal $g$ is fixed during an episode of $T$ steps. $m(s)$ is the goal that state $s$ achieves, such as the
# position of the cube. The reward is $r(s,a,s',g)=-\mathbb 1[\lVert m(s')-g\rVert>\text{tol}]$, so $r\in\{-1,0\}$. An episode
# is a success if it is at its goal in the *last* step.
#
# **Hindsight.** A batch is drawn from all stored transitions. With probability $k/(k+1)$ a transition gets another goal:
# $m(s_{t'})$, what the same episode achieved at a later moment $t'$. Every moment of $t+1,\dots,T$ is equally likely. With
# $k=4$ this concerns four of five transitions. The environment then computes the reward anew. [official code]

# %%
from labkit.papers.sher.method.hindsight import relabel

viz.show_source(relabel)

# %% [markdown]
# **Control as inference.** Let the variable $O_t$ be $1$ if step $t$ was optimal, with $p(O_t=1)=e^{r/\alpha}$. Rewards
# are $-1$ and $0$, so these are probabilities without normalisation: $e^{-1/\alpha}$ away from the goal and $1$ at the
# goal. The number $\alpha$ is called the *temperature*. Maximising the evidence lower bound of
# $\log p(O_1=\dots=O_T=1)$ over policies gives the *soft* Bellman equations
# [inferred: it is the standard derivation, and the abstract announces one]:
#
# $$V(s,g)=\mathbb E_{a\sim\pi}\,[\,Q(s,a,g)-\alpha\log\pi(a|s,g)\,],\quad Q(s,a,g)=r+\gamma\,\mathbb E\,V(s',g),\quad
# \pi\propto e^{(Q-V)/\alpha}$$
#
# The mean of $-\log\pi$ is the policy's entropy $H$. The equations hold for *every* goal, so a stored transition may be
# trained with any goal.
#
# **The learner.** SAC (*soft actor-critic*) in its first version: a value network $V$ with a slowly moving copy $\bar V$, two
# critics $Q_1$ and $Q_2$, a policy $\pi$, and a fixed temperature $\alpha=.03$. $\tilde a$ is a fresh action of the policy.
# [official code]
#
# | loss | |
# |---|---|
# | critics | $J_Q=\tfrac12\sum_i\mathbb E(Q_i-y)^2$, $\;y=\mathrm{clip}(r+\gamma\bar V(s',g),-\tfrac1{1-\gamma},0)$ |
# | value | $J_V=\tfrac12\mathbb E\big(V-\min(Q_1,Q_2)(s,\tilde a,g)+\alpha\log\pi(\tilde a)\big)^2$ |
# | policy | $J_\pi=\mathbb E[\alpha\log\pi(\tilde a)-Q_1(s,\tilde a,g)]$ |

# %%
from labkit.papers.sher.method.agent import backup
from labkit.papers.sher.method.soft_actor_critic import SoftActorCritic

viz.show_source(SoftActorCritic.losses, backup)

# %% [markdown]
# All networks have a first axis of *copies*: one call trains all learners of one structure, sixty with HER's and twenty
# with SHER's in this lesson. Each copy has its own random generator, so a stack of $N$ seeds computes what $N$ single
# runs compute.
#
# **The density.** The policy draws $u$ from a Gaussian and plays $a=\tanh u$. The change of variables puts
# $\log(1-\tanh^2u)$ into $\log\pi$. In float32 $\tanh u$ rounds to $1$ for large $|u|$, and the logarithm is $-\infty$.
# The released code adds $10^{-6}$ inside of the logarithm, which is finite, but wrong from $|u|\approx7$ on. Here the
# logarithm is exact [ours]; the exercise `log-slope` asks for its form.

# %%
viz.show(
    figures.slope_figure(),
    "log(1 - tanh(u)^2) against u from -12 to 12. The exact curve falls in two straight lines to -23; the released form stops "
    "at -14; the formula as written ends near |u| = 9.",
)

# %% [markdown]
# **What else the released code does.** Each item is a named switch; the plain reading is the default. CHER is *curriculum-guided
# HER*, another method whose sampler the released program contains.
#
# | switch | plain | [official code] |
# |---|---|---|
# | `head` | mean and deviation read the last hidden layer | both read a linear layer of only dim(a) numbers |
# | `curriculum` | uniform replay | CHER selects half of the candidates |
# | `epsilon` | the policy explores alone | 5 % random actions, *also in tests* |
# | `clip` | targets in $[-1/(1-\gamma),0]$ | the same, although soft values may exceed 0 |
# | `minimum_in_actor` | the policy's loss uses $Q_1$ | the same (SAC's papers: the minimum) |
# | `batch_entropy` | $V$'s target has $-\alpha\log\pi$ of its own row | it has the mean over the batch |

# %% [markdown]
# ## 5 Prove it
#
# Small worlds with countable states can be solved exactly. The cell below checks six statements in numbers.
#
# 1. **Own next state.** With $t$ uniform, $P(t'=t+1)=\frac1T\sum_{j=1}^T\frac1j$. For $T=50$, 7.2 % of a batch are
#    relabelled with the state that they reach in the same step.
# 2. **Bit flipping.** A state is a row of bits, an action flips one. The best value at distance $d$ from the goal is
#    $V^*=-(1-\gamma^{d-1})/(1-\gamma)$, for $d\ge1$.
# 3. **Bound.** With $|A|$ actions, $0\le V_\text{soft}-V_\text{hard}\le\alpha\log|A|/(1-\gamma)$: entropy is at most $\log|A|$
#    in each step.
# 4. **Consistency.** The policy $\pi=\mathrm{softmax}(Q/\alpha)$, evaluated by solving its linear equations, has the value $V$.
# 5. **Inference.** List all action sequences and weight each by $\prod_te^{r_t/\alpha}$. The posterior
#    $p(a_1|O_{1..T}=1)$ is the soft policy of the first step.
# 6. **The clip.** A uniform policy on $[-1,1]^4$ has entropy $H=4\log2$. It collects $\alpha H/(1-\gamma)=8.3$ (at $\alpha=.03$,
#    $\gamma=.99$), so soft values at the goal may lie far above the clip at 0.

# %%
import math

from labkit.papers.sher.method import soft_tabular
from labkit.papers.sher.method.hindsight import future_law
from labkit.papers.sher.teaching import checks

task = soft_tabular.bit_flip(6, stay=True)
hard, soft = soft_tabular.hard_values(task, 0.98), soft_tabular.soft_values(task, 0.1, 0.98)
own = soft_tabular.evaluate_policy(task, soft.policy, 0.1, 0.98)
gap, bound = checks.lab_values()
posterior = soft_tabular.posterior_policy(soft_tabular.bit_flip(3), 0.5, 4)[0, 1]

# NBVAL_CHECK_OUTPUT
print("1 share relabelled with the own next state, T = 50:", round(0.8 * float(future_law(50)[0]), 4))
print("2 best values at distance 0 to 3:", [round(float(hard.v[s]), 4) + 0.0 for s in (0, 1, 3, 7)])
print("3 largest gap", f"{gap:.4f}", "below its bound", f"{bound:.2f}")
print("4 error of the policy's own value below 1e-9:", float((own - soft.v).abs().max()) < 1e-9)
print("5 posterior of the first action, three bits:", [round(float(p), 4) for p in posterior])
print("6 worth of a uniform policy's entropy:", round(0.03 * 4 * math.log(2) / 0.01, 1))

# %% [markdown]
# **A maze at three temperatures.** It is solved exactly; the goal is in the lower right corner. Top: values. Bottom:
# entropy of the policy in each cell, at most $\log5=1.6$ for five actions. At $\alpha=.003$ and $.1$ the entropy is
# above 0 only where several actions are equally good. At $\alpha=1$ the policy is far more random. Three actions stay
# at the goal, so choosing among them at random earns entropy in every step: the value there is above 0.

# %%
viz.show(
    figures.temperature_figure(),
    "A maze of four by four cells at temperatures .003, .1 and 1. Values are -4.5 to .1 at the first and 17 to 24 at the last; "
    "entropies are mostly 0 at the first and 1 to 1.5 at the last.",
)

# %% [markdown]
# **A learned value against the exact one.** A point walks along a line and gets $-1$ until it is near its goal. The best value
# is a staircase, $-(1-\gamma^k)/(1-\gamma)$ with $k$ steps outside. HER's critic follows its slope and smooths its steps.
# SHER's $V$ lies below, but its policy is hardly slower: from the far end its rewards sum to about $-5.8$, against $-5.71$ for
# the best policy. Another $-0.6$ is entropy: the differential entropy of a *narrow* density is negative. The rest is the
# network's error.

# %%
viz.show(
    figures.value_figure(scenes.line_values()),
    "Value against distance from the goal. The optimum is a staircase from 0 to -5.7; HER's curve crosses its steps, SHER's "
    "runs below it.",
)

# %% [markdown]
# ## 6 Train and compare
#
# Three experiments. *Bits*: turn one row of 12 bits into another, by Q-learning with and without hindsight. *Walls*: a point
# must get round a wall within 25 steps. There are two walls, `gap` and `twoway`, and ten seeds for each wall and learner; each
# seed plays 24,000 steps. *FetchReach*: a simulated robot arm must move its hand to a mark.

# %%
result = paper.run(config, run)
trained = [name for name in config.experiments if name in result]
print(f"trained on {result['data']}")

# %% [markdown]
# **Hindsight against none.** There are 4,096 rows and one of them is the goal, so without hindsight a reward of 0 is
# almost never seen. Dots are seeds; the diamond is the IQM with its 95 % interval, by bootstrap (seeds drawn again with
# replacement).

# %%
viz.show(
    lambda: figures.arms_figure([result], "bits"),
    "Success on 12 bits: without hindsight all seeds are at 0, with it they lie between .85 and 1.",
    when="bits" in trained,
)

# %% [markdown]
# **Four learners, two walls.** HER here is DDPG (*deep deterministic policy gradient*) with hindsight. Its policy is
# deterministic, so it explores only by noise that is added. `HER-none` adds none. `HER-eps` replaces 5 % of the actions
# by random ones. `HER-noise` has what OpenAI tuned [peer code]: Gaussian noise ($\sigma=.2$) and 30 % random actions.
# `SHER` adds none; its policy is itself random. Thin lines are seeds, the thick line is their mean. In the table
# *worst* is the seed with the least success, and *below .5* counts the seeds that end there. Intervals are bootstrap
# intervals; seeds are drawn again within each wall.

# %%
shown = "walls" if "walls" in trained else trained[0]
viz.show(
    figures.curves_figure(result, shown),
    "Success against environment steps, a row of panels for each wall and a column for each learner. The seeds of HER-none fan "
    "out between 0 and 1; those of HER-noise and SHER rise together to about .9.",
)

# %%
from IPython.display import Markdown

Markdown("\n".join(figures.seeds_table([result], shown)))

# %% [markdown]
# **All recorded seeds.** The record holds more seeds than this run. The second table has the differences between
# learners.

# %%
kept = scenes.recorded("") or [result]
pairs = [("SHER", "HER-none"), ("SHER", "HER-eps"), ("SHER", "HER-noise")]
lines = [*figures.seeds_table(kept), "", *figures.differences_table(kept, pairs)] if "walls" in kept[0] else []
Markdown("\n".join(lines))

# %% [markdown]
# What the tables say:
#
# 1. Without added noise HER ends below .5 for many seeds, and SHER for none: at this setting **entropy replaced the
#    hand-tuned noise**.
# 2. Against HER *with* its tuned noise SHER has no higher success.
# 3. The curves show that SHER does not learn faster either.
#
# **Limits of this comparison.** It holds at one setting. We found that setting in five pilot runs, by looking for one in which
# both SHER and HER with noise learn. HER without noise was not part of the last pilot, so its learning rate was never tuned.
#
# Below are eight other settings, the corners of a box around ours: learning rate a third and three times as large,
# target networks that keep .9 or .4 of themselves, batch size halved and doubled. The number of updates is the same;
# SHER has 5 % random actions here, and HER without noise still none. At the small learning rate the mean success of
# every learner stays below .5. At the large one HER without noise is about as good as SHER or better at every corner.
# So we do *not* find that SHER is less sensitive to hyper-parameters. Much of the variation is unfinished training: the
# corners say nothing about where longer training would end.

# %%
box = scenes.recorded("box")
viz.show(
    lambda: figures.box_figure(box),
    "Success of HER-none, HER-noise and SHER at eight corners of learning rate, target and batch size; dots are seeds. Most bars "
    "are below .3 at learning rate .001 and between .3 and 1 at .009. SHER's is never the highest bar.",
    when=box,
    otherwise="Not recorded yet: labkit record sher --label box, see section 10",
)

# %% [markdown]
# **Other temperatures.** The same agent with other $\alpha$, all with 5 % random actions. $\alpha=0$ is the cleanest
# control: the same networks and the same random policy, without entropy in the objective. `SHER-auto` learns $\alpha$.
# With 20 seeds an advantage of $\alpha=.03$ over $\alpha=0$ is not shown (claim `temperature-matters`).

# %%
warm = scenes.recorded("alpha")
viz.show(
    lambda: figures.arms_figure(warm, "alpha"),
    "Success of SHER at six temperatures. The IQM is .75 at alpha = 0, a little above .8 from .003 to .03, and lower at .1. "
    "The interval is widest at alpha = 0.",
    when=warm,
    otherwise="Not recorded yet: labkit record sher --label alpha, see section 10",
)

# %% [markdown]
# **A robot arm.** FetchReach in the simulator MuJoCo, 2,000 steps. SHER explores as released (5 % random actions); HER has its
# noise and its penalty on large actions. HER learns this task as fast or faster, and each update costs less. So this task does not
# support the paper's claim.

# %%
viz.show(
    lambda: figures.curves_figure(result, "fetch-reach"),
    "Success on FetchReach against environment steps: both learners reach 1 and HER-noise reaches it first.",
    when="fetch-reach" in trained,
)

# %% [markdown]
# The frames show the arm before and after training, with the same goals (the red dot). The frame is green while the
# hand is at the goal.

# %%
from labkit.papers.sher.teaching.rendering import to_gif

films, missing = scenes.fetch_films(config, run)
viz.show(
    lambda: figures.film_figure(films),
    "Two rows of frames. Before training the hand stays away from the red dot and all frames are red. After training it is at "
    "the dot and all frames but the first are green.",
    when=films,
    otherwise=missing,
)
if films:
    viz.show(
        to_gif([*films["before"], *films["after"]], fps=6, colors=24),
        "The two episodes as a film: the arm before training with red frames, then after training with green ones.",
    )

# %% [markdown]
# **What was learned.** The picture has twenty test episodes in front of the wall `gap`, for the seed with which HER
# without noise did *worst*. Stars are goals; an episode is green if it ends at its goal. The number is the share of
# those.

# %%
learners = scenes.wall_learners(config, run, result)
paths = {arm: scenes.fixed_paths(learner) for arm, learner in learners.items()}
viz.show(
    lambda: figures.paths_figure(paths, "gap"),
    "Paths of four learners past a wall. Those of HER-none end at the wall, all red; most of the other three go round its "
    "upper end to their goals, green.",
    when=paths,
)

# %% [markdown]
# ## 7 Explore
#
# **Relabel this episode.** Choose the present moment $t$ and a later one, $t'$. Points are green where the reward is 0 under the
# new goal. Bars: the probability of each $t'$ given $t$. Dashed: the distribution of $t'-t$ over all $t$.

# %%
viz.show(
    figures.relabel_widget(failure),
    "Left, the failed path with the moment t, the goal asked for and the new goal from t'. Right, bars of equal height for all "
    "later moments, and a falling dashed line.",
)

# %% [markdown]
# **The clip in numbers.** Left: the largest difference between soft and hard values on six bits, and the bound of section 5.
# Right: the value at the goal of the maze, with targets clipped at 0 and without. The clip removes nearly all of the entropy's
# value.

# %%
viz.show(
    lambda: figures.gap_figure(result),
    "Left, on logarithmic axes, the gap of soft and hard values rises with alpha below a dashed bound. Right, the goal's value "
    "rises to 60 at alpha = 1, and stays below 2 where targets are clipped.",
    when=config.exact,
)

# %% [markdown]
# **The temperature.** The maze is solved again at each position of the sliders. Tick the clip and watch the value at the goal.

# %%
viz.show(
    figures.alpha_widget(),
    "Three panels at alpha = .1: soft values of the maze, entropy of the policy, and bars of p(O = 1), which is nearly 0 away "
    "from the goal and 1 at the goal.",
)

# %% [markdown]
# **All seeds at once.** Every dot is a training run. Choose an experiment, and how it is evaluated: `success` with the mean action,
# `official` as in the released code, with sampled actions and 5 % random ones.

# %%
sources = {name: ([result], name) for name in trained if name != "bits"}
sources |= {f"recorded: {name}": (runs, name) for name in ("alpha", "switches") if (runs := scenes.recorded(name))}
viz.show(
    figures.cloud_widget(sources),
    "Success at the last step, a column of dots for each learner and its IQM with interval. The dots of HER-none reach from 0 "
    "to 1, the others lie above .5.",
)

# %% [markdown]
# **The critics.** Left, a position and a goal. Beside it, $Q$ over all actions (horizontal and vertical) at that position: light is
# better. White dots: actions of the policy, 120 samples for SHER and the only one for HER. Move the position past the wall's end.

# %%
chosen = {arm: learners[arm].agent for arm in ("SHER", "HER-none") if arm in learners}
viz.show(
    lambda: figures.landscape_widget(chosen, "gap"),
    "Left, a point, a wall and a goal behind it. Right, two squares of actions coloured by Q: SHER's samples are a cloud "
    "on the light side, HER-none's action is one dot.",
    when=chosen,
)

# %% [markdown]
# ## 8 Verdict
#
# This is one run with ten training seeds for each wall and learner. `labkit claims sher` shows all recorded runs.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints, one
# after the other. The solution is folded below.

# %% [markdown]
# **Fill in: the later moment.**

# %% tags=["exercise"]
display(paper.exercise("later"))
my_later = None  # a function (t, horizon, u) -> t'

paper.exercise("later").check(my_later)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def later(t, horizon, u):
    return t + 1 + (u * (horizon - t)).long()


paper.exercise("later").check(later)

# %% [markdown]
# **Find the bug: new goals, and still nothing is learned.**

# %% tags=["exercise"]
display(paper.exercise("relabel"))
viz.show_source(exercises.broken_relabelling)
my_relabel = None  # a function (batch, goal) -> batch

paper.exercise("relabel").check(my_relabel)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def mended(batch, goal):
    reward = checks.reward_of(batch["next_achieved"], goal)  # the reward belongs to the goal, not to the step
    return {**batch, "goal": goal, "reward": reward}


paper.exercise("relabel").check(mended)

# %% [markdown]
# **Fill in: the logarithm of a slope.**

# %% tags=["exercise"]
display(paper.exercise("log-slope"))
my_slope = None  # a function (u) -> log(1 - tanh(u)^2)

paper.exercise("log-slope").check(my_slope)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def slope(u):
    from torch.nn.functional import softplus

    return 2 * (math.log(2) - u - softplus(-2 * u))


paper.exercise("log-slope").check(slope)

# %% [markdown]
# **Fill in: the soft backup.**

# %% tags=["exercise"]
display(paper.exercise("soft-backup"))
my_backup = None  # a function (q, alpha) -> (v, policy)

paper.exercise("soft-backup").check(my_backup)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def soft_backup(q, alpha):
    import torch

    return alpha * torch.logsumexp(q / alpha, -1), torch.softmax(q / alpha, -1)


paper.exercise("soft-backup").check(soft_backup)

# %% [markdown]
# **Predict, then run: the best Gaussian policy.**

# %% tags=["exercise"]
display(paper.exercise("width"))
my_width = None  # a pair (mean, standard deviation)

paper.exercise("width").check(my_width)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# E[Q] = -2 ((mu - .3)^2 + sigma^2) and H = log sigma + constant, so mu = .3 and sigma^2 = alpha / 4.
# In general sigma^2 = alpha / |Q''|: temperature is width.
paper.exercise("width").check((0.3, 0.1))

# %% [markdown]
# **Ablation: which goals?**

# %% tags=["exercise"]
display(paper.exercise("strategy"))
my_choice = None  # a dictionary {"strategy": ..., "k": ...}

paper.exercise("strategy").check(my_choice)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# With `next` every relabelled reward is 0: Q is nearly 0 for all actions, and no action is better than another.
paper.exercise("strategy").check({"strategy": "future", "k": 4.0})

# %% [markdown]
# **Open.**
#
# 1. Remove $V$: the arm `SAC-v2` in `EXPERIMENTS["switches"]` (SAC's second version, without it). How do cost and spread change?
# 2. Find a world in which the clip at 0 harms a *trained* agent.
# 3. CHER's weight $\lambda$ grows by a factor of $1.0001$ a step. Its diversity term compares with one nearest
#    neighbour, so the set function is a plain sum (see `experiment/curriculum.py`). What would two neighbours change?
# 4. In the world `pocket` hardly any learner reaches a goal. Does that change with five times the steps? Write down
#    what you expect first.
# 5. In `push` a point must push a disc to a mark. In 48,000 steps none of our learners learned it (success 0 to .05, four seeds
#    each). In an episode in which the disc is not touched every relabelled reward is 0. How could the first touch come sooner?

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **On your own environment.** Any gymnasium environment with goals will do: its observation has `observation`, `achieved_goal` and
# `desired_goal`, and it has `compute_reward`. Give its id, the environment itself, or a function that makes it. Actions may have any
# finite bounds and episodes any length. Rewards of $-1/0$ and of $0/1$ are both understood. An end by the environment (termination)
# ends an episode's value; time running out (truncation) does not. An environment that cannot be learned is refused with the reason.
#
# ```python
# from labkit.papers.sher import SHER
#
# model = SHER(my_env, seed=0)
# model.learn(1_000)  # steps of the environment
# print(f"goal reached at the last step: {model.success_rate(20):.0%} of 20 episodes")
#
# observation, _ = my_env.reset(seed=1)
# action, _ = model.predict(observation)  # within the bounds of the environment
# model.save("model.safetensors")
# model = SHER.load("model.safetensors", my_env)  # predicts, and goes on learning
# ```
#
# `HER` and `SAC` (version 2) have the same methods. `help(SHER)` lists the options, among them the switches of section 4;
# `episodes=4` plays in four copies of the environment at a time. The methods are named as in stable-baselines3, whose
# `evaluate_policy` accepts the model.

# %%
from labkit.papers.sher import SHER

model = SHER("FetchReach-v4", seed=0, device="cpu").learn(1_000)
print(f"goal reached at the last step: {model.success_rate(20):.0%} of 20 episodes")

# %% [markdown]
# **Full scale.** `gpu`: FetchPush, SHER and HER with the released networks and batch size, updates as a CUDA graph, simulators in
# threads. `full`: the released schedule of 200 epochs of 50 cycles of 40 updates, for six tasks, five seeds and eight arms; 19 M
# steps each (Fetch) or 38 M (hand). Runs can be interrupted and resumed.
#
# ```
# labkit run sher --scale gpu
# torchrun --nproc-per-node 2 -m labkit train sher --scale full -p experiments fetch-push
# labkit record sher --scale lesson --label alpha -p experiments alpha -p replicas 5 --seeds 0,1
# labkit record sher --scale lesson --label switches -p experiments switches -p replicas 5 --seeds 0,1
# labkit record sher --scale lesson --label batch-entropy -p experiments released -p replicas 5 --seeds 0,1
# labkit export RUN DIR --arm fetch-reach/SHER
# labkit record sher --scale lesson --label box --seeds 0 -p replicas 3 -p experiments \
#   $(echo box-0.00{1,9}-0.{9,4}-{32,128} | tr " " ,)
# ```

# %%
show.config(config)
show.scales(paper.configs)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims sher`. Each record in `data/records/sher/` holds its config, seeds, versions,
# hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: HER with maximum-entropy learning, derived as inference; state of the art on OpenAI's robot tasks, above all with
#   the hand; very similar results over seeds. Its success rates are not known to us.
# - [official code]: everything of section 4 without another mark. The released program replays through CHER's sampler.
#   Whether the paper's own runs did is open; plain replay is our default [inferred]. It was written for MuJoCo's old
#   physics, so curves compare in shape only. Its $V$ learns the batch's mean entropy: on the walls 20 seeds show no
#   difference (IQM .81 against .82 with each row's own entropy; with its sampler and its narrow layer both fail, .04
#   and .02).
# - [peer code]: another public re-implementation reports SHER as not good enough on FetchReach. In other libraries SAC with
#   hindsight is known to fail for some seeds of this task. Stable-Baselines3 with the settings of its zoo *and normalised
#   observations* solves FetchReach in 2,000 to 3,000 steps.
# - [ours]: the walls, the setting of section 6 and every interval; exact densities (the released ones add $10^{-6}$); the head as
#   one layer; normalisers that see as many relabelled transitions as steps were played (the released one: 64 through CHER's
#   sampler); a full buffer that overwrites its oldest episodes.
# - **Not shown here**: higher success than HER with tuned noise, faster learning, robustness to hyper-parameters, anything
#   about hands. Round the wall `twoway` there are two equally short ways. *Every* learner uses both: starts and goals decide,
#   not entropy.
