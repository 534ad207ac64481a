"""The site builds from what is committed, its links lead somewhere, and no page asks another server."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parent.parent / "docs" / "build.py"
spec = importlib.util.spec_from_file_location("build_site", BUILD)
assert spec is not None
assert spec.loader is not None
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.mark.slow
def test_the_site(tmp_path):
    pytest.importorskip("myst_nb", reason="the site needs the extra `site`")
    call = subprocess.run(
        [sys.executable, str(BUILD), str(tmp_path / "site"), str(tmp_path / "source")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert call.returncode == 0, call.stdout + call.stderr
    assert not re.search(r"WARNING|ERROR|CRITICAL|SEVERE", call.stderr), call.stderr  # docutils has its own words
    page = (tmp_path / "site" / "01_qnet.html").read_text()
    assert "<math" in page
    assert "Plotly.newPlot" in page
    assert (tmp_path / "site" / "search.html").exists()


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="x"></h1><a href="b.html#y">b</a><a href="#x">x</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text(
        '<script src="https://example.org/s.js"></script><a href="https://example.org">e</a>'
    )
    assert list(build.broken_links(tmp_path)) == ["a.html: b.html#y has no such anchor", "a.html: c.html leads nowhere"]
    assert list(build.outside_requests(tmp_path)) == ["b.html loads https://example.org/s.js"]
