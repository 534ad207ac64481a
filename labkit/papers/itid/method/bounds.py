"""The theorems as functions, with their proofs. Everything here is our own formulation, faithful to the abstract only.

Notation: S a sample of n independent data with laws P_T x Q_i; Rhat the mean loss on it; Q* the target's nuisance law;
d the probability to be wrong; H a finite class. Losses lie in [0, 1].
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method.measures import Losses, PerHypothesis
from labkit.papers.itid.method.task import NuisanceLaw, Task


def _require(n: int, d: float, classes: int = 1) -> None:
    if n < 1 or classes < 1:
        raise InputError(f"a bound needs at least one datum and one hypothesis; got n = {n}, |H| = {classes}.")
    if not 0 < d < 1:
        raise InputError(f"d, the probability to be wrong, must lie between 0 and 1; got {d}.")


# -- Theorem 2: finite samples ----------------------------------------------------------------------------------------


def deviation(n: int, d: float, hypotheses: int) -> float:
    """sqrt(ln(|H| / d) / (2n)): Hoeffding and a union bound over |H| hypotheses."""
    _require(n, d, hypotheses)
    return math.sqrt(math.log(hypotheses / d) / (2 * n))


def iid_bound(empirical: PerHypothesis, n: int, d: float) -> PerHypothesis:
    """Rhat + deviation: what holds when training and test have one law, and is blind to the nuisance."""
    return empirical + deviation(n, d, len(empirical))


def itid_bound(empirical: PerHypothesis, iotas: PerHypothesis, n: int, d: float) -> PerHypothesis:
    """Theorem 2. With probability >= 1 - d, for all h in H at once:

        R_Q*(h) <= Rhat_S(h) + (1/n) sum_i iota(h; Q_i, Q*) + sqrt(ln(|H| / d) / (2n))

    *Proof.* E Rhat = (1/n) sum_i R_Q_i(h). Hoeffding's inequality needs independence, **not** identity; a union bound
    makes it hold for all of H; Theorem 1 turns each R_Q_i into R_Q*. The Q_i must not depend on S.

    Args:
        iotas: (1/n) sum_i iota(h; Q_i, Q*), for each h.
    """
    return empirical + iotas + deviation(n, d, len(empirical))


def rademacher_linear(norm_bound: float, weight_bound: float, n: int) -> float:
    """Rad_n of { x -> <w, x> : |w| <= B } with |x| <= R: at most B R / sqrt(n), by Cauchy-Schwarz and Jensen."""
    if norm_bound < 0 or weight_bound < 0:
        raise InputError(f"norms are not negative; got R = {norm_bound}, B = {weight_bound}.")
    _require(n, 0.5)
    return weight_bound * norm_bound / math.sqrt(n)


def itid_bound_linear(
    ramp_risk: float, iota: float, margin: float, norm_bound: float, weight_bound: float, n: int, d: float
) -> float:
    """Theorem 2 for an infinite class, linear scores: Rhat_ramp + iota + 2 B R / (margin sqrt n) + sqrt(ln(1/d)/(2n)).

    The ramp loss min(1, max(0, 1 - y s / margin)) lies above the 0-1 loss and is 1/margin-Lipschitz, so that
    contraction gives Rad(loss o H) <= Rad(H) / margin. McDiarmid's inequality and symmetrisation with a ghost sample
    of the same laws need independence only. `iota` is that of the ramp loss.
    """
    _require(n, d)
    if margin <= 0:
        raise InputError(f"the margin of the ramp loss is positive; got {margin}.")
    complexity = 2 * rademacher_linear(norm_bound, weight_bound, n) / margin
    return ramp_risk + iota + complexity + math.sqrt(math.log(1 / d) / (2 * n))


# -- Theorem 3: invariance shrinks the class --------------------------------------------------------------------------


def penalty_ratio(contents: int, nuisances: int, labels: int, d: float) -> float:
    """Theorem 3. Penalty of the invariant class over that of all hypotheses, both finite:

        sqrt( ln(|Y|^|C| / d) / ln(|Y|^(|C||Z|) / d) ), about 1 / sqrt(|Z|)

    *Proof.* On an invariant class the loss is a function of (c, y): iota = 0 for all laws, and the class is one of maps
    from C, of which there are |Y|^|C|, instead of |Y|^(|C||Z|).
    """
    _require(1, d)
    invariant, every = contents * math.log(labels), contents * nuisances * math.log(labels)
    return math.sqrt((invariant - math.log(d)) / (every - math.log(d)))


# -- Theorem 4: invariance is necessary -------------------------------------------------------------------------------


def extreme_laws(losses: Float[Tensor, "contents labels nuisances"]) -> tuple[NuisanceLaw, NuisanceLaw]:
    """Theorem 4. Two laws whose risks differ by exactly Omega(h): point masses where the loss is largest and least.

    *Proof.* sum_z (Q - Q') f <= max f - min f for each (c, y), with equality for these. Hence h has equal risk under
    all laws if and only if Omega(h) = 0. (A constant h has Omega = 0 and is useless: invariance is not accuracy.)
    """
    count = losses.shape[-1]
    return NuisanceLaw.points(losses.argmax(-1), count), NuisanceLaw.points(losses.argmin(-1), count)


def label_rule_gap(content: Float[Tensor, " contents"], eta: Tensor, eta2: Tensor) -> float:
    """E_c |eta_T(c) - eta_T'(c)|, a further term of Theorem 1 where tasks differ in P(y = 1 | c) = eta(c).

    This is the third reading of ITID, with a task T_i for each datum: z is the number of the task as long as all tasks
    have one eta. No invariance removes the term.
    """
    return float((content * (eta - eta2).abs()).sum())


# -- Theorem 5: why modified data make ERM invariant ------------------------------------------------------------------


def bayes_log_odds(joint: Float[Tensor, "contents two nuisances"]) -> Float[Tensor, "contents nuisances"]:
    """Theorem 5. logit P(y=1 | c, z) = logit P(y=1 | c) + ln[Q(z|1) / Q(z|0)], where Q depends on y only.

    *Proof.* Bayes' rule; P(c) cancels. The shortcut term vanishes for all z if and only if z is independent of y. On
    data modified so that it is, the Bayes classifier is P(y|c): invariant, and optimal among invariant ones.
    """
    return (joint[:, 1] / joint[:, 0]).log()


def two_colour_accuracies(rho: float, noise: float, test_rho: float) -> tuple[float, float]:
    """Accuracy in training and test of the Bayes classifier of coloured digits, by enumeration.

    Content agrees with the label with probability 1 - noise, colour with probability rho in training and test_rho in
    the test. The classifier follows the colour if and only if rho > 1 - noise (for rho >= 1/2): a phase transition.

    Raises:
        InputError: something that is no probability.
    """
    for name, value in (("rho", rho), ("noise", noise), ("test_rho", test_rho)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is a probability, between 0 and 1; got {value}.")
    joint = _two_colour_joint(rho, noise)
    prediction = joint[1] > joint[0]
    test = _two_colour_joint(test_rho, noise)
    in_training, in_test = (float(torch.where(prediction, law[1], law[0]).sum()) for law in (joint, test))
    return in_training, in_test


def _two_colour_joint(rho: float, noise: float) -> Float[Tensor, "label content colour"]:
    """P(y, c, z) for balanced labels, y = 0, 1."""
    content = torch.tensor([[1 - noise, noise], [noise, 1 - noise]], dtype=torch.float64)
    colour = torch.tensor([[rho, 1 - rho], [1 - rho, rho]], dtype=torch.float64)
    return 0.5 * content[:, :, None] * colour[:, None, :]


# -- Theorem 6: the price of reweighting ------------------------------------------------------------------------------


def independence_weights(joint: Float[Tensor, "labels nuisances"]) -> Float[Tensor, "labels nuisances"]:
    """w(y, z) = p(y) p(z) / p(y, z): under these weights z is independent of y. Empty cells get weight 0.

    `joint` may hold counts. Overlap, p(y, z) > 0 wherever p(y) p(z) > 0, is needed for E w = 1.
    """
    p = joint / joint.sum()
    product = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    return torch.where(p > 0, product / p.clamp(min=torch.finfo(p.dtype).tiny), torch.zeros_like(p))


def second_moment(joint: Float[Tensor, "labels nuisances"]) -> float:
    """Theorem 6. E w^2 = sum p(y)^2 p(z)^2 / p(y, z) = 1 + chi^2; n / E w^2 data are left of n."""
    p = joint / joint.sum()
    return float((p * independence_weights(p) ** 2).sum())


def second_moment_aligned(rho: float, classes: int) -> float:
    """E w^2 in closed form when z = y with probability rho, else uniform over the K classes."""
    if not 0 <= rho < 1:
        raise InputError(f"rho must lie in [0, 1): with rho = 1 no weight can help; got {rho}.")
    same, other = (rho + (1 - rho) / classes) / classes, (1 - rho) / classes**2
    return classes**-3 / same + (classes - 1) * classes**-3 / other


def effective_sample_size(weights: Float[Tensor, " n"]) -> float:
    """n_eff = (sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def overlap_alarm(weights: Float[Tensor, " n"]) -> bool:
    """True where the mean weight of a sample is below .95: cells that the product law needs are empty."""
    return float(weights.mean()) < 0.95


# -- Theorem 7: what augmentation does to the variance ----------------------------------------------------------------


def variance_split(task: Task, losses: Losses, q: NuisanceLaw) -> tuple[PerHypothesis, PerHypothesis]:
    """Theorem 7. Var f = Var(E[f | c, y]) + E Var(f | c, y); averaging over nuisances keeps only the first term."""
    mean = (q.table * losses).sum(-1)
    within = ((q.table * losses**2).sum(-1) - mean**2 * q.table.sum(-1)).clamp(min=0)
    total_mean = torch.einsum("cy,hcy->h", task.law, mean)
    between = torch.einsum("cy,hcy->h", task.law, (mean - total_mean[:, None, None]) ** 2)
    return between, torch.einsum("cy,hcy->h", task.law, within)


# -- Theorem 8 and the certificate ------------------------------------------------------------------------------------


def rerendered_bound(rerendered: PerHypothesis, iotas: PerHypothesis, n: int, d: float) -> PerHypothesis:
    """Theorem 8, the guarantee for training on re-rendered data. With probability >= 1 - d, for all h and every Q*:

        R_Q*(h) <= (1/n) sum_i E_(z~U) l(h(g(c_i, z)), y_i) + iota(h; U, Q*) + sqrt(ln(|H| / d) / (2n))

    *Proof.* The summands depend on (c_i, y_i) only: they are IID with mean R_U(h). Hoeffding, union bound, Theorem 1.
    The training laws Q_i have *disappeared*. U must be fixed without looking at S; donors from a permutation of S are
    dependent, so certify with a held-out pool of donors.
    """
    return rerendered + iotas + deviation(n, d, len(rerendered))


def certificate(holdout_risk: float, delta: float, n: int, d: float) -> float:
    """A ceiling for the target risk of one trained network, from a fresh hold-out of size n:

        R_Q*(h) <= Rhat_hold(h) + deltahat(h; Q, Q*) + 2 sqrt(ln(2/d) / (2n))      with probability >= 1 - d

    Raises:
        InputError: risk or delta outside of [0, 1].
    """
    _require(n, d)
    if not 0 <= holdout_risk <= 1 or not 0 <= delta <= 1:
        raise InputError(f"risk and delta lie between 0 and 1; got {holdout_risk} and {delta}.")
    return holdout_risk + delta + 2 * math.sqrt(math.log(2 / d) / (2 * n))
