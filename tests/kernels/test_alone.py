"""What needs a process of its own: Triton's interpreter, torch.compile without the import hook, oneDNN without VNNI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_alone(*lines: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_triton_bodies_agree_with_torch_in_the_interpreter():
    """TRITON_INTERPRET works only if set before the first import, and must not leak into other tests.

    The import hook that checks shapes is on, as it is when tests run on a GPU: it must not touch the kernels.
    """
    pytest.importorskip("triton")
    kernels = (
        "crop_windows",
        "discounted_trace",
        "flow_warp",
        "int8_conv",
        "residual_norm",
        "roi_align",
        "soft_argmax",
        "soft_quantize",
        "tubelet_iou",
        "tubelet_nms",
    )
    lines = [
        f"    import test_{kernel}; test_{kernel}.compare_triton_with_torch(); print('{kernel}')" for kernel in kernels
    ]
    hook = ("from jaxtyping import install_import_hook", "with install_import_hook('labkit', 'beartype.beartype'):")
    assert run_alone(*hook, *lines, TRITON_INTERPRET="1").split() == list(kernels)


@pytest.mark.slow
def test_torch_compile_takes_soft_quantize_without_a_graph_break():
    """torch.compile cannot look through the wrappers of the import hook."""
    assert run_alone("import test_soft_quantize as t; t.compile_without_a_break(); print('one graph')") == "one graph"


@pytest.mark.slow
def test_int8_products_are_exact_where_onednn_has_no_vnni():
    """oneDNN reads the variable once."""
    script = "import test_int8_matmul as t; t.compare_with_int64(); print('exact')"
    assert run_alone(script, ONEDNN_MAX_CPU_ISA="AVX2") == "exact"
