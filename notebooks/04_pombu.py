# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # POMBU: trust the models where they agree
#
# *Deep Model-Based Reinforcement Learning via Estimated Uncertainty and Conservative Policy Optimization.* Zhou, Li and
# Wang, AAAI 2020, [arXiv 1911.12574](https://arxiv.org/abs/1911.12574)
#
# Model-based reinforcement learning trains a policy in a learned model of the environment and therefore needs few real
# steps. The policy also exploits the model's errors: it moves to where the model predicts too much reward. POMBU
# (*policy optimization with model-based uncertainty*) has two parts. It trains an *ensemble* of models and turns their
# disagreement into an uncertainty of the action value $Q$. Then it changes the policy only where the predicted gain
# exceeds a multiple of that uncertainty.
#
# **You will** derive an upper bound of the variance of $Q$, see which assumption breaks it, measure how well the
# uncertainty predicts the error of $Q$, and compare policy improvement with and without the penalty.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract or introduction |
# | [official code] | what the authors' program does |
# | [peer] | stands in a paper by others |
# | [inferred] | our reading, where none of them is explicit |
# | [ours] | our addition, not the paper's |
#
# We could read only the abstract and the introduction of the paper. Hyper-parameters come from the official code. The
# theory is derived here [inferred] and checked by computation.

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
# **One situation.** A point moves in the plane; the reward of a step is minus the distance to a goal. On the right, a step
# goes where it is steered. On the left, the steering is rotated by an angle that varies with the position. A hand-made
# controller takes this into account. A policy that imitates it records eight episodes: seven start on the right, one on the
# left. Five models are trained on these episodes. Then the policy is improved by 30 updates in the models alone, without
# new data. This task is called *Zone* below [ours].
#
# **Two outcomes.** Without caution ($\alpha=0$) the models predict a large gain, and the policy becomes worse than it was: it
# loses on the left, where the models are wrong. With caution ($\alpha=2$) it changes little where the models disagree, and more than half of the
# smaller predicted gain is real. The bars are means over the 24 recorded seeds.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.pombu.teaching import exercises, figures, scenes
from labkit.workbench import show

viz.use()
paper = load("pombu")
recorded = scenes.pooled("zone")
viz.show(
    lambda: figures.idea_figure(recorded),
    "Mean gain of return, predicted and real. Left, alpha = 0: predicted far above zero, real below zero. Right, alpha = 2: "
    "the predicted gain is smaller, and the real one is above zero.",
    when=recorded,
    otherwise="There is no record of the Zone task here: labkit record pombu.",
)

# %% [markdown]
# ## 2 Parameters
#
# These four values are all that you need to set. `scale` picks a whole configuration and `overrides` changes single fields
# of it. `labkit run pombu --scale smoke` runs this notebook with other values.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as zone_copies

# %% [markdown]
# Three fields are worth changing first. `studies` lists the experiments. `zone_arms` lists what is compared on the Zone task:
# `alpha-A` uses the penalty with $\alpha=A$; `shuffled-A` and `constant-A` are controls (section 6). `zone_updates` is the
# number of policy updates. All fields: section 10.

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config, fields=["studies", "zone_arms", "zone_updates"])

# %% [markdown]
# ## 3 What the paper claims
#
# Three main claims, in our words, each with the smallest effect that counts as holding it. The abstract gives no figures, so
# none of the paper's stand here. The lesson measures the first two; the third needs the scale `full`. The folded table has
# the other claims, and counter-checks of ours that may fail.

# %%
show.claims(paper, main=["upper-bound", "improves-with-high-probability", "sample-efficiency"])

