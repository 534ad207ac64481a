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
# An agent that learns a model of its world can practise in imagination, and needs little real experience. But it practises
# against its own mistakes: wherever the model is wrong in its favour, the policy moves there. The remedy in this paper has
# two parts. Learn *several* models and turn their disagreement into an uncertainty of the action value $Q$; then change the
# policy only where the promised gain is larger than that uncertainty.
#
# **You will** bound the variance of $Q$ and see where the bound breaks, ask at hundreds of places whether an uncertainty is
# worth its name, let a policy ruin itself in imagination, and save it with one absolute value.
#
# | mark | meaning |
# |---|---|
# | [paper] | stands in the paper's abstract or introduction |
# | [official code] | what the authors' program does |
# | [peer] | another paper |
# | [ours] | our formulation, reading or experiment |
#
# Only abstract and introduction of the paper could be read. Hyper-parameters come from the official code; the theory is
# derived here and checked by counting.

# %% [markdown]
# ## 1 The idea in one picture
#
# A point wants to reach the star. On the right, steps go where they should. On the left, steering is turned by an angle that
# changes from place to place. A careful controller knows all this and works everywhere; of its recorded episodes seven start
# on the right and one on the left. A policy that improves itself in models learned from these few data finds *large* gains on
# the left, all of them imaginary, and *small* ones on the right, which are real. On the right of the picture: the same
# promise $A=1$ twice. Where models agree the loss falls when the action becomes more probable; where they disagree, staying
# is best.

# %%
from labkit import viz
from labkit.papers import load
from labkit.papers.pombu.teaching import exercises, figures, scenes
from labkit.workbench import show

viz.use()
paper = load("pombu")
figures.idea_figure()

# %% [markdown]
# ## 2 Parameters
#
# The cell below is all there is to set. `labkit run pombu --scale smoke` (papermill) replaces these values; `scale` picks a
# whole configuration, `overrides` changes single fields of it.

# %% tags=["parameters"]
scale: str = "lesson"  # one of smoke, lesson, gpu, full
seed: int = 0  # seed of every random generator
run_dir: str = ""  # folder of the run; empty makes a new one
overrides: dict = {}  # fields of the config to change, such as zone_copies

# %%
config = paper.config(scale, **({"seed": seed} | overrides))
run = paper.open_run(scale, config, run_dir)
show.config(config)

# %% [markdown]
# ## 3 What the paper claims
#
# Each statement of the abstract, in our words, with the least effect that we would count as holding it. Counter-checks that
# we expect to fail stand among them. The abstract gives no figures, so there are none of the paper's here.

# %%
from IPython.display import Markdown

head = "| claim | the abstract says | counts from | measured at |\n|---|---|---|---|\n"
Markdown(head + "\n".join(f"| `{c.key}` | {c.sentence} | {c.margin:g} {c.unit} | {c.scale} |" for c in paper.claims))

# %% [markdown]
# ## 4 The method, step by step
#
# **What is unknown.** Transitions $P$ and rewards $r$ of an MDP $p$ are drawn from a posterior. A fixed policy $\pi$ has the
# values $Q_p^h,V_p^h$ in it, with $V_p^H=0$ after the last step. Bars are posterior means. How large is
# $\mathrm{Var}_p[Q^h(s,a)]$?
#
# **The assumption.** $(P,r)$ are independent between different $(h,s,a)$, and no state comes back. Then $V^{h+1}$ is
# independent of $P(\cdot\mid h,s,a)$, and the law of total variance gives an exact identity:
#
# $$\mathrm{Var}_p[Q]=\mathrm{Var}_p[r]+\gamma^2\Big\{\underbrace{\mathrm{Var}_{s'\sim\bar P}[\bar V]}_{\text{spread of the mean}}
# +\mathbb E_{s'\sim\bar P}\mathrm{Var}_p[V(s')]-\mathbb E_p\,\mathrm{Var}_{s'\sim P}[V_p(s')]\Big\}\tag{3}$$
#
# *From (3) to the bound.* A variance over next states only grows when the uncertain part of $V_p$ is put back in:
# $\mathbb E_p\mathrm{Var}_{s'\sim P}[V_p]\ge\mathbb E_p\mathrm{Var}_{s'\sim P}[\bar V]$, since $V_p$ has mean $\bar V$ and is
# independent of $P$ (Jensen); and $\mathrm{Var}[V]\le\mathbb E_{a\sim\pi}\mathrm{Var}[Q]$ (Jensen again). And $\mathrm{Var}_{\bar P}[\bar V]-\mathbb E_p\mathrm{Var}_{P}[\bar V]=\mathrm{Var}_p[\sum P\bar V]$. So
#
# $$\mathrm{Var}_p[Q^h]\le U^h=u^h+\gamma^2\,\mathbb E_{s'\sim\bar P,\,a'\sim\pi}U^{h+1},\qquad
# u^h(s,a)=\mathrm{Var}_p\Big[r+\gamma\sum_{s'}P(s'\mid s,a)\,\bar V^{h+1}(s')\Big].\tag{1}$$
#
# O'Donoghue et al. [peer] have the same recursion with $u=\mathrm{Var}[r]+Q_{\max}^2\sum_{s'}\mathrm{Var}[P]/\bar P$ (2), which
# knows nothing of the values. With $K$ learned models $f_k$ the local term is the variance of $K$ numbers
# $q_k=r(s,a,f_k)+\gamma V(f_k(s,a))$ (4), and the sum runs along an imagined rollout.

