"""Algorithm IE on anybody's data: a modifier behind a DataLoader, on samples or on batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from labkit.errors import InputError
from labkit.papers.itid.method.batch import UNKNOWN, Batch, unit_weights
from labkit.papers.itid.method.edits import EDITS, own_generator
from labkit.papers.itid.method.modifiers import Chain, DistributionModifier, Resample
from labkit.papers.itid.method.renderers import OwnRenderer, Photographs, Renderer

FIELDS = ("images", "labels", "nuisance", "environment", "weights", "second_labels", "mix", "partner")
SET_BY_MODIFIERS = FIELDS[4:]


class BatchModifier:
    """A modifier as the collate function of any DataLoader, or called on the batches of any loader, on any device.

        modify = BatchModifier(Edit(edits.shift))
        for images, labels in DataLoader(dataset, batch_size=64, shuffle=True, collate_fn=modify.collate): ...
        for batch in another_loader: images, labels = modify(*batch)

    A sample is (image, label), (image, label, nuisance) or (image, label, nuisance, environment). Images are uint8 or
    floating point of any precision, with any number of channels and any size, and come out as they went in.

    Randomness is torch's own, which a DataLoader seeds apart in each of its workers: `torch.manual_seed` repeats it.
    `Adaptive` is called on batches, in the process that trains: a worker has a copy that learns nothing.

    Args:
        renderer: g(content, nuisance), a function or a `Renderer`, where images can be rendered with another nuisance;
            the first member of a sample is the content then. Swap and Uniform need it, Edit and Weight do not.
        fields: what a batch holds in the end, of images, labels, nuisance, environment, weights (each datum's in the
            loss), second_labels and mix (mixup's), partner (the second view of `Paired`).

    Raises:
        InputError: there is no such field, or the modifier has no use here.
    """

    def __init__(
        self,
        modifier: DistributionModifier,
        renderer: Renderer | Callable[[Tensor, Tensor], Tensor] | None = None,
        fields: Sequence[str] = ("images", "labels"),
    ) -> None:
        if isinstance(fields, str) or set(fields) - set(FIELDS):
            raise InputError(f"fields are some of {', '.join(FIELDS)}; got {fields!r}.")
        members = modifier.modifiers if isinstance(modifier, Chain) else (modifier,)
        for member in members:
            if isinstance(member, type) or member in EDITS.values():
                name = getattr(member, "__name__", "")
                right = f"{name}()" if isinstance(member, type) else f"Edit(edits.{name})"
                raise InputError(f"{name} is no modifier; write {right}.")
        if any(isinstance(member, Resample) for member in members):
            raise InputError(
                "Resample draws from a training set in memory. Give the DataLoader "
                "sampler=WeightedRandomSampler(balancing_probabilities(labels, nuisance), len(labels)) instead."
            )
        self.modifier, self.fields = modifier, tuple(fields)
        self.renderer = renderer if renderer is None or isinstance(renderer, Renderer) else OwnRenderer(renderer)

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, ...]:
        """Samples of a Dataset as one modified batch.

        Raises:
            InputError: samples of another form, or that cannot be stacked; see `__call__` for the rest.
        """
        if not samples or not isinstance(samples[0], tuple | list) or not 2 <= len(samples[0]) <= 4:
            raise InputError(
                "a sample must be (image, label), (image, label, nuisance) or (image, label, nuisance, environment); "
                f"got {_form(samples)}. For samples of another form call the BatchModifier on what the loader yields: "
                "modify(batch['image'], batch['label'])."
            )
        try:
            members = default_collate(list(samples))
        except (TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"a sample's members must be numbers, or tensors of one size in all samples: {reason}"
            ) from None
        return self(*members)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        nuisance: Tensor | None = None,
        environment: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """A batch, modified: the tensors that `fields` names.

        Raises:
            InputError: the batch is not what the modifier needs, or the modifier sets what `fields` leaves out.
        """
        batch = self._as_batch(images, labels, nuisance, environment)
        modified = self.modifier(batch, generator or own_generator())
        for name in SET_BY_MODIFIERS:
            if name not in self.fields and getattr(modified, name) is not getattr(batch, name):
                raise InputError(f"this modifier sets {name}, and they would be lost: name them in `fields`.")
        chosen = {name: getattr(modified, name) for name in self.fields}
        for name, value in chosen.items():
            if value is None:
                raise InputError(f"`fields` asks for {name}, which this modifier does not make.")
        return tuple(chosen.values())

    def _as_batch(self, images: Tensor, labels: Tensor, nuisance: Tensor | None, environment: Tensor | None) -> Batch:
        for name, value in {
            "images": images,
            "labels": labels,
            "nuisance": nuisance,
            "environment": environment,
        }.items():
            if value is not None and not isinstance(value, Tensor):
                raise InputError(f"{name} must be a tensor; got a {type(value).__name__}.")
            if value is not None and (not value.ndim or len(value) != len(images)):
                raise InputError(f"{name} must have one entry per image; got {tuple(value.shape)} for {len(images)}.")
        if self.renderer is not None and nuisance is None:
            raise InputError("a renderer needs the nuisance, too: let the loader yield (content, label, nuisance).")
        unknown = torch.full((len(images),), UNKNOWN, device=images.device)
        z = unknown if nuisance is None else nuisance
        e = unknown if environment is None else environment
        rendered = images if self.renderer is None else self.renderer(images, z)
        if rendered.ndim != 4:
            raise InputError(
                f"images must be (n, channels, height, width); got {tuple(rendered.shape)}. Grey ones need a channel, "
                "too: images[:, None]."
            )
        renderer = self.renderer or Photographs(0)
        return Batch(images, labels, z, e, rendered, unit_weights(rendered), renderer)


def _form(samples: Sequence[object]) -> str:
    if not samples:
        return "no sample"
    first = samples[0]
    return f"a tuple of {len(first)}" if isinstance(first, tuple | list) else f"a {type(first).__name__}"
