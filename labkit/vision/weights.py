"""Weights of a trained network from a file."""

from pathlib import Path

from torch import nn

from labkit import tensor_files
from labkit.errors import InputError


def load_float_weights(model: nn.Module, path: str) -> None:
    """Weights from a safetensors file, such as another run's `float/weights.safetensors`, into `model`, in place.

    labkit's own files are checked against their sum; those of other programs need names and shapes that fit.

    Raises:
        InputError: there is no such file, it is damaged, it belongs to another network, or its numbers are not finite.
    """
    try:
        model.load_state_dict(tensor_files.read_tensors(Path(path)))
    except tensor_files.TensorFileError as error:
        raise InputError(f"float_weights: {error} Give a safetensors file with the network's weights.") from None
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"float_weights: '{path}' does not fit the network ({first}).") from error