# %% [markdown]
# ## 4 The method, step by step
#
# **What is uncertain.** Transitions $P$ and rewards $r$ of a Markov decision process (MDP) $p$ are drawn from a posterior. A
# fixed policy $\pi$ has the values $Q_p^h$ and $V_p^h$ in it, with $V_p^H=0$ after the last step. An overbar is a posterior mean. How
# large is $\mathrm{Var}_p[Q^h(s,a)]$?
#
# **The assumption** [peer: O'Donoghue et al., Luis et al.]. $P$ and $r$ are independent of each other and between
# different $(h,s,a)$, and no state returns at a later step. Then $V^{h+1}$ is independent of $P(\cdot\mid h,s,a)$.
#
# **An identity.** The *law of total variance* says $\mathrm{Var}[X]=\mathbb E\,\mathrm{Var}[X\mid Y]+\mathrm{Var}\,\mathbb E[X\mid Y]$.
# Apply it to $X=V_p(s')$, once with $Y=p$ and once with $Y=s'$, and equate the results. With
# $\mathrm{Var}_p[Q]=\mathrm{Var}_p[r]+\gamma^2\,\mathrm{Var}_p[\sum_{s'}PV_p]$ this gives
#
# $$\mathrm{Var}_p[Q]=\mathrm{Var}_p[r]+\gamma^2\Big\{\mathrm{Var}_{s'\sim\bar P}[\bar V(s')]
# +\mathbb E_{s'\sim\bar P}\mathrm{Var}_p[V(s')]-\mathbb E_p\,\mathrm{Var}_{s'\sim P}[V_p(s')]\Big\}\tag{3}$$
#
# **From the identity to the bound** [inferred]. *Jensen's inequality* says $f(\mathbb E X)\le\mathbb E f(X)$ for convex
# $f$. It is used twice.
#
# - A variance over $s'$ is convex in the values, and $V_p$ has the mean $\bar V$ independently of $P$. So
#   $\mathbb E_p\mathrm{Var}_{s'\sim P}[V_p]\ge\mathbb E_p\mathrm{Var}_{s'\sim P}[\bar V]$.
# - The variance of an average is at most the average variance: $\mathrm{Var}[V]\le\mathbb E_{a\sim\pi}\mathrm{Var}[Q]$.
#
# By the law of total variance, $\mathrm{Var}_{\bar P}[\bar V]-\mathbb E_p\mathrm{Var}_{P}[\bar V]=\mathrm{Var}_p[\sum P\bar V]$. Together:
#
# $$\mathrm{Var}_p[Q^h]\le U^h=u^h+\gamma^2\,\mathbb E_{s'\sim\bar P,\,a'\sim\pi}U^{h+1},\qquad
# u^h(s,a)=\mathrm{Var}_p\Big[r+\gamma\sum_{s'}P(s'\mid s,a)\,\bar V^{h+1}(s')\Big].\tag{1}$$
#
# Luis et al. describe the paper's bound in this form [peer]. The earlier bound of O'Donoghue et al. [peer] has the same
# recursion with $u=\mathrm{Var}[r]+Q_{\max}^2\sum_{s'}\mathrm{Var}[P]/\bar P$ (2). It has one number $Q_{\max}$ in
# place of the values and is therefore loose.
#
# **With learned models.** $K$ models $f_k$ give $K$ numbers $q_k=r(s,a,f_k)+\gamma V(f_k(s,a))$, and
# $u=\frac1K\sum_k(q_k-\bar q)^2$ (4). The sum in (1) runs along a rollout in the models (an *imagined* rollout).

# %%
from labkit.papers.pombu.method import tabular
from labkit.papers.pombu.method.uncertainty import disagreement

viz.show_source(tabular.local_uncertainty, tabular.propagate, disagreement)

# %% [markdown]
# **The objective.** Let $\delta=\pi/\pi_{\text{old}}-1$ be the relative change of an action's probability, and $A$ the
# advantage. To first order the return changes by $\mathbb E[A\delta]$ [peer: Kakade and Langford]. By the triangle
# inequality of standard deviations, the standard deviation of that estimate is at most
# $\mathbb E[\lvert\delta\rvert\sqrt U]$ [inferred]. POMBU minimises [official code]
#
# $$L=-\mathbb E\big[\min(A\delta,\;A\,\mathrm{clip}(\delta,-\epsilon,\epsilon))\big]+\alpha\,\mathbb E\big[\lvert\delta\rvert\sqrt U\big].\tag{5}$$
#
# The first term is the clipped objective of PPO (*proximal policy optimization*). Where $\lvert A\rvert<\alpha\sqrt U$, the minimum for
# that sample is $\delta=0$: a *dead zone*. $\alpha$ is the number of standard deviations that a gain must exceed. With $\alpha=0$ the
# method is PPO in a model ensemble (MEPPO).

# %%
from labkit.papers.pombu.method import objective

viz.show_source(objective.surrogate, objective.risk, objective.loss_5)

# %% [markdown]
# **Scale.** $A$ is standardised before it enters (5), so $\sqrt U$ must be expressed in standard deviations of the raw
# $A$. Then $\alpha$ keeps its meaning when the unit of reward changes. The lesson does this (`u_scaling="paper"`)
# [inferred]. The official code does something else; section 9 asks what. Section 10 says which of the two the large
# scales use.

# %%
viz.show_source(objective.root_in_deviations)