# %%
from labkit.papers.pombu import conservative_loss, local_uncertainty, propagate, scale_uncertainty
from labkit.papers.pombu.method import tabular

viz.show_source(tabular.local_uncertainty, local_uncertainty, propagate)

# %% [markdown]
# **The objective.** With $\rho=\pi/\pi_{\text{old}}$ and $\delta=\rho-1$ the return changes, to first order, by $\mathbb E[A\delta]$. The
# estimate of that inherits a standard deviation of at most $\mathbb E[\lvert\delta\rvert\sqrt U]$. So minimise
#
# $$L=-\mathbb E\big[\min(A\delta,\;A\,\mathrm{clip}(\delta,-\epsilon,\epsilon))\big]+\alpha\,\mathbb E\big[\lvert\delta\rvert\sqrt U\big].\tag{5}$$
#
# Where $\lvert A\rvert<\alpha\sqrt U$ no move pays: a dead zone. $\alpha$ says how many sigmas a gain must be worth; $\alpha=0$ is PPO
# in a model ensemble (MEPPO).

# %%
viz.show_source(conservative_loss)

# %% [markdown]
# **A trap.** $A$ is standardised, so $U$ must be divided by the variance of the *raw* advantages. The official code divides by
# the variance of advantages that are standardised already, which is 1. Then $\alpha$ means something else whenever the unit of
# reward changes. Both are here; the lesson uses `paper`, and section 10 says what the large scales use, and why.

# %%
viz.show_source(scale_uncertainty)

# %% [markdown]
# **Curiosity.** When real episodes are collected, ten extra policies are trained for a moment on $A+\beta\sqrt U$ with $\beta=10$,
# each in a random mixture of the models; each plays one real episode, and the policy is put back [official code].

# %%
from labkit.papers.pombu.method.exploration import explore

viz.show_source(explore)

# %% [markdown]
# **The ensemble** is one network with a leading dimension: member, seed and arm. All members take their step in one batched
# product, each with its own data split, early stopping and best weights. **The lesson's experiment** is one single phase of
# improvement on fixed data, "improve with high probability" in its purest form: no new data come, so nothing corrects an
# illusion but caution. All arms of a seed share first policy, data, models and random numbers.

# %%
from labkit.papers.pombu.experiment import offline

viz.show_source(offline.improve)

# %% [markdown]
# ## 5 Prove it
#
# A posterior over MDPs with 4 states, 2 actions, 5 steps. The true variance has a closed form here [ours], so nothing has to be
# believed.
#
# 1. The bound (1) is never below the truth, and exact at the last step. The bound before it is a hundred times too large.
# 2. The identity (3) holds on 20,000 sampled MDPs.
# 3. Luis et al. [peer, later] subtract the gap: their recursion gives $\mathrm{Var}[V]$ itself.
# 4. A variance over $K$ models, divided by $K$, is too small by $(K-1)/K$.
# 5. $u\equiv c$ along a rollout adds up to $c\,(1-\gamma^{2(T-t)})/(1-\gamma^2)$.
# 6. Linear models and quadratic rewards: the sampled code gives the closed form.
# 7. $K$ equal models have $U=0$, and (5) is PPO's loss for every $\alpha$.
# 8. At $\delta=0$, where every update starts, the penalty has no gradient: the first minibatch feels none.

