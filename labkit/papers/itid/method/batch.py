"""Data with their bookkeeping: content, label, nuisance, environment, image and weight of each datum."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from labkit.errors import InputError
from labkit.papers.itid.method.renderers import Images, Renderer

UNKNOWN = -1  # the nuisance of data of which none is known


@dataclass(frozen=True, eq=False)
class Batch:
    """Data and how they were generated: images[i] = renderer(content[i], nuisance[i]) unless `edited`.

    content, nuisance: what the renderer takes; a nuisance is a number as a rule, but may be a photograph (`Cutouts`).
    labels: numbers of classes, or whatever the loss takes: modifiers leave them as they are.
    weights: of each datum in the loss. second_labels, mix: mixup's second label, and the weight of the first one.
    partner: second views of the same data, for the consistency penalty.
    """

    content: Shaped[Tensor, "n *content"]
    labels: Shaped[Tensor, "n *label"]
    nuisance: Shaped[Tensor, "n *nuisance"]
    environment: Int[Tensor, " n"]
    images: Images
    weights: Float[Tensor, " n"]
    renderer: Renderer
    second_labels: Shaped[Tensor, "n *label"] | None = None
    mix: Float[Tensor, " n"] | None = None
    partner: Images | None = None
    edited: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def render(
        cls, content: Tensor, labels: Tensor, nuisance: Tensor, environment: Tensor, renderer: Renderer
    ) -> "Batch":
        """Render the images; all weights are 1.

        Raises:
            InputError: the parts differ in length, or a nuisance does not exist.
        """
        lengths = {len(content), len(labels), len(nuisance), len(environment)}
        if len(lengths) > 1:
            raise InputError(f"content, labels, nuisance and environment must have one length; got {sorted(lengths)}.")
        images = renderer(content, nuisance)
        return cls(content, labels, nuisance, environment, images, unit_weights(images), renderer)

    def take(self, index: Int[Tensor, " m"]) -> "Batch":
        return replace(
            self,
            content=self.content[index],
            labels=self.labels[index],
            nuisance=self.nuisance[index],
            environment=self.environment[index],
            images=self.images[index],
            weights=self.weights[index],
        )

    def to(self, device: torch.device) -> "Batch":
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
        return replace(self, **moved)

    def known_nuisance(self) -> Shaped[Tensor, "n *nuisance"]:
        """The nuisance of each datum.

        Raises:
            InputError: it is not known.
        """
        if not self.nuisance.is_floating_point() and len(self) and int(self.nuisance.min()) == UNKNOWN:
            raise InputError(
                "the nuisance of these data is not known: let the loader yield (image, label, nuisance), or use Edit, "
                "which needs none."
            )
        return self.nuisance

    def rerender(self, nuisance: Shaped[Tensor, "n *nuisance"]) -> "Batch":
        """The same contents with another nuisance.

        Raises:
            InputError: the images were edited before: rendering anew would undo that.
        """
        if self.edited:
            raise InputError("rendering anew would undo the edit before it; put Swap or Uniform first in the chain.")
        return replace(self, nuisance=nuisance, images=self.renderer(self.content, nuisance))


def unit_weights(images: Images) -> Float[Tensor, " n"]:
    """A weight of 1 for each image, in the precision that a loss has."""
    return images.new_ones(len(images), dtype=torch.float64 if images.dtype == torch.float64 else torch.float32)
