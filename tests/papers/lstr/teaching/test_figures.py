"""Pictures: pure, of the right data, widgets that move; on an untrained network where one is needed."""

import io

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from labkit.errors import InputError
from labkit.papers.lstr import PAPER
from labkit.papers.lstr.experiment import actors, train
from labkit.papers.lstr.experiment.config import Config
from labkit.papers.lstr.experiment.detector import Detector, Header
from labkit.papers.lstr.method.network import Settings
from labkit.papers.lstr.method.proposals import ProposalSettings
from labkit.papers.lstr.teaching import figures, scenes


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    header = Header(settings=Settings(), proposals=ProposalSettings(), classes=actors.CLASSES, labels="single",
                    frames=2, stride=1, clips=5, size=56, most=2)  # fmt: skip
    return Detector(header).eval()


def drawn(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


@pytest.mark.slow
def test_still_pictures_are_drawn(detector):
    for figure in (
        figures.idea_figure(),
        figures.reach_figure(),
        figures.anchors_figure(),
        figures.proposals_figure(scenes.proposed(detector)),
        figures.detected_figure(*scenes.tubes_of(detector), detector.classes),
    ):
        assert len(drawn(figure)) > 5000


ARMS = {
    name: {"object": 0.3, "late": 0.6, "frame_map": 0.2, "video": {"0.5": 0.1}}
    for name in ("roi", "short", "long", "cascade")
}


@pytest.mark.slow
def test_results_are_drawn_as_they_are():
    blocks = figures.blocks_figure({"arms": ARMS})
    assert [bar.get_height() for bar in blocks.axes[0].patches] == [0.3] * 4
    assert [bar.get_height() for bar in blocks.axes[1].patches] == [0.6] * 4
    both = figures.comparison_figure({"arms": {"roi": {"frame_map": 0.4}}})
    assert both.axes[0].patches[0].get_height() == 0.4
    panels = {"a": {"short": [0.2, 0.4]}, "b": {}}
    recorded = figures.recorded_figure(panels, "accuracy")
    assert len(recorded.axes) == 1
    assert recorded.axes[0].lines[0].get_xdata()[0] == pytest.approx(0.3)
    with pytest.raises(InputError, match="nothing is recorded"):
        figures.recorded_figure({"b": {}}, "accuracy")


def test_the_story_is_about_one_actor():
    clips, video, color = scenes.story()
    for c in range(5):
        a = int((clips.identity[video, c] == color).nonzero()[0])
        assert int(clips.labels[video, c, a] % 2) == (c >= 2)
    scenes.story(actors.Actors(event="object"))


def test_attention_is_a_distribution_and_its_parts_are(detector):
    looks = scenes.looks(detector, 2)
    for look in looks:
        for weights in look.weights.values():
            assert weights.shape == (2, 14, 14)
            np.testing.assert_allclose(weights.sum((1, 2)), 1, rtol=1e-5)
        product = look.weights["content"] * look.weights["geometry"]
        both = product / product.sum((1, 2), keepdims=True)
        np.testing.assert_allclose(both, look.weights["both"], rtol=2e-3, atol=1e-6)
    figure = figures.attention_figure(looks, 1, 1, "geometry")
    np.testing.assert_array_equal(figure.data[1].z, looks[1].weights["geometry"][1])
    widget = figures.attention_widget(looks)
    widget.children[1].value = 1
    np.testing.assert_array_equal(widget.children[-1].data[1].z, looks[0].weights["both"][1])


def test_the_graph_shows_its_edges(detector):
    clips, video, _ = scenes.story()
    web = scenes.web(detector, clips, video)
    np.testing.assert_allclose(web.adjacency.sum(1), 1, rtol=1e-5)
    assert (web.adjacency[web.clip[:, None] < web.clip[None]] == 0).all()
    assert web.event.sum() == 1
    assert web.clip[web.event].item() == 1
    few, many = (figures.web_figure(web, 9, threshold, 1) for threshold in (0.9, 0.001))

    def lines(figure: go.Figure) -> int:
        return sum(len([x for x in trace.x if x is None]) for trace in figure.data[:3])

    assert lines(few) == 0
    assert lines(many) == 8
    assert lines(figures.web_figure(web, 0, 0.01, 3)) == 0  # the first clip has no past
    figures.web_widget(web).children[0].value = 3


def test_paths_keep_their_actor_when_overlap_counts():
    walk = scenes.hard_walk()
    alone, together = (scenes.linked(walk, beta)[0].nodes for beta in (0.0, 1.0))
    assert list(alone) == walk.scores.argmax(1).tolist()
    assert len(set(alone)) == 2
    assert len(set(together)) == 1
    widget = figures.tube_widget(walk)
    widget.children[0].value = 1.0
    assert "changes of actor on the path: 0," in widget.children[-1].layout.title.text


def test_precision_and_recall_follow_the_box():
    whole, off = scenes.curve(0.0), scenes.curve(12.0)
    assert whole.overlap == 1.0
    assert off.overlap < 0.5
    assert off.ap < whole.ap
    assert scenes.curve(4.0, threshold=0.75).ap < scenes.curve(4.0, threshold=0.5).ap
    widget = figures.precision_widget()
    widget.children[0].value = 12.0
    assert f"AP {off.ap:.3f}" in widget.children[-1].layout.title.text


def test_who_counts_is_right_unless_exactly_one_of_two_has_had_its_event():
    some = actors.videos(3, 5, actors.TEST)
    right = [0.5 if len(set((pair % 2).tolist())) == 2 else 1.0 for video in some.labels for pair in video[2:]]
    assert scenes.counting(5, 3) == pytest.approx(sum(right) / len(right))


def test_an_untrained_graph_is_even_and_a_centered_one_is_not():
    # .88 to .97 and .05 to .11 over the first four starts
    assert min(scenes.evenness("cascade", 2, 4)) > 0.6 > 0.4 > max(scenes.evenness("centered", 2, 4))


def test_records_are_read_by_label(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert scenes.recorded("graphs", "late") == {}


@pytest.mark.slow
def test_a_runs_network_is_what_is_looked_at(tmp_path):
    from labkit.workbench.runs import Run

    config = Config(videos=8, test_videos=2, walking=0, proposal_steps=1, proposal_batch=5, steps=1, batch_size=4,
                    arms=("cascade",), device="cpu")  # fmt: skip
    run = Run.open(tmp_path, config)
    PAPER.run(config, run)
    assert scenes.trained(config, run, "short") is None
    detector = scenes.trained(config, run)
    assert detector is not None
    assert len(scenes.looks(detector, 1)) == 1
    assert train.data_name(config) == "generated actors"