# %% [markdown]
# **Exploration.** To collect real episodes, ten exploration policies are trained briefly on $A+\beta\sqrt U$ with $\beta=10$, each
# in a random mixture of the models. Each plays one real episode; then the policy's weights are restored [official code].

# %%
from labkit.papers.pombu.method.exploration import explore

viz.show_source(explore)

# %% [markdown]
# **The lesson's experiment** is one phase of improvement on fixed data [ours]. No new data arrive that could correct
# the models, so it is the penalty that has to limit the exploitation of their errors. All arms of a seed share first
# policy, data, models and random numbers. They are trained at once, as slices of stacked tensors.

# %%
from labkit.papers.pombu.experiment import offline

viz.show_source(offline.improve)

# %% [markdown]
# ## 5 Prove it
#
# The example is a posterior over MDPs with 4 states, 2 actions and 5 steps. Its true variance has a closed form [ours].
#
# 1. The bound (1) is never below the true variance. How loose is it, and how loose is the earlier bound (2)?
# 2. The identity (3) holds on 20,000 sampled MDPs.
# 3. Luis et al. [peer], who came later, subtract the gap between the two sides of (1): their recursion gives
#    $\mathrm{Var}[V]$ itself.
# 4. The estimate (4) is too small on average. Section 9 asks by which factor.
# 5. A constant $u\equiv c$ along a rollout adds up to $c\,(1-\gamma^{2(T-t)})/(1-\gamma^2)$.
# 6. For linear models and quadratic rewards $U$ has a closed form, which the sampling code reproduces.
# 7. $K$ equal models have $U=0$; then (5) is PPO's loss for every $\alpha$.
# 8. At $\delta=0$, where every update starts, automatic differentiation takes the slope of $\lvert\delta\rvert$ as 0. The first
#    minibatch therefore feels no penalty.
#
# Before you run the next cell: how many times the true variance do you expect of (1), and of (2)?

# %%
import numpy as np
import torch

from labkit.papers.pombu import local_uncertainty, propagate
from labkit.papers.pombu.method import lqr
from labkit.papers.pombu.teaching import checks

