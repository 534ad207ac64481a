"""The room on a real GPU: the trace kernel, recorded steps against ordinary ones, the whole loop."""

from copy import deepcopy

import pytest
import torch
from papers.pombu.killed import killed_and_resumed

from labkit.kernels.discounted_trace import discounted_trace
from labkit.papers.pombu.experiment.algorithms import learner_for, learning_curves, run_loop
from labkit.papers.pombu.experiment.config import Config
from labkit.papers.pombu.experiment.gaussian_members import GaussianEnsemble
from labkit.papers.pombu.method.ensemble import DynamicsEnsemble, FitSettings, TrajectorySplits, fit
from labkit.papers.pombu.method.improvement import Batch, PolicyPass
from labkit.papers.pombu.method.networks import GaussianPolicy
from labkit.rl.recorded import Recorded
from labkit.rl.streams import Streams
from labkit.workbench.runs import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "copies"), [(1, 1), (200, 200), (20, 40_001)])
@pytest.mark.parametrize("with_done", [False, True])
def test_the_trace_kernel(dtype, steps, copies, with_done):
    generator = torch.Generator().manual_seed(0)
    x, value = torch.randn(2, steps, copies, generator=generator, dtype=dtype)
    last = torch.randn(copies, generator=generator, dtype=dtype)
    done = torch.rand(steps, copies, generator=generator) < 0.05 if with_done else None
    wanted = discounted_trace(x.double(), value.double(), last.double(), discount=0.99, lam=0.95, done=done)
    got = discounted_trace(
        x.cuda(), value.cuda(), last.cuda(), discount=0.99, lam=0.95, done=None if done is None else done.cuda()
    )
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(got.cpu().double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_recorded_step_is_the_step():
    x, total = torch.ones(4, device="cuda"), torch.zeros(4, device="cuda")

    def step() -> torch.Tensor:
        total.add_(x)
        return total * 2

    recorded = Recorded(step, CUDA)
    for number in range(1, 8):
        x.fill_(float(number))
        actual = recorded()
        assert total.tolist() == [number * (number + 1) / 2] * 4
        assert actual.tolist() == [number * (number + 1.0)] * 4


def test_recorded_policy_steps_are_the_ordinary_ones():
    finals = []
    for graphs in (False, True):
        policy = GaussianPolicy(3, 2, (16,), [1, 2]).to(CUDA)
        generator = torch.Generator().manual_seed(0)
        state, action = (torch.randn(2, 200, n, generator=generator).cuda() for n in (3, 2))
        numbers = torch.randn(4, 2, 200, generator=generator).cuda()
        batch = Batch(state, action, numbers[0] - 3, numbers[1], numbers[2].abs(), numbers[3], numbers[3])
        update = PolicyPass(policy, learning_rate=1e-3, clip=0.2, max_norm=0.5, graphs=graphs)
        for seed in (0, 1):
            update(batch, torch.tensor([0.0, 0.5], device=CUDA), 3, 50, Streams([seed, 7], CUDA))
        finals.append(deepcopy(policy.state_dict()))
    for name, value in finals[0].items():
        torch.testing.assert_close(value, finals[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [DynamicsEnsemble, GaussianEnsemble])
def test_recorded_model_training_is_the_ordinary_one(kind):
    finals = []
    for graphs in (False, True):
        ensemble = kind(2, 3, 4, 2, (32,), seeds=[0, 1]).to(CUDA)
        generator = torch.Generator().manual_seed(0)
        state, action = (torch.randn(2, 110, n, generator=generator).cuda() for n in (4, 2))
        splits = TrajectorySplits(2, 3)
        splits.add(11, 10, generator)
        minibatches = torch.Generator(CUDA).manual_seed(0)
        settings = FitSettings(1e-3, batch=30, rounds=20)  # 88 rows: the last minibatch of an epoch is a smaller one
        report = fit(ensemble, state, action, torch.sin(state), splits, minibatches, settings, graphs=graphs)
        finals.append(report.best)
    torch.testing.assert_close(*finals, rtol=1e-3, atol=1e-5)


TINY = Config(
    environments=("pendulum",), replicas=2, iterations=3, episodes=2, horizon=20, updates=3, rollouts=16, epochs=2,
    batch_size=64, members=3, model_hidden=(32, 32), policy_hidden=(16, 16), model_batch=16, model_epochs=20,
    model_learning_rate=2e-3, learning_rate=1e-3, evaluations=2, mbpo_updates=1, mbpo_rollouts=16, mbpo_keep=20,
    mbpo_schedule=(0, 1, 3, 3), compiled=True,
)  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loop(tmp_path, compiled):
    config = TINY.override(compiled=compiled)
    result = run_loop(learner_for("pombu", "pendulum", config, CUDA), Run.open(tmp_path / "run", config))
    assert (torch.tensor(result["validation_error"]) < 0.5).all()  # .03 +- .02 after the first iteration
    assert torch.isfinite(torch.tensor(result["stochastic_return"])).all()


def test_mbpo_rolls_its_models_out_on_the_gpu(tmp_path):
    config = TINY.override(iterations=2, replicas=1)
    result = learning_curves("mbpo", "pendulum", config, Run.open(tmp_path / "run", config), CUDA)
    assert result["steps"] == [40, 80]
    assert torch.isfinite(torch.tensor(result["stochastic_return"])).all()


def test_a_killed_run_goes_on(tmp_path):
    result, again = killed_and_resumed(tmp_path / "run", TINY.override(iterations=4), CUDA)
    assert [line["step"] for line in again.metrics()] == [0, 1, 2, 3]  # none is played twice
    assert result["steps"] == [40, 80, 120, 160]
    assert torch.isfinite(torch.tensor(result["stochastic_return"])).all()
