"""The networks: parameter counts of the released graph, identities of the start, and what each switch does."""

import pytest
import torch
from torch import Tensor

from labkit.errors import ConfigError, InputError
from labkit.papers.mlvc.method.autoencoders import RESIDUAL_GAIN, RESIDUAL_STEP
from labkit.papers.mlvc.method.layers import ChainedWarp, parameters_of, scaled
from labkit.papers.mlvc.method.motion_estimation import DisMotion, MotionEstimator, PyramidMotion, motion_estimator
from labkit.papers.mlvc.method.motion_prediction import MotionPredictor
from labkit.papers.mlvc.method.network import Network, Settings, distortion, rate_distortion
from labkit.papers.mlvc.method.references import References

SMALL = Settings(width=0.05)


def small_network(seed: int = 0, spread: float = 0.05, **changes) -> Network:
    """A network that is nowhere at its start: what begins at 0 is not."""
    torch.manual_seed(seed)
    network = Network(SMALL.model_copy(update=changes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return network.eval()


def frames(count: int, seed: int = 0, size: int = 64) -> Tensor:
    return torch.rand(count, 1, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def full() -> Network:
    with torch.device("meta"):
        return Network(Settings())


def test_parameter_counts_are_those_of_the_released_graph(full):
    """0.288, 5.772, 0.220, 1.001, 3.079, 2.082, 0.439 million; priors, motion search and our RGB skip are extra."""
    motion, hyper = full.motion_coding, full.hyperprior
    sizes = {
        "MAMVP-Net": parameters_of(full.motion_prediction),
        "MVD": parameters_of(motion.analysis) + parameters_of(motion.synthesis),
        "MV Refine-Net": parameters_of(full.motion_refinement),
        "MMC-Net": parameters_of(full.compensation),
        "residual": parameters_of(full.residual_coding),
        "hyperprior": parameters_of(hyper.analysis) + parameters_of(hyper.synthesis),
        "Residual Refine-Net": parameters_of(full.residual_refinement),
    }
    assert {name: round(count / 1e6, 3) for name, count in sizes.items()} == {
        "MAMVP-Net": 0.288, "MVD": 5.772, "MV Refine-Net": 0.220, "MMC-Net": 1.001, "residual": 3.079,
        "hyperprior": 2.082, "Residual Refine-Net": 0.439,
    }  # fmt: skip


def test_a_width_multiplies_channels():
    assert [scaled(c, 0.25) for c in (16, 24, 48, 192)] == [4, 8, 12, 48]
    assert scaled(24, 1.0) == 24
    with torch.device("meta"):
        quarter, eighth = (parameters_of(Network(Settings(width=w)).residual_coding) for w in (0.25, 0.125))
    assert 3 < quarter / eighth < 5


def test_a_new_network_predicts_by_the_warp_alone():
    """v̄ = 0, v̂ = v̂', x̄ = W(x̂_{t-1}, v̂): the last layer of everything that corrects starts at 0."""
    torch.manual_seed(0)
    network = Network(SMALL).eval()
    past, now = frames(2)
    references = References.start(past).push(now, torch.full((1, 2, 64, 64), 3.0))
    coded = network(now, references, flow=torch.rand(1, 2, 64, 64))
    assert torch.equal(coded.predicted_flow, torch.zeros(1, 2, 64, 64))
    torch.testing.assert_close(coded.flow, coded.decoded_flow)
    torch.testing.assert_close(coded.prediction, coded.warped)
    compensation = network.predict(now, references, flow=torch.zeros(1, 2, 64, 64))
    torch.testing.assert_close(compensation.prediction, references.frames[:, 0], rtol=0, atol=1e-5)


def test_one_reference_is_four_equal_ones():
    """n_refs=1 gives what the buffers hold after an I-frame: copies, and no motion between them."""
    network = small_network()
    a, b, c, x = frames(4)
    flow = torch.rand(1, 2, 64, 64)
    many = References.start(a).push(b, flow).push(c, flow)
    one = network.use(n_refs=1)(x, many, flow=flow)
    fresh = network.use(n_refs=4)(x, References.start(c), flow=flow)
    torch.testing.assert_close(one.reconstruction, fresh.reconstruction, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.bits.total, fresh.bits.total)
    other = network(x, many, flow=flow)
    assert (other.reconstruction - one.reconstruction).abs().max() > 1e-3


def test_new_networks_code_the_means_of_a_flow():
    """In steps of half a pixel, away from the border: a constant comes back, what varies comes back smoothed."""
    torch.manual_seed(0)
    coding = Network(Settings(width=0.05, predict_motion=False)).eval().motion_coding
    flow = torch.tensor([3.0, -1.5]).view(1, 2, 1, 1).expand(1, 2, 192, 192) / 20
    m = coding.encode(flow)
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(m[:, :2][inside], torch.tensor([6.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4))
    assert m[:, 2:].abs().max() == 0
    back = coding.decode(m)[..., 80:112, 80:112]
    torch.testing.assert_close(back, flow[..., 80:112, 80:112])


@pytest.mark.parametrize("n_refs", [2, 3])
def test_a_limit_keeps_the_newest(n_refs):
    stack = frames(5)
    references = References.start(stack[0])
    for k in range(1, 5):
        references = references.push(stack[k], torch.full((1, 2, 64, 64), float(k)))
    limited = references.limited(n_refs)
    assert torch.equal(limited.frames[:, :n_refs], references.frames[:, :n_refs])
    assert torch.equal(limited.frames[:, -1], references.frames[:, n_refs - 1])
    assert limited.flows[0, :, 0, 0, 0].tolist() == [4.0, 3.0, 2.0][: n_refs - 1] + [0.0] * (4 - n_refs)
    with pytest.raises(InputError, match="between 1 and 4"):
        references.limited(5)


def test_buffers_hold_eight_bits_and_whole_steps():
    """Clipped, then rounded to 1/255 and 1/64 pixel; both let gradients pass."""
    frame = (2 * frames(1)[0] - 0.5).requires_grad_()
    flow = (torch.rand(1, 2, 64, 64) * 9).requires_grad_()
    references = References.start(frames(1)[0]).push(frame, flow)
    levels = references.frames[:, 0] * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert torch.equal(references.flows[:, 0] * 64, (references.flows[:, 0] * 64).round())
    (references.frames.sum() + references.flows.sum()).backward()
    assert torch.equal(flow.grad, torch.ones_like(flow))
    inside = (frame > 0) & (frame < 1)
    torch.testing.assert_close(frame.grad[inside], torch.ones_like(frame.grad[inside]))


@pytest.mark.slow
def test_each_switch_takes_its_network_out():
    """With a part off, its weights are of no consequence; with it on, they are."""
    x, past = frames(2)
    references = References.start(past).push(x.roll(1, -1), torch.full((1, 2, 64, 64), 2.0))
    parts = {"predict_motion": "motion_prediction", "refine_motion": "motion_refinement",
             "refine_residual": "residual_refinement"}  # fmt: skip
    for switch, module in parts.items():
        network = small_network()
        on = network(x, references).reconstruction
        off = network.use(**{switch: False})(x, references).reconstruction
        with torch.no_grad():
            for parameter in getattr(network, module).parameters():
                parameter.add_(1.0)
        assert torch.equal(network(x, references).reconstruction, off)
        assert not torch.equal(on, off)


def test_without_prediction_the_whole_flow_is_coded():
    network = small_network(predict_motion=False)
    x, past = frames(2)
    coded = network(x, References.start(past), flow=torch.zeros(1, 2, 64, 64))
    assert torch.equal(coded.predicted_flow, torch.zeros(1, 2, 64, 64))


def test_flow_reads_the_reference_in_pixels():
    """A flow of (3, 0) predicts each pixel by its third neighbour to the right."""
    torch.manual_seed(0)
    network = Network(SMALL).eval()
    x, past = frames(2)
    flow = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
    prediction = network.predict(x, References.start(past), flow=flow).prediction
    shown = References.start(past).frames[:, 0]
    torch.testing.assert_close(prediction[..., :-3], shown[..., 3:], rtol=0, atol=1e-4)


def test_the_predictor_sees_flows_in_twenties_of_pixels_on_every_level():
    """A flow of one unit is 20 pixels, hence 2.5 at 1/8 of the size: constant flows shift features by so much."""
    torch.manual_seed(0)
    predictor, levels = MotionPredictor(0.25), []
    predictor.warp.register_forward_hook(lambda module, inputs, output: levels.append(inputs[1]))
    predictor(torch.ones(1, 3, 2, 64, 64))
    assert [flows.shape[-1] for flows in levels] == [8, 16, 32, 64]
    assert [flows.unique().tolist() for flows in levels] == [[2.5], [5.0], [10.0], [20.0]]


def test_warps_are_computed_in_float32_under_mixed_precision():
    """Features of a convolution are bfloat16 there and flows of the buffers float32: coordinates must stay exact."""
    images, flows = torch.rand(1, 2, 3, 8, 8).bfloat16(), torch.rand(1, 2, 2, 8, 8)
    warped, chain = ChainedWarp()(images, flows)
    assert (warped.dtype, chain.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(chain[:, 0], flows[:, 0])


@pytest.mark.slow
def test_noise_in_training_and_rounding_afterwards():
    network = small_network()
    x, past = frames(2)
    references = References.start(past)
    rounded = network(x, references).latents["residual"]
    assert torch.equal(rounded, rounded.round())
    generator = torch.Generator().manual_seed(1)
    first = network(x, references, quantization="noise", generator=generator).latents["residual"]
    assert not torch.equal(first, first.round())
    again = network(x, references, quantization="noise", generator=generator.manual_seed(1)).latents["residual"]
    assert torch.equal(first, again)
    network.train()
    assert not torch.equal(network(x, references).latents["hyper"], network(x, references).latents["hyper"])


def test_every_parameter_learns():
    """Also those behind a layer that starts at 0, once that has moved."""
    network = small_network(spread=0.02).train()
    a, b, x = frames(3)
    references = References.start(a).push(b, torch.rand(1, 2, 64, 64))
    rate_distortion(x, network(x, references), lam=16).mean().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []


def test_the_loss_is_the_error_on_255_and_lambda_bits_a_pixel():
    network = small_network()
    x, past = frames(2)
    coded = network(x, References.start(past))
    error = ((x - coded.reconstruction) * 255).square().mean()
    bits = coded.bits.motion + coded.bits.residual + coded.bits.hyper
    torch.testing.assert_close(rate_distortion(x, coded, 16.0), error[None] + 16 * bits / 64**2)
    assert distortion(x, x + 1 / 255).item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("kind", ["network", "dis"])
def test_motion_search(kind):
    """Whatever searches, flow is in pixels and points from the frame into its reference."""
    if kind == "dis":
        pytest.importorskip("cv2", reason="needs the extra 'peers'")
    search = motion_estimator(kind, 0.1)
    assert isinstance(search, MotionEstimator)
    smooth = torch.nn.functional.interpolate(frames(1, size=8)[0], size=64, mode="bicubic").clamp(0, 1)
    flow = search(smooth, smooth)
    assert flow.shape == (1, 2, 64, 64)
    assert flow.abs().max() < 0.1  # DIS finds no motion in a still; the network starts at none
    if kind == "dis":  # x_t(p) = x_{t-1}(p + 2): what is 2 to the right in the reference has come here
        flow = search(smooth[..., 2:], smooth[..., :-2])[..., 8:-8, 8:-8]
        assert flow[:, 0].mean().item() == pytest.approx(2, abs=0.3)
        assert abs(flow[:, 1].mean().item()) < 0.3
        assert search(smooth[..., :9, :5], smooth[..., :9, :5]).shape == (1, 2, 9, 5)


def test_a_pyramid_learns_a_shift():
    """20 steps on one pair lower the warp's error: gradients reach every level through the warp."""
    torch.manual_seed(0)
    search = PyramidMotion(0.1, levels=3)
    smooth = torch.nn.functional.interpolate(frames(1, size=8)[0], size=64, mode="bicubic").clamp(0, 1)
    frame, reference = smooth[..., 2:50, 2:50], smooth[..., 2:50, :48]
    from labkit.kernels.flow_warp import warp

    optimizer, errors = torch.optim.Adam(search.parameters(), lr=3e-3), []
    for _ in range(20):
        optimizer.zero_grad()
        error = (warp(reference, search(frame, reference)) - frame).abs().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n, x, r: n(x[..., :60], r), "sides must be multiples of 64"),
        (lambda n, x, r: n(x.repeat(2, 1, 1, 1), r), "do not belong to frames"),
        (lambda n, x, r: n((x * 255).byte(), r), "frames must be RGB"),
        (lambda n, x, r: n.use(n_refs=5), "n_refs"),
        (lambda n, x, r: motion_estimator("flownet2"), "'network' or 'dis'"),
        (lambda n, x, r: Settings(width=0), "width"),
        (lambda n, x, r: References.start(x[:, :1]), "frames must be RGB"),
    ],
)
def test_bad_input_is_refused(call, words):
    from jaxtyping import TypeCheckError

    network, (x, past) = small_network(), frames(2)
    with pytest.raises((InputError, ConfigError, ValueError, TypeCheckError)) as caught:
        call(network, x, References.start(past))
    assert isinstance(caught.value, TypeCheckError) or words in str(caught.value)


def test_without_opencv_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    search, still = DisMotion(), frames(1)[0]  # made without it: a receiver never searches
    with pytest.raises(InputError, match=r"labkit\[peers\]"):
        search(still, still)


@pytest.mark.parametrize("width", [0.05, 0.125, 0.5])
def test_the_residual_transform_starts_as_an_orthonormal_projection(width):
    """What latents cannot hold is orthogonal to what they can; lengths stay; what came back comes back again."""
    torch.manual_seed(0)
    network = Network(Settings(width=width, motion="dis"))
    coding, rgb = network.residual_coding, network.residual_rgb
    r = 0.05 * torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = coding.encode(r)
        kept = rgb(coding.decode(y)) / RESIDUAL_GAIN
        again = rgb(coding.decode(coding.encode(kept))) / RESIDUAL_GAIN
    torch.testing.assert_close(again, kept, rtol=0, atol=1e-5)
    length = float(kept.square().sum())
    assert abs(float((kept * (r - kept)).sum())) < 1e-4 * length
    assert float(y.square().sum()) == pytest.approx(length * (255 / RESIDUAL_STEP) ** 2, rel=1e-3)


def test_the_residual_transform_starts_with_means_of_blocks():
    """At the width of the codec that comes with labkit every color's mean has a latent."""
    network = Network(Settings(width=0.125, motion="dis"))
    flat = torch.randn(1, 3, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3) / 20
    with torch.no_grad():
        back = network.residual_rgb(network.residual_coding.decode(network.residual_coding.encode(flat)))
    torch.testing.assert_close(back / RESIDUAL_GAIN, flat, rtol=0, atol=1e-5)