# %%
import numpy as np
import torch

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
print(f"1 bound over truth: {tight.min():.3f} to {tight.max():.2f}; the bound before it: {loose.mean():.0f} on average")
print("2 identity (3) within 5 %:", bool(np.allclose(lhs, rhs, rtol=0.05)))
print("3 Luis' recursion within 5 %:", bool(np.allclose(luis, tabular.exact_variance(posterior)[1][:-1], rtol=0.05)))
print("4 share of the variance with K = 5:", round(float(local_uncertainty(drawn).mean()), 1))
print("5 constant u adds up in closed form:", torch.allclose(sums, closed))
print("6 linear models:", checks.lqr_error(lqr.example(), 12) < 1e-9)
print("7 equal models:", float(local_uncertainty(torch.ones(5, 8)).max()))
print("8 gradient of the penalty at 0:", checks.penalty_gradient_at_zero())

# %% [markdown]
# **Where the bound breaks.** A network that learns one $P$ for *all* times breaks the assumption: the same error comes again at
# every step, and errors that agree add up faster than independent ones. On the right the same beliefs, but one model for all
# forty steps: the true variance is several times *above* the "bound". Keep this picture in mind when you see $\sqrt U$ of learned
# models below.

# %%
figures.bounds_figure()

# %%
cyclic = tabular.stationary_bound(posterior) / tabular.stationary_variance(posterior, 4_000, np.random.default_rng(0))

# NBVAL_CHECK_OUTPUT
print("endless horizon, one model: bound over truth below 0.2:", bool(cyclic.max() < 0.2))

# %% [markdown]
# ## 6 Train and compare

# %%
result = paper.run(config, run)
trained = [name for name in config.studies if name in result]
print(f"studies: {', '.join(trained)}")

# %% [markdown]
# **Is $\sqrt U$ the error of $Q$?** For sixty states and actions a seed: $Q$ in the models, its $\sqrt U$, and the true $Q$ from real
# rollouts. *Truth + fresh noise* is the official code's own check: models that err independently at every step. There the
# uncertainty is what it says, up to the bias of five models. The others are *learned*, and their errors are several times
# larger than $\sqrt U$: the picture above has come true. What is left is a **ranking**: where $\sqrt U$ is large, $Q$ tends to be wrong.
# Following each member to the end (orange), which is $K$ times as many rollouts, is much better calibrated.

# %%
if "calibration" in result:
    rows = scenes.calibrations_of(run)
    print(f"{'':18} {'rank corr.':>10} {'1 sigma':>8} {'2 sigma':>8} {'error/sigma':>12}")
    for name in config.calibrations:
        for key, label in (("sqrt_u", "√U"), ("persistent", "to the end")):
            if found := result["calibration"][name].get(key):
                ranks, cover = found["spearman"], found["coverage"]
                print(
                    f"{name:10} {label:>7} {sum(ranks) / len(ranks):>10.2f} {cover[0]:>8.2f} {cover[1]:>8.2f} {found['deviation']:>12.1f}"
                )

# %%
figures.calibration_figure({name: rows[name] for name in config.calibrations}) if "calibration" in result else None

# %% [markdown]
# **What the models believe, and what they know they do not know.** Left: where a step to the right leads, the truth in black,
# five models in blue, steering angle as background. Right: $\sqrt U$ of the first policy.

# %%
maps = scenes.maps_of(run) if "zone" in trained else None
figures.maps_figure(maps) if maps else None

# %% [markdown]
# **Thirty updates in imagination.** Left: a dot is a seed; on the dashed line a gain is as large as promised. Without caution
# the models promise most and the world takes it back. With $\alpha=2$ they promise less, and nearly all policies gain. Right: the share of seeds that
# *really* improved. The two controls decide what this is about: they have the same penalties, but *shuffled* over the samples,
# or all equal to their mean. The same caution without knowing where does not do it.