posterior = tabular.random_posterior(seed=0)
models = tabular.sample(posterior, 20_000, np.random.default_rng(0))
exact, _ = tabular.exact_variance(posterior)
tight = tabular.propagate(tabular.local_uncertainty(posterior), posterior) / exact
loose = tabular.propagate(tabular.loose_local_uncertainty(posterior, float(abs(models.q).max())), posterior) / exact
lhs, rhs = tabular.identity(posterior, models)
luis = tabular.propagate_states(tabular.luis_local_uncertainty(posterior, models), posterior)
drawn = torch.randn(5, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
u = torch.full((10, 1), 0.3, dtype=torch.float64)
sums = propagate(torch.zeros_like(u), u, gamma=0.9).uncertainty_target[:, 0]
closed = 0.3 * (1 - 0.81 ** (10 - torch.arange(10, dtype=torch.float64))) / 0.19

# NBVAL_CHECK_OUTPUT
print(f"1 bound (1) over truth: {tight.min():.3f} to {tight.max():.2f}; bound (2): {loose.mean():.0f} on average")
print("2 identity (3) within 5 %:", bool(np.allclose(lhs, rhs, rtol=0.05)))
print("3 Luis' recursion within 5 %:", bool(np.allclose(luis, tabular.exact_variance(posterior)[1][:-1], rtol=0.05)))
print("4 the estimate (4) is biased:", bool(local_uncertainty(drawn).mean() < 0.99))
print("5 constant u adds up in closed form:", torch.allclose(sums, closed))
print("6 linear models:", checks.lqr_error(lqr.example(), 12) < 1e-9)
print("7 U of equal models:", float(local_uncertainty(torch.ones(5, 8)).max()))
print("8 gradient of the penalty at 0:", checks.penalty_gradient_at_zero())

# %% [markdown]
# **Where the bound breaks.** A network that learns one $P$ for *all* steps breaks the assumption. The same error returns at
# every step, and errors of the same sign add up faster than independent ones. Left: every step has a model of its own, as the
# theory assumes. Right: one unknown model holds at all forty steps; the true variance is several times *above* the "bound".
# Learned models are of the second kind.

# %%
viz.show(
    figures.bounds_figure(),
    "Bars of the true variance, the paper's bound and the earlier bound for eight pairs of state and action, log scale. "
    "Left: the paper's bound is two to three times the truth, the earlier one far above. Right: the paper's bound is below it.",
)

# %%
cyclic = tabular.stationary_bound(posterior) / tabular.stationary_variance(posterior, 4_000, np.random.default_rng(0))

# NBVAL_CHECK_OUTPUT
print("endless horizon, one model: bound over truth below 0.2:", bool(cyclic.max() < 0.2))

# %% [markdown]
# ## 6 Train and compare
#
# The lesson computes the bounds of section 5, measures the calibration of $\sqrt U$, and trains the arms on the Zone
# task, without noise and with noisy actions. Progress bars show the time that is left.

# %%
result = paper.run(config, run)
trained = [name for name in config.studies if name in result]
maps = scenes.maps_of(run) if "zone" in trained else None
print(f"studies: {', '.join(trained)}")

# %% [markdown]
# **Does $\sqrt U$ measure the error of $Q$?** For sixty states and actions of each seed we compare $Q$ in the models, its $\sqrt U$,
# and the true $Q$ from real rollouts. A calibrated $\sqrt U$ is a standard deviation: 68 % of the errors lie within one, 95 % within
# two, and error divided by $\sqrt U$ has the standard deviation 1. The table also has the rank correlation of $\sqrt U$ and
# $\lvert\text{error}\rvert$.
#
# - *Truth + fresh noise* is the official code's own check: each model's error is drawn anew at every step, as the theory
#   assumes. There $\sqrt U$ is roughly calibrated.
# - The other ensembles are *learned*. Their errors are several times larger than $\sqrt U$: the assumption does not hold.
# - On the Zone task $\sqrt U$ still *ranks*: where it is large, the error tends to be large. On the point task the ledger does not
#   show this.
# - *Followed to the end* is the deviation over members each of which is followed for a whole rollout. It costs $K$ times as
#   many rollouts and is closer to calibration on the Zone task.

# %%
if "calibration" in result:
    rows = scenes.calibrations_of(run)
    print(figures.calibration_table(result["calibration"]))

# %%
viz.show(
    lambda: figures.calibration_figure({name: rows[name] for name in config.calibrations}),
    "One column an ensemble. Above: errors of Q against √U with lines of one and two sigmas; only under fresh noise do most "
    "points lie between the lines. Below: share of errors within c sigmas; curves of learned models lie far below the "
    "dotted normal law, those of members followed to the end nearer to it.",
    when="calibration" in result,
)

# %% [markdown]
# **What the models predict, and how uncertain they are.** Left: the effect of a full step to the right, in truth (black) and in
# five models (blue). Right: $\sqrt U$ of the first policy, with the recorded states as dots.

# %%
viz.show(
    lambda: figures.maps_figure(maps),
    "Left: arrows over the plane; near the data on the right the blue arrows point as the black ones, on the left not. "
    "Right: a map of √U, pale where dots show recorded states on the right, darker on the left and below the data.",
    when=maps,
)

# %% [markdown]
# **Thirty updates in the models.** Left: one dot a seed; on the dashed line the real gain equals the predicted one. Right: the
# share of seeds with a real gain. The controls use the same penalties, but *shuffled* over the samples, or all equal to their
# *mean*: the same amount of caution, without knowing where. Before you run the next cell: will the controls do as well?

# %%
viz.show(
    lambda: figures.promise_figure(result["zone"]),
    "Left: predicted against real gain; the dots of alpha = 0 lie far right of the dashed line and mostly below zero, those "
    "of alpha = 2 close to it and above zero. Right: shares of improving seeds with intervals, one row an arm.",
    when=maps,
)

# %%
viz.show(
    lambda: figures.learning_figure(result["zone"]),
    "Left: gains over the updates; the dashed predicted gain of alpha = 0 rises steeply while its solid real gain falls below "
    "zero. Right: real gain by start; all arms gain on the right, alpha = 0 loses most on the left.",
    when=maps,
)

# %% [markdown]
# All arms gain on the right. On the left $\alpha=0$ loses more than it gains on the right, and a large $\alpha$ changes
# little. In the first updates $\alpha=0$ is hardly worse: here caution makes the result safer, not faster.
#
# The records hold 24 seeds. $\alpha=2$ improves 23 of them, $\alpha=0$ improves 7, the shuffled penalty 14 and the mean
# penalty 11. $\alpha=0.5$, the official code's value for half-cheetah, improves 18: as the calibration showed,
# $\sqrt U$ is too small here, so $\alpha$ must be larger. The ledger asks for an interval above .85 before it counts
# "with high probability"; that of 23 of 24 begins at .80, so the claim is *not shown*.

# %%
viz.show(
    lambda: figures.changes_figure(maps, ("alpha-0", "alpha-2", "shuffled-2")),
    "Three maps of how the policy's steps moved, green towards the goal and red away from it. Alpha = 0: long arrows on "
    "the left, many red. Alpha = 2: short arrows on the left, green ones on the right. Shuffled: between the two.",
    when=maps,
)

# %% [markdown]
# **Noise, more data, another unit of reward.** The picture pools all recorded seeds (section 10 has the commands).
#
# - Left: with noisy actions $\alpha=2$ improves all 24 seeds, and $\alpha=0$ 7, as many as without noise. So it is *not
#   shown* that noise costs $\alpha=0$ more. With noisy observations $\alpha=2$ improves 17 and $\alpha=0$ one. Four
#   times the data (8 episodes on the left, 24 on the right) raise $\alpha=0$ to 19, and $\alpha=1$ and 2 to all.
# - Right: rewards ten times larger or smaller. With $U$ scaled as in section 4, $\alpha=2$ improves all seeds in both units. Scaled
#   as in the official code, the same $\alpha=2$ is ten times too strong or too weak, and improves 15 and 13.

# %%
studies = {name: found for name in scenes.RECORDED if (found := scenes.pooled(name))}
viz.show(
    lambda: figures.variations_figure(studies),
    "Left: share of improving seeds of four arms in five variations; alpha = 2 is highest or equal in each. Right: real gains "
    "with rewards in another unit; alpha = 2 gains in every seed where U is scaled, and around zero where it is not.",
    when=studies,
    otherwise="There are no records here: labkit record pombu (section 10).",
)

# %% [markdown]
# **Learning with new data.** `smoke`, `gpu` and `full` also run the whole algorithm: collect, train the models, improve, repeat.
# The picture shows the return of real episodes against real steps.

# %%
viz.show(
    lambda: figures.returns_figure(result, config.environments),
    "Return of real episodes against real steps, one panel a task; thin lines are seeds, thick lines their mean.",
    when=config.environments,
    otherwise="The lesson has no learning with new data; smoke, gpu and full have.",
)

# %% [markdown]
# ## 7 Explore
#
# **The bound.** Change the horizon, the amount of data behind the posterior and $\gamma$. The checkbox uses one model for all
# steps, so that states return.

# %%
viz.show(
    figures.bounds_widget(),
    "Bars of the true variance and the two bounds for eight pairs of state and action, log scale; sliders for horizon, data "
    "and gamma, and a checkbox for one model at all steps.",
)

# %% [markdown]
# **The loss of one sample.** Raise $\sqrt U$ until the best $\delta$ becomes 0: that is where the dead zone begins.

# %%
viz.show(
    figures.loss_widget(),
    "Curves over delta: the negative clipped gain, the penalty alpha |delta| √U, and their sum, the loss, with a dot at its "
    "minimum; sliders for A, √U, alpha and clip.",
)

# %% [markdown]
# **Where the policy changed.** A line goes from the old end of a step to the new one, three times enlarged. A green
# line ends nearer to the goal, a red one farther from it. Choose an arm and the number of updates.

# %%
viz.show(
    lambda: figures.change_widget(maps),
    "Lines over the plane for alpha = 0 after the last update: green and red, long on the left, with black dots where "
    "data were recorded.",
    when=maps,
)

# %% [markdown]
# **How much data does caution replace?** The same task with 1, 2, 4, 8 and 16 recorded episodes on the left, and seven on the
# right as always: 24 seeds at each amount, from the records. Before you move the slider: with how many episodes does $\alpha=0$
# improve at least half of the seeds? Which $\alpha$ gains most with sixteen? The last exercise of section 9 takes your answers,
# and the picture after it shows all amounts.
#
# Blue: share of improving seeds against $\alpha$. Grey: the share with one episode. Orange: the shuffled penalty with $\alpha=2$.

# %%
amounts = scenes.by_left()
viz.show(
    lambda: figures.data_widget(amounts),
    "Share of improving seeds against alpha, with intervals, for one episode on the left: it rises from about a third at "
    "alpha = 0 to nearly all at alpha = 2. A slider chooses the amount of data.",
    when=amounts,
    otherwise="There are no records of these studies here; section 10 has the command.",
)

# %% [markdown]
# ## 8 Verdict
#
# This run has one run seed, which gives eight seeds of each arm. `labkit claims pombu` shows the recorded runs.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# **What did not work** [ours].
#
# - *A detour round a sticky patch.* The real and the false gain lie in the same direction (cutting the corner), and caution
#   reduces both alike. In eight settings the arms did not differ.
# - *Pendulum swing-up from a poor first policy.* The models underestimate the return, so there is nothing to exploit, and
#   $\alpha$ only slows learning.
# - *The Zone task with a weaker controller on the right and smaller steps.* Every arm improves in all seeds; $\alpha$ changes only
#   the spread.
# - *Calibration on the point task with a drift that depends on the state.* The rank correlation is near 0 for every amount of
#   data.
# - The lesson does not test learning with new data, the exploration bonus, or the return at the end of training. `gpu` and
#   `full` do.

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check names the property that fails. `.hint()` in place of `.check(...)` gives two hints, one
# after the other. The solution is folded below.

# %% [markdown]
# **The uncertainty Bellman equation.**

# %% tags=["exercise"]
display(paper.exercise("bellman"))
my_bellman = None  # a function (u, transitions, policy, gamma) -> U

paper.exercise("bellman").check(my_bellman)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def uncertainty_bellman(u, transitions, policy, gamma):
    total = u.copy()
    for h in reversed(range(len(u) - 1)):
        following = (policy[h + 1] * total[h + 1]).sum(-1)  # the mean over the next action
        total[h] = u[h] + gamma**2 * transitions[h] @ following
    return total


paper.exercise("bellman").check(uncertainty_bellman)

# %% [markdown]
# **The bias of (4).**

# %% tags=["exercise"]
display(paper.exercise("bias"))
my_shares = None  # three numbers

paper.exercise("bias").check(my_shares)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# (K - 1) / K: the mean that is subtracted is computed from the same K numbers; `bessel=True` divides by K - 1
paper.exercise("bias").check((0.5, 0.8, 0.95))

# %% [markdown]
# **The scale of $U$.**

# %% tags=["exercise"]
display(paper.exercise("scaling"))
viz.show_source(exercises.broken_scaling)
my_scaling = None  # a function (u, advantage) -> sqrt(U)

paper.exercise("scaling").check(my_scaling)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# after the first line `advantage` has variance 1, so dividing by its variance does nothing
def scale_free(u, advantage):
    return (u / advantage.var(correction=0)).sqrt()  # raw advantages: U is quadratic in the unit of reward


paper.exercise("scaling").check(scale_free)

# %% [markdown]
# **The dead zone.**

# %% tags=["exercise"]
display(paper.exercise("dead-zone"))
my_step = None  # a function (advantage, sqrt_u, alpha, clip) -> delta

paper.exercise("dead-zone").check(my_step)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def step(advantage, sqrt_u, alpha, clip):
    if abs(advantage) <= alpha * sqrt_u:
        return 0.0  # the slope of the penalty exceeds that of the gain
    return clip if advantage > 0 else -clip  # the loss is piecewise linear: the minimum is at an end


paper.exercise("dead-zone").check(step)

# %% [markdown]
# **The exact equation, which came later.**

# %% tags=["exercise"]
display(paper.exercise("exact"))
my_local = None  # a function (v_mean, mean, policy, models_v, models, gamma) -> w

paper.exercise("exact").check(my_local)


# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
def local_term(v_mean, mean, policy, models_v, models, gamma):
    def spread(transitions, following):
        reached = (policy[..., None] * transitions).sum(-2)  # over action and next state
        return (reached * following[..., None, :] ** 2).sum(-1) - (reached * following[..., None, :]).sum(-1) ** 2

    return gamma**2 * (spread(mean, v_mean[1:]) - spread(models, models_v[:, 1:]).mean(0))


paper.exercise("exact").check(local_term)

# %% [markdown]
# **How cautious?**

# %% tags=["exercise"]
display(paper.exercise("caution"))
my_arm = None  # such as "alpha-0.25"

paper.exercise("caution").check(my_arm)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# with alpha = 0 the predicted gain is far above the real one; with a very large alpha the policy hardly moves
paper.exercise("caution").check("alpha-3")

# %% [markdown]
# **Data in place of caution.**

# %% tags=["exercise"]
display(paper.exercise("data"))
my_amounts = None  # two numbers: an amount of episodes, and an alpha

paper.exercise("data").check(my_amounts)

# %% jupyter={"source_hidden": true} tags=["solution"]
# solution
# two episodes suffice for half of the seeds; with sixteen, the official code's alpha gains most of the five
paper.exercise("data").check((2, 0.5))

# %% [markdown]
# **What the records show about data and caution.** There are 24 seeds at each amount.
#
# - $\alpha=0$ improves 7, 16, 14, 18 and 23 policies with 1, 2, 4, 8 and 16 episodes on the left; $\alpha=2$ improves 23 with up to
#   eight, and then all 24. With sixteen, the worst seed of $\alpha=0$ still loses 1.5. That data replace caution is *not shown*: the
#   ledger's interval for the difference reaches below its margin.
# - The $\alpha$ with the largest mean gain falls with data: 2 with one episode (+0.80), 1 with two and four, 0.5 or 1 with eight,
#   0.5 with sixteen (+2.13, against +1.49 for $\alpha=2$).
# - Knowing where to be cautious matters less with more data: the shuffled penalty improves 14 seeds with one episode and 23
#   with sixteen.
# - Slower learning does not explain the effect: a quarter of the step size leaves $\alpha=0$ at 7 of 24. Balanced data alone do
#   not either: with two episodes on each side $\alpha=0$ improves 9 and $\alpha=2$ 22.

# %%
viz.show(
    lambda: figures.data_figure(amounts),
    "Against the episodes on the left. Left: the share of improving seeds of alpha = 0 rises from a third to nearly all; that "
    "of alpha = 2 is near 1 throughout. Right: mean real gains; with sixteen episodes alpha = 0.5 is highest.",
    when=amounts,
    otherwise="There are no records of these studies here; section 10 has the command.",
)

# %% [markdown]
# **Open questions.** Use the deviation of members that are followed to the end in (5) in place of $\sqrt U$: which $\alpha$ is best
# then? How many episodes on the left make $\alpha=0$ as safe as $\alpha=2$ (`Zone(left=...)`, `Setting(episodes=...)`)? What does $\sqrt U$
# become when the members predict a variance of their own (`gaussian_members`)?

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **Your own environment.** It may be any Gymnasium environment with continuous actions within finite bounds and vectors
# as observations, given as its id or as an object. Episodes may terminate or be truncated. An environment that cannot
# be learned is refused with an error that says why.
#
# ```python
# from labkit.papers.pombu import POMBU
#
# model = POMBU(my_env)  # the members learn what a step pays and when the task is over
# model = POMBU(my_env, my_reward, my_end)  # better, where these are known: functions of (state, action, next_state)
# model.learn(20_000)  # real steps; model.history holds what every iteration measured
# action, _ = model.predict(my_env.reset()[0])
# model.save("pombu.safetensors")
# model = POMBU.load("pombu.safetensors", my_env, my_reward, my_end)  # goes on where it was
# ```
#
# The example balances a pole on a cart (MuJoCo). Reward and termination are learned: each step gives 1 until the pole has
# fallen. Small models and few epochs keep it short; `POMBU` without options uses the official code's sizes.

# %%
import gymnasium

from labkit.papers.pombu import POMBU


def mean_length(model, env, episodes=5):
    """Steps until the pole falls, at most 1000."""
    steps = 0
    for seed in range(episodes):
        observation, over = env.reset(seed=seed)[0], False
        while not over:
            observation, _, terminated, truncated, _ = env.step(model.predict(observation)[0])
            steps, over = steps + 1, terminated or truncated
    return steps / episodes


pole = gymnasium.make("InvertedPendulum-v5")
small = {"model_hidden": (64, 64), "model_learning_rate": 2e-3, "model_batch": 100, "model_epochs": 200, "rollouts": 40}
quick = {"updates": 10, "epochs": 5, "learning_rate": 1e-3, "lam": 0.95, "std_resets": 1, "exploration": "policy"}
model = POMBU(pole, horizon=100, alpha=0.1, **small, **quick)
before = mean_length(model, pole)
model.learn(500)
print(f"balanced for {before:.0f} steps before, {mean_length(model, pole):.0f} after {model.steps} real steps")

# %% [markdown]
# **The paper's setting.** `gpu` trains POMBU and MEPPO on half-cheetah with horizon 200, four seeds at once. `full` is the
# official code's setting on five MuJoCo tasks, against MEPPO, ME-TRPO, MBPO, PPO and SAC.
#
# ```
# labkit run pombu --scale gpu
# torchrun --nproc-per-node 8 -m labkit train pombu --scale full         # tasks and algorithms are shared out
# labkit train pombu --scale full -p observation_noise 0.1               # the noise study
# labkit export runs/pombu/NAME my-policy                                # a run's policy, for POMBU.load
# labkit record pombu --scale lesson --seeds 0,1,2 --label variations -p studies zone-observation-noise,zone-reward-x0.1,zone-reward-x0.1-official,zone-reward-x10,zone-reward-x10-official
# labkit record pombu --scale lesson --seeds 0,1,2 --label data -p studies zone-left-2,zone-left-4,zone-left-8,zone-left-16,zone-more-data,zone-balanced,zone-slow
# ```

# %%
show.config(config)

# %%
show.scales(paper.configs)

# %% [markdown]
# **Which scaling, and what to expect of $\alpha=0.5$.** The official code divides $U$ by the variance of advantages that are
# already standardised, which is 1. Its $\alpha=0.5$ was chosen with this scaling. So `gpu` and `full` do the same
# (`u_scaling="official"`); `-p u_scaling paper`, or the algorithm `pombu-scaled` beside `pombu`, divides by the raw variance. With
# either, the policy hardly moves at first. Half-cheetah in small [ours]: one seed, models of width 200, 50 rollouts, 10 updates of
# step size 3e-4 an iteration, episodes by the policy itself. The ranges are over the iterations.
#
# | | real steps | $\sqrt U$ in (5) | $\lvert A\rvert<\alpha\sqrt U$ | KL of an update | return, stochastic | with the mean action |
# |---|---|---|---|---|---|---|
# | $\alpha=0$ | 14,000 | .26–.35 | – | .0038–.0044 | −82 → −35 | −1 → −43 |
# | $\alpha=.1$, official | 6,000 | .36–.39 | .03 | .0029–.0032 | −70 → −55 | −2 → +6 |
# | $\alpha=.5$, official | 14,000 | .28–.47 | .10–.19 | .00007–.0005 | −62 → −55 | −0.4 → −0.7 |
# | $\alpha=.5$, paper | 8,000 | .37–.53 | .14–.21 | .00002–.0003 | −81 → −100 | −0.4 → −0.1 |
#
# The dead zone of single samples is small, yet the policy stays where it is. The reason is in (5). The penalty counts every
# $\lvert\delta\rvert$; the gain counts only the part of $A$ that is correlated with $\delta$. For a small step in some direction the
# gain is the correlation of $A$ with the change of log-probability, and the penalty is about $.8\,\alpha\sqrt U$ (normal $\delta$,
# standardised $A$). Advantages with $\lambda=1$ over 200 steps are mostly noise from the other steps. A linear fit of $A$ on action
# noise times state, judged on fresh samples, has a correlation of .01 ($\lambda=.95$: .04). A step would need .11 to .15, which is
# $.8\cdot.5\cdot\sqrt U$. So $\alpha=0.5$ rejects nearly every direction here, good or bad, until more data make $\sqrt U$ several
# times smaller.
#
# More data do reduce it: with 20,000 real steps before the first update $\sqrt U$ starts at .25 instead of .34, and an
# update with $\alpha=0.5$ has a KL divergence of .001. Every run logs `kl`, `dead_zone`, `sqrt_u` and `sigmas`.
# (Returns of five episodes from one seed prove nothing.)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims pombu`; each record in `data/records/pombu/` holds its config, seeds, versions,
# hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: an upper bound of the uncertainty in $Q$; a conservative objective that improves with high probability; higher
#   sample efficiency and final return than the policy optimisation of its time; robustness to noise. The results are curves; we
#   know no figure and quote none.
# - [official code]: the estimate (4) with divisor $K$, the objective (5) and its alternatives, exploration by mixtures, all
#   hyper-parameters (half-cheetah only), rewards with the velocity *before* the step.
# - [ours], different from the official code: its members are validated after epochs 1, 6, ... on at most 20,000 rows, ours after
#   5, 10, ... on all that are held out. `POMBU` starts imagined episodes in recorded start states and does not clip rewards. The
#   experiments do as the official code: they reset the simulator without counting it, and clip rewards at 5.
# - [inferred]: the derivation of section 4, the reading that $U$ was meant to be divided by the raw variance of $A$.
# - [ours]: the closed form of the true variance, the Zone task with its controls, the controller of the point task.
# - [peer]: O'Donoghue et al. 2018 (the earlier bound), Luis et al. 2023 (the exact equation), Kakade and Langford 2002 (the first
#   order of the return), Janner et al. 2019 (MBPO). As in MBPO, the members of our `mbpo` predict a variance, and rollouts grow from
#   $k_{\min}$ to $k_{\max}$ by the task's schedule. Different from MBPO: five members of our widths, all of them used, and no
#   real transitions in SAC's batches.
