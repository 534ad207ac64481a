"""The exported network in ONNX Runtime: an engine that shares no code with ours."""

import pytest
import torch

from labkit.errors import InputError
from labkit.papers.brelu.method.export import export_onnx, onnx_runtime, to_onnx
from labkit.papers.brelu.method.integer import to_codes

from .test_integer import deployed

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize("levels", [127, 15])
@pytest.mark.parametrize("name", ["vdsr", "vrcnn"])
def test_onnx_runtime_gives_the_same_grey_levels(name, levels):
    """Ties go to even there: a code may differ by one, a residual by very little."""
    _, _, integer, _, _ = deployed(name, levels)
    pixels = torch.randint(0, 256, (1, 1, 40, 40), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    theirs = onnx_runtime(integer, "qlinear")(pixels).int() - 128
    ours = integer(to_codes(pixels)).clamp(-128, 127)
    assert (theirs - ours).abs().max() <= 1
    assert float((theirs == ours).float().mean()) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("levels", [127, 3])
@pytest.mark.parametrize("name", ["vdsr", "vrcnn", "small", "resnet20", "resnet18", "resnet50"])
def test_the_exact_form_gives_the_same_bits(name, levels):
    """Additions with their shortcuts, max-pool, padded channels and the average, in an engine that is not ours."""
    _, _, integer, codes, _ = deployed(name, levels)
    theirs = onnx_runtime(integer, "exact")(codes.int().add(128).to(torch.uint8))
    assert theirs.dtype == torch.int32
    assert torch.equal(theirs, integer(codes))


def test_the_file_is_the_model(tmp_path):
    _, _, integer, _, _ = deployed("small")
    export_onnx(integer, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == to_onnx(integer, "exact").SerializeToString()


def test_auto_is_the_fast_form_where_it_can_be():
    operations = {name: {node.op_type for node in to_onnx(deployed(name)[2]).graph.node} for name in ("vdsr", "small")}
    assert "QLinearConv" in operations["vdsr"]
    assert "ConvInteger" not in operations["vdsr"]
    assert "ConvInteger" in operations["small"]


def test_bad_input(tmp_path):
    _, _, integer, _, _ = deployed("small")
    with pytest.raises(InputError, match="QLinearConv cannot express it"):
        export_onnx(integer, tmp_path / "net.onnx", form="qlinear")
    _, _, scores, _, _ = deployed("vdsr", units=False)
    with pytest.raises(InputError, match="gives scores"):
        export_onnx(scores, tmp_path / "net.onnx", form="qlinear")
    with pytest.raises(InputError, match="there is no ONNX form 'fast'"):
        export_onnx(integer, tmp_path / "net.onnx", form="fast")
    _, _, integer, _, _ = deployed("vdsr")
    with pytest.raises(InputError, match="there is no folder"):
        export_onnx(integer, tmp_path / "missing" / "net.onnx")