# %%
figures.promise_figure(result["zone"]) if maps else None

# %%
figures.learning_figure(result["zone"]) if maps else None

# %% [markdown]
# What to see. All arms gain on the right. On the left, $\alpha=0$ loses more than it gains on the right, and large $\alpha$ stays. Early on
# $\alpha=0$ is hardly worse: **caution buys safety, not speed**. And $\alpha=0.5$, the official code's choice for half-cheetah, is too weak
# here, because $\sqrt U$ is too small: two mistakes that have to be corrected by one number.

# %%
figures.changes_figure(maps, ("alpha-0", "alpha-2", "shuffled-2")) if maps else None

# %% [markdown]
# **Noise, other data, another unit.** These runs stand in the records (`labkit record pombu`, below); this is all their seeds
# together. Four times the data on both sides lift $\alpha=0$ to 19 of 24, and $\alpha=1$ and 2 to all; section 7 takes this
# question apart. Right: rewards in another unit. With $U$ divided by the raw variance nothing changes; with the official code's
# division penalties are ten times too strong, or too weak.

# %%
studies = {name: found for name in scenes.RECORDED if (found := scenes.pooled(name))}
figures.variations_figure(studies) if studies else None

# %% [markdown]
# **The whole loop**, where this scale has it: return of stochastic real episodes against real steps, all seeds.

# %%
figures.returns_figure(result, config.environments) if config.environments else None

# %% [markdown]
# ## 7 Explore
#
# **The bound.** More steps, more data, more patience; and the checkbox that makes states come back.

# %%
figures.bounds_widget()

# %% [markdown]
# **The loss of one sample.** Find the dead zone: raise $\sqrt U$ until the best $\delta$ jumps to 0.

# %%
figures.loss_widget()

# %% [markdown]
# **Where the policy moved.** Arrows of the real steps, three times enlarged: green ends nearer to the goal, red farther from it.
# Choose an arm and the number of updates.

# %%
figures.change_widget(maps) if maps else None

# %% [markdown]
# **How much data does caution replace?** The same task with more recorded episodes on the left, and seven on the right as
# always. 24 seeds at every amount, all from the records.
#
# - $\alpha=0$ improves 7 of 24 policies with one episode on the left, then 16, 14, 18, and 23 with sixteen [.80, .99]; $\alpha=2$
#   improves 23 with every amount up to eight, and then all. Data close the gap: with sixteen episodes $\alpha=0$ improves as many
#   of the seeds as $\alpha=2$ does with one (and gains more on average), but the worst of the 24 still loses 1.5.
# - **The best $\alpha$ falls with data.** By mean gain it is 2 with one episode (+.80), 1 with two and four, .5 or 1 with
#   eight, and .5 with sixteen: +2.13 against +1.49 for $\alpha=2$. The official code's .5, too weak at first, is then the best
#   of the five. Too much caution costs, and costs more the better the models are.
# - **Knowing where matters least where all is known.** Shuffled penalties improve 14 of 24 with one episode, and 23 with
#   sixteen: once the models are good nearly everywhere, any restraint will do.
# - It is not the pace: a quarter of the step size leaves $\alpha=0$ at 7 of 24. Nor is it the balance alone: two episodes on each
#   side give 9 of 24 with $\alpha=0$, and 22 with $\alpha=2$.

# %%
amounts = scenes.by_left()
figures.data_figure(amounts) if amounts else print("There is no record of these studies here:", scenes.DATA_COMMAND)

# %% [markdown]
# Move the amount of data. Blue: $P(\text{improve})$ against $\alpha$; grey: what it was with one episode; orange: the penalties of
# $\alpha=2$ in other places.

# %%
figures.data_widget(amounts)

# %% [markdown]
# ## 8 Verdict
#
# This run, one seed (of eight policies each). `labkit claims pombu` shows the recorded runs, with intervals over seeds.

# %%
show.ledger(paper.verdicts(result, scale))

# %%
# NBVAL_CHECK_OUTPUT
print("\n".join(paper.agreement(result, scale)))

