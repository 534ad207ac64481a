"""When a goal of a Fetch or Hand task is reached, for whole batches."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from labkit.errors import InputError

Batch = TypeVar("Batch", Tensor, NDArray[Any])


@dataclass(frozen=True)
class GoalRule:
    """When a goal is reached: the environment's own sparse reward for whole batches, 0 where reached and -1 elsewhere.

    Positions (and fingertips): d = ||achieved - desired||, reached where d < `distance`.
    Objects in the hand have seven numbers, position and unit quaternion: reached where d < `distance` and
    angle < `rotation`, angle = 2 arccos(q_a conj(q_d))_w. This angle is not the same for q and -q, which are one
    rotation [official code]. For pens the rotation about z is ignored (Euler angles, order xyz).

    There the environment's own rule is wrong for a batch: it equates the third *row* of the Euler angles. Here every
    row of a batch is treated as the environment treats a single goal.
    """

    distance: float
    rotation: float | None = None
    uses_position: bool = True
    uses_rotation: bool = True
    ignores_turn_about_z: bool = False

    def is_success(self, achieved: Batch, desired: Batch) -> Batch:
        """True where the goal is reached; (..., goal) -> (...), arrays or tensors as given."""
        first, second = _as_tensors(achieved, desired)
        return _as_given(self._reached(*self._gaps(first, second)), achieved)

    def compute_reward(self, achieved: Batch, desired: Batch) -> Batch:
        """0 where the goal is reached and -1 elsewhere, in single precision."""
        first, second = _as_tensors(achieved, desired)
        gap, angle = self._gaps(first, second)
        if self.rotation is None:  # a gap of exactly the tolerance has reward 0 and is no success [official code]
            return _as_given(-(gap > self.distance).float(), achieved)
        return _as_given(self._reached(gap, angle).float() - 1, achieved)

    def _reached(self, gap: Tensor, angle: Tensor) -> Tensor:
        near = gap < self.distance
        return near if self.rotation is None else near & (angle < self.rotation)

    def _gaps(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and angle between goals, (...) each; an ignored one is 0."""
        nothing = torch.zeros(achieved.shape[:-1], dtype=achieved.dtype, device=achieved.device)
        if self.rotation is None:
            return (achieved - desired).norm(dim=-1), nothing
        gap = (achieved[..., :3] - desired[..., :3]).norm(dim=-1) if self.uses_position else nothing
        if not self.uses_rotation:
            return gap, nothing
        first, second = achieved[..., 3:].double(), desired[..., 3:].double()  # an arccos near 1 needs the digits
        if self.ignores_turn_about_z:
            x, y, _ = euler_from_quaternion(first).unbind(-1)
            z = euler_from_quaternion(second)[..., 2]
            first = quaternion_from_euler(torch.stack([x, y, z], dim=-1))
        cosine = (first * second).sum(-1)  # the scalar part of q_a conj(q_d)
        return gap, 2 * cosine.clamp(-1, 1).arccos()


def euler_from_quaternion(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Angles about x, y, z (each about the axis as turned so far) of the rotation q = (w, x, y, z)."""
    w, x, y, z = (q * (2 / q.square().sum(-1, keepdim=True)).sqrt()).unbind(-1)  # products below are then 2 q_i q_j
    m00, m01, m02 = 1 - (y * y + z * z), x * y - w * z, x * z + w * y
    m10, m11, m12 = x * y + w * z, 1 - (x * x + z * z), y * z - w * x
    m22 = 1 - (x * x + y * y)
    level = (m22.square() + m12.square()).sqrt()
    regular = level > 4 * torch.finfo(torch.float64).eps  # else the x and z axes coincide and x is put to 0
    about_x = torch.where(regular, -torch.atan2(m12, m22), torch.zeros_like(level))
    about_y = -torch.atan2(-m02, level)
    about_z = torch.where(regular, -torch.atan2(m01, m00), -torch.atan2(-m10, m11))
    return torch.stack([about_x, about_y, about_z], dim=-1)


def quaternion_from_euler(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """(w, x, y, z) of the turn about x, then y, then z, in the axes as turned so far: q = q_x q_y q_z."""
    cx, cy, cz = (angles / 2).cos().unbind(-1)
    sx, sy, sz = (angles / 2).sin().unbind(-1)
    return torch.stack(
        [
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ],
        dim=-1,
    )


def goal_rule(task: Any) -> GoalRule:
    """The rule of an (unwrapped) Fetch or Hand environment."""
    if not hasattr(task, "rotation_threshold"):
        return GoalRule(task.distance_threshold)
    return GoalRule(
        task.distance_threshold,
        task.rotation_threshold,
        uses_position=task.target_position != "ignore",
        uses_rotation=task.target_rotation != "ignore",
        ignores_turn_about_z=task.ignore_z_target_rotation,
    )


def _as_tensors(achieved: Any, desired: Any) -> tuple[Tensor, Tensor]:
    if achieved.shape != desired.shape:
        raise InputError(f"achieved and desired goals differ in shape: {achieved.shape} and {desired.shape}")
    return torch.as_tensor(achieved), torch.as_tensor(desired)


def _as_given(result: Tensor, like: Any) -> Any:
    return result if isinstance(like, Tensor) else result.numpy()
