"""Runs: every arm starts, a killed run ends as an undisturbed one, two processes are one, bad configs answer back."""

import pytest
import torch
from killed import killed
from safetensors.torch import load_file

from labkit.errors import ConfigError
from labkit.papers.lstr import ARMS, PAPER
from labkit.papers.lstr.experiment import actors, data, evaluate, train
from labkit.papers.lstr.experiment.claims import CLAIMS
from labkit.papers.lstr.experiment.config import CONFIGS, Config
from labkit.workbench.runs import Run

SMALL = Config(videos=8, test_videos=4, walking=2, proposal_steps=4, proposal_batch=10, steps=4, batch_size=4,
               arms=("short", "cascade"), device="cpu")  # fmt: skip


BEFORE_NORMALIZATION = tuple(f"backbone.layers.{k}.bias" for k in (0, 3, 6))
"""Normalization takes these biases off again: their gradient is rounding, of which Adam makes steps of full size."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The result of SMALL in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return PAPER.run(SMALL, Run.open(folder, SMALL)), folder


def test_a_result_holds_what_claims_read(undisturbed, tmp_path):
    result, folder = undisturbed
    assert result["data"] == "generated actors"
    assert result["classes"] == list(actors.CLASSES)
    assert set(result["proposals"]) == {"recall", "recall_70", "overlap"}
    for arm in SMALL.arms:
        measured = result["arms"][arm]
        assert set(measured["video"]) == {"0.2", "0.5", "0.75", "mean", "greedy_0.5"}
        assert all(0 <= measured[name] <= 1 for name in ("frame_map", "object", "late", "accuracy"))
    measured = {claim.key for claim in CLAIMS if claim.measure(result) is not None}
    assert measured == {"tubelets-from-a-3d-rpn"}  # the others compare with arms that did not run
    assert PAPER.run(SMALL, Run.open(folder, SMALL)) == result


@pytest.mark.slow
def test_smoke_runs_every_arm(smoke_run):
    result = smoke_run(PAPER).result
    assert set(result["arms"]) == set(ARMS)
    unmeasured = {claim.key for claim in CLAIMS if claim.measure(result) is None}
    assert unmeasured == {
        "cascade-against-parallel-events-in-context", "better-on-ucf24", "better-on-jhmdb", "better-on-ucf-sports",
        "better-on-ava",
    }  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(tmp_path, undisturbed):
    """Killed while the proposals, and while an arm, are trained; there is a checkpoint after every step."""
    wanted, folder = undisturbed
    for stop in (2, 3):
        with killed(stop):
            PAPER.run(SMALL.override(at_once=1), Run.open(tmp_path / "run", SMALL))
    assert PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL)) == wanted
    for part in ("proposals", "arm-cascade"):
        whole, resumed = (load_file(f / part / "weights.safetensors") for f in (folder, tmp_path / "run"))
        for name, value in whole.items():
            torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path, undisturbed):
    _, folder = undisturbed
    two = SMALL.override(devices=2)
    PAPER.run(two, Run.open(tmp_path / "two", two))
    source, _ = train.sources(SMALL)
    begun = {"proposals": train.proposal_network(SMALL), "arm-cascade": train.network(SMALL, "cascade", source)}
    for part, start in begun.items():
        first, second = (load_file(f / part / "weights.safetensors") for f in (folder, tmp_path / "two"))
        names = [name for name, _ in start.named_parameters() if not name.endswith(BEFORE_NORMALIZATION)]
        zero, one, both = (
            torch.cat([w[n].double().flatten() for n in names]) for w in (start.state_dict(), first, second)
        )
        # Sums in another order; Adam makes full steps of gradients that are nearly 0. Two processes that did not share
        # their gradients would move elsewhere by as much as they moved.
        assert (both - one).norm() < 0.3 * (one - zero).norm(), part


@pytest.mark.slow
def test_own_features_are_blind_and_attention_is_not(tmp_path):
    """Sheet section 5, shortened, on true boxes. 20 seeds: RoI within .06 of 1/3, attention above .5."""
    config = SMALL.override(videos=160, test_videos=60, walking=0, steps=200, batch_size=8, boxes="truth", seed=7,
                            arms=("roi", "short"))  # fmt: skip
    arms = PAPER.run(config, Run.open(tmp_path, config))["arms"]
    assert abs(arms["roi"]["object"] - 1 / 3) < 0.12
    assert arms["short"]["object"] > arms["roi"]["object"] + 0.05


def test_proposals_of_a_fixed_source_are_kept(undisturbed):
    proposer = train.proposal_network(SMALL).eval()
    tubelets = train.Tubelets(proposer, 2, 56)
    source, other = data.Generated(4, 0, actors.TRAIN), data.Generated(4, 1, actors.TRAIN)
    index = torch.tensor([2, 0])
    first = tubelets.of(source, index, data.batch(source, index))
    again = tubelets.of(source, index.flip(0), data.batch(source, index.flip(0)))
    assert torch.equal(first.tubelets[:5], again.tubelets[5:])
    assert not torch.equal(tubelets.of(other, index, data.batch(other, index)).tubelets, first.tubelets)


def test_true_tubes_change_with_the_label():
    scenes = actors.videos(6, 4, actors.WALKING)
    for v in range(6):
        tubes = evaluate.true_tubes(scenes.boxes[v], scenes.labels[v], "v")
        assert sum(len(tube.boxes) for tube in tubes) == 2 * 5 * 2
        assert len(tubes) == 2 + int((scenes.labels[v].diff(dim=0) != 0).sum())


def test_perfect_scores_give_perfect_tubes():
    scenes = actors.videos(4, 4, actors.WALKING)
    valid = torch.ones(5, 2, dtype=torch.bool)
    for v in range(4):
        sure = torch.nn.functional.one_hot(scenes.labels[v], 6).float()
        truth = evaluate.true_tubes(scenes.boxes[v], scenes.labels[v], "v")
        tubes_of_scores = evaluate.video_tubes(sure, scenes.boxes[v], valid, "v")
        from labkit.metrics.detection import video_map

        assert video_map(truth, tubes_of_scores, 0.75).mean == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ("nothing",)}, "there is no arm 'nothing'"),
        ({"arms": ("roi", "roi")}, "stands there twice"),
        ({"data": "movies"}, "data is actors, or one of"),
        ({"batch_size": 999}, "batch_size 999 must not be larger than videos"),
        ({"frames": 3}, "halves time"),
        ({"size": 64}, "generated videos have 56"),
        ({"weights": "w.safetensors"}, "weights are for backbone slow-only"),
        ({"anchors": (0.0,)}, "above 0"),
    ],
)
def test_bad_configs_answer_back(changes, words):
    with pytest.raises(ConfigError, match=words):
        CONFIGS["lesson"].override(**changes)