# %% [markdown]
# **What did not work** [ours]. Kept, so that nobody repeats it.
#
# - *A detour round a sticky patch*: certain and imaginary gain lie in the same direction (cut the corner), and caution shrinks
#   both alike. Eight settings, no difference between the arms.
# - *Pendulum swing-up from a poor first policy*: the models are pessimistic, there is nothing to exploit, and $\alpha$ only slows.
#   Any rough model helps a policy that is bad enough.
# - *This task with more slack on the right and smaller steps*: every arm improves in all seeds; $\alpha$ shows in the spread only.
# - *Calibration on the point task with a drift that depends on the state*: rank correlation near 0 at every amount of data.
# - *Calibrated uncertainty from learned models*: see above. $\sqrt U$ ranks, it does not measure.
# - Not shown at this scale at all: the whole loop with new data, the exploration bonus, the asymptote. That is what `gpu` and
#   `full` are for.

# %% [markdown]
# ## 9 Your turn
#
# Fill in a cell and run it: the check says which property fails. The solution is in the folded cell below each.

# %% [markdown]
# **Fill in: the uncertainty Bellman equation.** From local terms `u` (h, s, a), mean `transitions` (h, s, a, next) and `policy`
# (h, s, a), NumPy arrays all, to $U$. There is nothing after the last step.

# %% tags=["exercise"]
my_bellman = None  # a function (u, transitions, policy, gamma) -> U

paper.exercise("bellman").check(my_bellman)


# %% jupyter={"source_hidden": true} tags=["solution"]
def uncertainty_bellman(u, transitions, policy, gamma):
    total = u.copy()
    for h in reversed(range(len(u) - 1)):
        following = (policy[h + 1] * total[h + 1]).sum(-1)  # the mean over the next action
        total[h] = u[h] + gamma**2 * transitions[h] @ following
    return total


paper.exercise("bellman").check(uncertainty_bellman)

# %% [markdown]
# **Predict, then run.** The variance over $K$ models is divided by $K$. What share of the true variance is that on average, for
# $K=2$, 5 and 20?

# %% tags=["exercise"]
my_shares = None  # three numbers

paper.exercise("bias").check(my_shares)

# %% jupyter={"source_hidden": true} tags=["solution"]
# (K - 1) / K: the mean that is subtracted was fitted to the same K numbers; `bessel=True` divides by K - 1
paper.exercise("bias").check((0.5, 0.8, 0.95))

# %% [markdown]
# **Find the bug.** What the official code does to $U$. Multiply all rewards by 10 in your head. A function `(u, advantage)` that
# returns $\sqrt U$ in units of the standardised advantage is asked for; `advantage` is raw.

# %% tags=["exercise"]
viz.show_source(exercises.official_scaling)
my_scaling = None  # a function (u, advantage) -> sqrt(U)

paper.exercise("scaling").check(my_scaling)


# %% jupyter={"source_hidden": true} tags=["solution"]
def scale_free(u, advantage):
    return (u / advantage.var(correction=0)).sqrt()  # of the raw advantages: u is quadratic in the unit of reward


paper.exercise("scaling").check(scale_free)

# %% [markdown]
# **Fill in: the dead zone.** One sample with advantage `A` and $\sqrt U$. Which $\delta$ in $[-\epsilon,\epsilon]$ minimises (5)? (Of several,
# the one nearest to 0.)

# %% tags=["exercise"]
my_step = None  # a function (advantage, sqrt_u, alpha, clip) -> delta

paper.exercise("dead-zone").check(my_step)


# %% jupyter={"source_hidden": true} tags=["solution"]
def step(advantage, sqrt_u, alpha, clip):
    if abs(advantage) <= alpha * sqrt_u:
        return 0.0  # the penalty's slope beats the gain's
    return clip if advantage > 0 else -clip  # piecewise linear: all or nothing


paper.exercise("dead-zone").check(step)

# %% [markdown]
# **Fill in: what came next.** Luis et al. (2023) close the gap. Write the local term $w(h,s)$ with which
# $U^h(s)=w^h(s)+\gamma^2\,\mathbb E_{\pi,\bar P}U^{h+1}$ is $\mathrm{Var}_p[V]$ itself:
# $w=\gamma^2\{\mathrm{Var}_{a,s'\sim\pi,\bar P}[\bar V]-\mathbb E_p\mathrm{Var}_{a,s'\sim\pi,P}[V_p]\}$ for known rewards. Given are `v_mean`
# (h + 1, s), `mean` (h, s, a, next), `policy`, and from sampled models `models_v` (n, h + 1, s) and `models` (n, h, s, a, next).

