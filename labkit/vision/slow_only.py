"""SlowOnly ResNet-50 (Feichtenhofer et al., SlowFast, ICCV 2019): a 3-D ResNet that keeps time until late.

A ResNet-50 whose kernels are 1 x 3 x 3, with 3 x 1 x 1 in place of the first 1 x 1 x 1 of each block in the last two
stages; nothing strides over time. For detection the last stage does not stride over space: one cell is 16 pixels
[peer code: mmaction2, SlowFast]. Parameters carry the names of pytorchvideo's `slow_r50` blocks' own layout,
`layer{k}.{block}.conv{i}`, after torchvision; weights come from a file of the user's.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labkit import tensor_files
from labkit.errors import InputError


class Bottleneck3d(nn.Module):
    """y = relu(F(x) + shortcut(x)), F = `time` x 1 x 1, 1 x 3 x 3 (strided, dilated), 1 x 1 x 1 up to 4 * `width`."""

    def __init__(self, channels_in: int, width: int, stride: int, dilation: int, time: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, width, (time, 1, 1), padding=(time // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(
            width, width, (1, 3, 3), (1, stride, stride), (0, dilation, dilation), (1, dilation, dilation), bias=False
        )
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        self.relu = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if projects:
            shortcut = nn.Conv3d(channels_in, 4 * width, 1, (1, stride, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(4 * width))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c2 t h2 w2"]:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class SlowOnly(nn.Module):
    """(n, 3, t, h, w) -> (n, 32 * width, t, h / 16, w / 16); 2048 channels at the width of a ResNet-50, 64.

    depths: blocks a stage; (3, 4, 6, 3) is the ResNet-50.
    """

    stride = 16

    def __init__(self, depths: tuple[int, int, int, int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.channels = 32 * width
        self.conv1 = nn.Conv3d(3, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        channels = width
        for k, (depth, stride, dilation, time) in enumerate(
            zip(depths, (1, 2, 2, 1), (1, 1, 1, 2), (1, 1, 3, 3), strict=True)
        ):
            out = width * 2**k
            blocks = [
                Bottleneck3d(channels if b == 0 else 4 * out, out, stride if b == 0 else 1, dilation, time, b == 0)
                for b in range(depth)
            ]
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
            channels = 4 * out
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Float[Tensor, "n 3 t h w"]) -> Float[Tensor, "n c t h2 w2"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
        return x


def load_weights(model: SlowOnly, path: str | Path) -> list[str]:
    """Weights from a safetensors file into `model`, in place; 2-D weights are inflated. Returns what the file lacks.

    A 2-D kernel (o, i, h, w) becomes the middle of a 3-D one, zero before and after: at the start the network is the
    2-D one on each frame [peer code: I3D's inflation puts equal parts; the middle keeps the output exact]. Entries that
    the model has no use for, such as a classifier, are left.

    Raises:
        InputError: no such file, damaged, a shape that does not fit, or nothing in it that the model has.
    """
    try:
        given = tensor_files.read_tensors(Path(path))
    except tensor_files.TensorFileError as error:
        raise InputError(f"weights: {error} Give a safetensors file with the network's weights.") from None
    state = model.state_dict()
    used = {name: _inflated(name, value, state[name]) for name, value in given.items() if name in state}
    if not used:
        raise InputError(f"weights: '{path}' holds none of this network's tensors, such as {next(iter(state))}.")
    model.load_state_dict({**state, **used})
    return sorted(name for name in state.keys() - used.keys() if "num_batches" not in name)


def _inflated(name: str, given: Tensor, wanted: Tensor) -> Tensor:
    if given.dim() == 4 and wanted.dim() == 5 and given.shape == wanted.shape[:2] + wanted.shape[3:]:
        kernel = torch.zeros_like(wanted)
        kernel[:, :, wanted.shape[2] // 2] = given
        return kernel
    if given.shape != wanted.shape:
        raise InputError(f"weights: {name} has shape {tuple(given.shape)}, the network {tuple(wanted.shape)}.")
    return given
