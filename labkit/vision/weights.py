"""Weights of a trained network from a file."""

from torch import nn

from labkit.errors import InputError


def load_float_weights(model: nn.Module, path: str) -> None:
    """Weights from a safetensors file, such as another run's `float/weights.safetensors`, into `model`, in place.

    Raises:
        InputError: there is no such file, it cannot be read, or it belongs to another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"float_weights: there is no file '{path}'.") from None
    except OSError as error:
        raise InputError(
            f"float_weights: '{path}' cannot be read ({error}); give a safetensors file, not a folder."
        ) from error
    except (SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"float_weights: '{path}' does not fit the network ({first}).") from error
