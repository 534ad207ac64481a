"""The damaged file of section 7: every flipped byte is noticed, the other group is whole, layout and file agree."""

import plotly.graph_objects as go
import pytest

from labkit.papers.mlvc.teaching import figures, scenes

pytest.importorskip("constriction", reason="needs the extra 'video'")
pytest.importorskip("cv2", reason="the motion search of the small networks is OpenCV's: needs the extra 'peers'")


@pytest.fixture(scope="module")
def lab():
    return scenes.bitstream_lab(positions=6)


@pytest.mark.slow
def test_the_layout_covers_the_file(lab):
    assert lab.layout[0][0] == 0
    assert lab.layout[-1][1] == len(lab.data)
    assert all(a[1] == b[0] for a, b in zip(lab.layout, lab.layout[1:], strict=False))
    assert {what.split(" ", 1)[-1] for _, _, what in lab.layout} == set(figures.KINDS)


@pytest.mark.slow
def test_every_flipped_byte_is_noticed_and_stays_in_its_group(lab):
    """Catches: garbage on the screen, a loss that reaches the next I-frame, a decoder that gives up."""
    for hurt in lab.damaged:
        assert "damaged" in hurt.says
        if not hurt.shown:  # the header: nothing can be shown
            assert hurt.at < 52
            continue
        assert len(hurt.shown) == 8
        group = [start <= hurt.at < end and int(what[1]) // lab.gop for start, end, what in lab.layout[1:]]
        (hit,) = {g for g in group if g is not False}
        for t, shown in enumerate(hurt.shown):
            assert shown <= t
            if t // lab.gop != hit:
                assert shown == t
        assert any(shown != t for t, shown in enumerate(hurt.shown))
        figure = figures.bitstream_figure(lab, lab.damaged.index(hurt))
        assert isinstance(figure, go.Figure)
        assert f"byte {hurt.at:,} flipped" in figure.layout.title.text