# %% tags=["exercise"]
my_local = None  # a function (v_mean, mean, policy, models_v, models, gamma) -> w

paper.exercise("exact").check(my_local)


# %% jupyter={"source_hidden": true} tags=["solution"]
def local_term(v_mean, mean, policy, models_v, models, gamma):
    def spread(transitions, following):
        reached = (policy[..., None] * transitions).sum(-2)  # over action and next state
        return (reached * following[..., None, :] ** 2).sum(-1) - (reached * following[..., None, :]).sum(-1) ** 2

    return gamma**2 * (spread(mean, v_mean[1:]) - spread(models, models_v[:, 1:]).mean(0))


paper.exercise("exact").check(local_term)

# %% [markdown]
# **Ablation: how cautious?** Choose an arm `alpha-A`. Over four seeds the mean real gain must be at least .30, and at most 2.50 of
# what the models claim may be illusion. Too little caution fails one bar, too much the other.

# %% tags=["exercise"]
my_arm = None  # such as "alpha-0.25"

paper.exercise("caution").check(my_arm)

# %% jupyter={"source_hidden": true} tags=["solution"]
paper.exercise("caution").check("alpha-3")

# %% [markdown]
# **Predict, then look.** Of 1, 2, 4, 8 and 16 episodes on the left: what is the *least* with which $\alpha=0$ improves at least
# half of the seeds? And with sixteen, which $\alpha$ of 0, .5, 1, 2 and 4 gains most on average? (The records decide.)

# %% tags=["exercise"]
my_amounts = None  # two numbers: an amount of episodes, and an alpha

paper.exercise("data").check(my_amounts)

# %% jupyter={"source_hidden": true} tags=["solution"]
# twice the data help half of the seeds; and where data are plenty the official code's alpha is the best of the five
paper.exercise("data").check((2, 0.5))

# %% [markdown]
# **Open.** Put the deviation of members that are followed to the end (the orange curves) into (5) in place of $\sqrt U$: what is the
# best $\alpha$ then? Sixteen episodes on the left do not quite make $\alpha=0$ as safe as $\alpha=2$: how many do (`Zone(left=...)` and
# `Setting(episodes=...)`)? What does $\sqrt U$ become when members predict a variance of their own (`gaussian_members`)?

# %% [markdown]
# ## 10 Take it home, and full scale
#
# **Your own environment.** Any of gymnasium's kind with real-valued actions: an id or the environment itself, actions between any
# finite bounds, episodes that end by themselves or because time is up. Vectors are observed, no pictures; what else cannot be
# learned is refused by name.
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
# Here a pole on a cart that is balanced by MuJoCo, of which nothing is told: each step pays 1 until the pole has fallen. Small
# models and few epochs, to be done in seconds; `labkit.papers.pombu.POMBU` without options takes the official code's sizes.

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
print(f"{before:.0f} steps at first, {mean_length(model, pole):.0f} after {model.steps} real ones")

# %% [markdown]
# **The paper's setting.** `gpu`: half-cheetah, horizon 200, POMBU against MEPPO, four seeds at once. `full`: the official code's setting on five MuJoCo
# tasks against MEPPO, ME-TRPO, MBPO, PPO and SAC.
#
# ```
# labkit run pombu --scale gpu
# torchrun --nproc-per-node 8 -m labkit train pombu --scale full         # tasks and algorithms are dealt out
# labkit train pombu --scale full -p observation_noise 0.1               # the noise study
# labkit export runs/pombu/NAME my-policy                                # a run's policy, for POMBU.load
# labkit record pombu --scale lesson --seeds 0,1,2 --label variations -p studies zone-observation-noise,zone-reward-x0.1,zone-reward-x0.1-official,zone-reward-x10,zone-reward-x10-official
# labkit record pombu --scale lesson --seeds 0,1,2 --label data -p studies zone-left-2,zone-left-4,zone-left-8,zone-left-16,zone-more-data,zone-balanced,zone-slow
# ```

