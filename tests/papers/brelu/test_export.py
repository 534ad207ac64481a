"""The exported network in ONNX Runtime: an engine that shares no code with ours."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.brelu.export import export_onnx
from labkit.papers.brelu.integer import to_codes

from .test_integer import deployed

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize("levels", [127, 15])
@pytest.mark.parametrize("name", ["vdsr", "vrcnn"])
def test_onnx_runtime_gives_the_same_grey_levels(name, levels, tmp_path):
    """Ties go to even there: a code may differ by one, a residual by very little."""
    _, _, integer, _, _ = deployed(name, levels)
    export_onnx(integer, tmp_path / "net.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(tmp_path / "net.onnx"), options, providers=["CPUExecutionProvider"])
    pixels = torch.randint(0, 256, (1, 1, 40, 40), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    theirs = torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]).int() - 128
    ours = integer(to_codes(pixels)).clamp(-128, 127)
    assert (theirs - ours).abs().max() <= 1
    assert float((theirs == ours).float().mean()) > 0.97


def test_bad_input(tmp_path):
    _, _, integer, _, _ = deployed("small")
    with pytest.raises(InputError, match="QLinearConv cannot express it"):
        export_onnx(integer, tmp_path / "net.onnx")
    _, _, scores, _, _ = deployed("vdsr", units=False)
    with pytest.raises(InputError, match="gives scores"):
        export_onnx(scores, tmp_path / "net.onnx")
    _, _, integer, _, _ = deployed("vdsr")
    with pytest.raises(InputError, match="there is no folder"):
        export_onnx(integer, tmp_path / "missing" / "net.onnx")
