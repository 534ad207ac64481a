"""The schedule and its loop: who learns when, what gradients cross, killed and resumed."""

import pytest
import torch

from labkit.papers.mlvc.experiment import learning, schedule
from labkit.papers.mlvc.experiment.config import CONFIGS
from labkit.papers.mlvc.experiment.data import GeneratedExamples
from labkit.papers.mlvc.experiment.train import new_network
from labkit.papers.mlvc.method.references import References
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

CONFIG = CONFIGS["smoke"].override(motion="network", width=0.0625, batch_size=2, clips=2, unroll=2)
ONE = Workers(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def clips():
    return GeneratedExamples(2, 3, 64, 0).batch(torch.tensor([0, 1]), 0)


def changed(before, after):
    """Names of the modules with a parameter that moved."""
    return {n.split(".")[0] for n, p in after.named_parameters() if not torch.equal(p, before.get_parameter(n))}


def test_the_schedule_is_the_papers():
    stages = {stage.name: stage for stage in schedule.STEPWISE}
    assert list(stages) == [
        "S0",
        "S1",
        "S2",
        "S3",
        "S4 alone",
        "S4 joint",
        "S5 alone",
        "S5 joint",
        "S6 alone",
        "S6 joint",
    ]
    assert stages["S1"].trains == ("compensation",)
    assert stages["S1"].loss == "prediction"
    assert not stages["S3"].parts
    assert stages["S4 alone"].trains == ("motion_prediction",)
    assert stages["S6 joint"].parts == schedule.EVERYTHING
    assert set(stages["S6 joint"].trains) == set(schedule.ALL_MODULES)
    assert "motion_refinement" not in stages["S4 joint"].trains


def test_every_schedule_is_as_long():
    """Arms that are compared get the same number of steps."""
    totals = {name: sum(s.units for s in schedule.SCHEDULES[name]) for name in schedule.COMPARED}
    assert len(set(totals.values())) == 1, totals
    trained = {name: {m for s in stages for m in s.trains} for name, stages in schedule.SCHEDULES.items()}
    assert trained["scratch"] == trained["stepwise"] == set(schedule.ALL_MODULES)
    assert trained["unrefined"] == set(schedule.ALL_MODULES) - {"motion_refinement", "residual_refinement"}
    (rate,) = schedule.for_another_rate(schedule.UNREFINED)
    assert rate.parts == {"predict_motion"}


def test_a_search_without_parameters_needs_no_stage():
    dis = new_network(CONFIG.override(motion="dis"), "stepwise")
    assert [s.name for s in schedule.stages_for(dis, schedule.STEPWISE)][:2] == ["S1", "S2"]
    assert schedule.stages_for(new_network(CONFIG, "stepwise"), schedule.STEPWISE)[0].name == "S0"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("S0", marks=pytest.mark.slow),
        pytest.param("S2", marks=pytest.mark.slow),
        pytest.param("S4 alone", marks=pytest.mark.slow),
        "S6 alone",
    ],
)
def test_only_what_a_stage_trains_moves(name, clips, tmp_path):
    stage = next(s for s in schedule.STEPWISE if s.name == name)
    network, before = new_network(CONFIG, "stepwise"), new_network(CONFIG, "stepwise")
    with torch.no_grad():  # last layers start at 0, and what stands behind them has no gradient in the first step
        for module in (network, before):
            generator = torch.Generator().manual_seed(1)
            for p in module.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
    stage.use(network)
    learning.fit_stage(network, stage, 16.0, GeneratedExamples(2, 3, 64, 0), CONFIG, ONE, Run.open(tmp_path, CONFIG))
    moved = changed(before, network)
    assert moved <= set(stage.trains)
    assert moved, name


def test_losses_are_what_they_say(clips):
    network = new_network(CONFIG, "stepwise").eval()
    references, noise = References.start(clips[0]), torch.Generator().manual_seed(0)
    warp, _, after = learning.LOSSES["warp"](network, clips[1], references, 16.0, noise)
    assert warp.item() == pytest.approx(float(255 * (references.frames[:, 0] - clips[1]).abs().mean()), rel=1e-5)
    torch.testing.assert_close(after.frames[:, 0], clips[1])  # the next reference is the original
    assert not after.flows.any()  # a new search finds flow 0
    prediction, _, _ = learning.LOSSES["prediction"](network, clips[1], references, 16.0, noise)
    error = (255 * (references.frames[:, 0] - clips[1])).square().mean()
    assert prediction.item() == pytest.approx(float(error), rel=1e-4)  # and a new compensation is the warp
    loss, numbers, _ = learning.LOSSES["rate-distortion"](network, clips[1], references, 16.0, noise)
    rate = sum(numbers[name].item() for name in ("motion", "residual", "hyper"))
    assert loss.item() == pytest.approx(numbers["mse"].item() + 16 * rate, rel=1e-4)


@pytest.mark.slow
def test_gradients_stop_between_frames_unless_asked(clips):
    """Through two frames the first one's coding also serves the second."""
    stage = schedule.STEPWISE[-1]
    gradients = []
    for back in (1, 2):
        network = new_network(CONFIG, "stepwise").train()
        stage.use(network)
        learning.accumulate(network, stage, 16.0, clips, back, torch.Generator().manual_seed(0))
        gradients.append(network.residual_rgb.weight.grad.clone())
    assert float((gradients[0] - gradients[1]).abs().max()) > 1e-6


def test_the_intra_quantiser_follows_lambda(clips):
    errors = [float((learning.intra(clips[0], lam) - clips[0]).abs().mean()) for lam in (16.0, 64.0)]
    assert 0 < errors[0] < errors[1] < 0.05


@pytest.mark.slow
def test_killed_in_any_stage_and_resumed_ends_as_undisturbed(tmp_path):
    config, examples = CONFIG.override(unit_steps=1), GeneratedExamples(4, 3, 64, 0)
    stages = schedule.STEPWISE[:3]

    def train(folder, kind=Run):
        network = new_network(config, "stepwise")
        return learning.fit(network, stages, 16.0, examples, config, ONE, kind.open(folder, config))

    whole = train(tmp_path / "whole")

    class Killed(BaseException):
        pass

    original = Run.save_if_due
    for stop in (2, 4):  # after the first step of S1, and of S2
        left = iter(range(stop))

        def dying(self, step, state, left=left):
            self.save(step, state)
            if next(left, None) is None:
                raise Killed

        Run.save_if_due = dying
        try:
            with pytest.raises(Killed):
                train(tmp_path / f"run-{stop}")
        finally:
            Run.save_if_due = original
        resumed = train(tmp_path / f"run-{stop}")
        for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b), (stop, name)
