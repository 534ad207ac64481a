"""The policy, V and U of every copy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.rl.networks import StackedMLP

STATE_CLIP = 10.0  # bound of a normalised state  [ours]


class Normalized(nn.Module):
    """Networks that see (s - mean) / std of their copy's real data; the statistics stand still within an iteration."""

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, copies: int, observation: int) -> None:
        super().__init__()
        self.register_buffer("state_mean", torch.zeros(copies, 1, observation))
        self.register_buffer("state_std", torch.ones(copies, 1, observation))

    @torch.no_grad()
    def normalize_by(self, mean: Float[Tensor, "copies observation"], std: Float[Tensor, "copies observation"]) -> None:
        self.state_mean.copy_(mean[:, None])
        self.state_std.copy_(std[:, None])

    def normalized(self, state: Float[Tensor, "copies batch observation"]) -> Float[Tensor, "copies batch observation"]:
        return ((state - self.state_mean) / self.state_std).clamp(-STATE_CLIP, STATE_CLIP)


class GaussianPolicy(Normalized):
    """pi(a|s) = N(mu(s), diag(sigma^2)), one a copy: a linear mean that starts near 0, sigma without state.

    forward: mean (copies, batch, action) and log sigma (copies, 1, action).

    Args:
        seeds: one a copy; copies of one seed start equal.
    """

    def __init__(self, observation: int, action: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        if not seeds:
            raise InputError("one seed a copy is needed, and at least one copy.")
        super().__init__(len(seeds), observation)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.mean = StackedMLP(
            len(seeds), (observation, *hidden, action), "tanh", final_gain=0.01, generators=generators
        )
        self.log_std = nn.Parameter(torch.zeros(len(seeds), 1, action))

    def forward(
        self, state: Float[Tensor, "copies batch observation"]
    ) -> tuple[Float[Tensor, "copies batch action"], Float[Tensor, "copies 1 action"]]:
        return self.mean(self.normalized(state)), self.log_std


class Critics(Normalized):
    """V_phi(s) and U_phi(s), two networks a copy.  [official code]"""

    def __init__(self, observation: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__(len(seeds), observation)
        sizes, copies = (observation, *hidden, 1), len(seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        # near 0 at first [ours]: what V does not know yet must not look like disagreement of the models
        self.value_net = StackedMLP(copies, sizes, "tanh", final_gain=0.1, generators=generators)
        self.uncertainty_net = StackedMLP(copies, sizes, "tanh", final_gain=0.1, generators=generators)

    def value(self, state: Float[Tensor, "copies batch observation"]) -> Float[Tensor, "copies batch"]:
        return self.value_net(self.normalized(state))[..., 0]

    def uncertainty(self, state: Float[Tensor, "copies batch observation"]) -> Float[Tensor, "copies batch"]:
        """May be negative: `propagate` counts that as 0."""
        return self.uncertainty_net(self.normalized(state))[..., 0]