# %%
show.scales(paper.configs)

# %% [markdown]
# **Which scaling, and what to expect of $\alpha=.5$.** The official code's $\alpha=.5$ was chosen while its division did nothing
# (section 4). So `gpu` and `full` leave $U$ as it does (`u_scaling="official"`); `-p u_scaling paper`, or the algorithm
# `pombu-scaled` beside `pombu`, divides. Neither moves much at first. Half-cheetah in small [ours]: one seed, models of width 200,
# 50 rollouts, 10 updates of step size 3e-4 an iteration, episodes by the policy itself; ranges over the iterations.
#
# | | real steps | $\sqrt U$ in (5) | $\lvert A\rvert<\alpha\sqrt U$ | KL of an update | return, stochastic | with the mean action |
# |---|---|---|---|---|---|---|
# | $\alpha=0$ | 14,000 | .26–.35 | – | .0038–.0044 | −82 → −35 | −1 → −43 |
# | $\alpha=.1$, official | 6,000 | .36–.39 | .03 | .0029–.0032 | −70 → −55 | −2 → +6 |
# | $\alpha=.5$, official | 14,000 | .28–.47 | .10–.19 | .00007–.0005 | −62 → −55 | −0.4 → −0.7 |
# | $\alpha=.5$, paper | 8,000 | .37–.53 | .14–.21 | .00002–.0003 | −81 → −100 | −0.4 → −0.1 |
#
# The dead zone of single samples is small, and yet the policy stands still. The reason is in (5): the penalty counts every
# $\lvert\delta\rvert$, the gain only that part of $A$ which goes *with* $\delta$. For a small step in some direction the gain is the
# correlation of $A$ with the change of log-probability, the penalty about $.8\,\alpha\sqrt U$ (normal $\delta$, standardised $A$). Advantages
# with $\lambda=1$ over 200 steps are mostly the luck of the other steps: a linear fit of $A$ on action noise times state, judged on
# fresh samples, correlates at .01 ($\lambda=.95$: .04) where $.8\cdot.5\cdot\sqrt U$ asks for .11 to .15. So here $\alpha=.5$ refuses nearly
# every direction, good and bad, until data make $\sqrt U$ several times smaller. It does shrink: with 20,000 real steps before the
# first update it begins at .25 instead of .34, and an update moves $\alpha=.5$ by a KL of .001. `kl`, `dead_zone`, `sqrt_u` and
# `sigmas` are logged in every run: look at them before believing a flat curve. (Returns of five episodes by one seed prove
# nothing; $\alpha=0$ moves, and its models promised +13.)

# %% [markdown]
# **Recorded runs** are listed by `labkit claims pombu`; each record in `data/records/pombu/` holds its config, seeds, versions,
# hardware and command.
#
# **What is known, and what is our reading.**
#
# - [paper]: an upper bound of the uncertainty in $Q$; a conservative objective that improves with high probability; better sample
#   efficiency and asymptote than the policy optimisation of its time; robustness to noise. Results are curves; no figure is known
#   to us, and none is quoted.
# - [peer], MBPO here: members with a learned variance, rollouts that grow from $k_{\min}$ to $k_{\max}$ by the task's schedule; not as
#   there: five members of our widths, all used, and no real transitions in SAC's batches.
# - [official code]: the estimate (4) with divisor $K$, the objective (5) and its alternatives, exploration by mixtures, the whole
#   table of hyper-parameters (half-cheetah only), rewards with the velocity *before* the step.
# - [ours], beside the official code: its members are validated after epochs 1, 6, ... on at most 20,000 rows, ours after 5, 10, ...
#   on all that are held out. `POMBU` begins imagined episodes in recorded starts and clips no reward; the experiments do as the
#   official code, which resets its simulator for nothing and clips rewards at 5.
# - [ours]: the derivation above, the closed form of the true variance, the Zone task with its controls, the point task's controller,
#   the reading that $U$ was meant to be divided by the raw variance of $A$.
# - [peer]: O'Donoghue et al. 2018 (the bound before), Luis et al. 2023 (the exact equation, which is what came next), Janner et al.
#   2019 (MBPO).
