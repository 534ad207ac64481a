"""TMC: lengths, receptive field, which path hears which, and batches against sentences by themselves."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from labkit.errors import InputError
from labkit.papers.stmc.method.architecture import PAPER, SMALL
from labkit.papers.stmc.method.temporal import RECEPTIVE_FIELD, STRIDE, TemporalMultiCue, fewest_frames, steps_of


def module(**changes):
    torch.manual_seed(0)
    return TemporalMultiCue(replace(SMALL, **changes)).double().eval()


def features(architecture, batch=1, time=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, d, time, generator=generator, dtype=torch.float64) for d in architecture.cue_sizes]


def run(net, cues, *lengths):
    return net(cues, torch.tensor(lengths or [cues[0].shape[-1]] * len(cues[0])))


@pytest.mark.parametrize("padded", [False, True])
def test_the_formula_says_how_many_steps_come_out(padded):
    net = module(padded=padded)
    for time in range(fewest_frames(padded), 201, 7 if padded else 5):
        cues, joint, steps = run(net, features(replace(SMALL, padded=padded), time=time))
        assert joint.shape[-1] == cues[0].shape[-1] == int(steps) == steps_of(time, padded)
    assert [steps_of(t) for t in (16, 20, 100)] == [1, 2, 22]
    assert all(steps_of(t) == (t - 12) // 4 for t in range(16, 300, 4))
    assert steps_of(100, padded=True) == 25


def test_the_paper_s_channels():
    with torch.device("meta"):
        net = TemporalMultiCue(PAPER)
        cues, joint = [torch.empty(2, d, 100) for d in PAPER.cue_sizes], torch.empty(2, 1536, 100)
        for block in net.blocks:
            cues, joint = block(cues, joint)
            assert [cue.shape[1] for cue in cues] == [256] * 4
            assert joint.shape[1] == 1024


def test_a_step_sees_sixteen_frames_four_apart():
    """Changing frame t changes step s exactly when 4 s <= t < 4 s + 16."""
    net, cues = module(padded=False), features(SMALL, time=60)
    _, before, _ = run(net, cues)
    for t in (0, 15, 16, 31, 59):
        changed = [cue.clone() for cue in cues]
        for cue in changed:
            cue[..., t] += 5
        _, after, _ = run(net, changed)
        moved = (after != before).any(1)[0].nonzero().flatten().tolist()
        may = [s for s in range(before.shape[-1]) if STRIDE * s <= t < STRIDE * s + RECEPTIVE_FIELD]
        assert set(moved) <= set(may)
        assert moved


def test_a_step_of_a_sentence_is_the_step_of_its_clip_of_sixteen_frames():
    """Why stage 1 can take whole sentences where the paper takes clips."""
    net, cues = module(padded=False), features(SMALL, time=40)
    _, whole, _ = run(net, cues)
    for s in range(whole.shape[-1]):
        _, one, _ = run(net, [cue[..., STRIDE * s : STRIDE * s + RECEPTIVE_FIELD] for cue in cues])
        torch.testing.assert_close(one[..., 0], whole[..., s])


def test_cues_hear_themselves_alone_and_the_joint_path_hears_all():
    net, cues = module(), [cue.requires_grad_() for cue in features(SMALL)]
    out, joint, _ = run(net, cues)
    for n, path in enumerate(out):
        gradients = torch.autograd.grad(path.sum(), cues, retain_graph=True, allow_unused=True)
        assert [g is not None and bool(g.any()) for g in gradients] == [m == n for m in range(4)]
        joint_weights = [p for block in net.blocks for p in (block.inter.weight, block.merge.weight)]
        assert torch.autograd.grad(path.sum(), joint_weights, retain_graph=True, allow_unused=True) == (None,) * 4
    assert all(g.any() for g in torch.autograd.grad(joint.sum(), cues))


def test_one_cue_without_merging_is_a_plain_network_of_half_the_width():
    """N = 1 and zero merge weights: o is [plain 1D CNN ; 0]."""
    net = module(cues=("full",), padded=False)
    for block in net.blocks:
        torch.nn.init.zeros_(block.merge.weight)
        torch.nn.init.zeros_(block.merge.bias)
    (x,) = cues = features(net_of := replace(SMALL, cues=("full",)), time=30)
    _, joint, _ = run(net, cues)
    half = net_of.inter_size // 2
    first, second = net.blocks[0].inter, net.blocks[1].inter
    plain = F.max_pool1d(F.relu(first(x)), 2)
    plain = F.max_pool1d(F.relu(F.conv1d(plain, second.weight[:, :half], second.bias)), 2)
    torch.testing.assert_close(joint[:, :half], plain)
    assert joint[:, half:].abs().max() == 0


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("path", ["both", "intra", "inter"])
def test_what_stands_in_the_padding_changes_nothing(padded, path):
    """A batch of sentences of 16 to 45 frames gives what each gives by itself."""
    net, lengths = module(padded=padded, path=path), (45, 16, 30)
    cues = features(SMALL, batch=3, time=45)
    for cue in cues:
        for k, n in enumerate(lengths):
            cue[k, :, n:] = 1e3  # rubbish beyond the end
    out, joint, steps = run(net, cues, *lengths)
    for k, n in enumerate(lengths):
        own, one, count = run(net, [cue[k : k + 1, :, :n] for cue in cues])
        assert int(count) == int(steps[k])
        torch.testing.assert_close(joint[k, :, : int(count)], one[0], rtol=0, atol=1e-9)
        assert joint[k, :, int(count) :].abs().sum() == 0
        for path_of_batch, path_alone in zip(out, own, strict=True):
            torch.testing.assert_close(path_of_batch[k, :, : int(count)], path_alone[0], rtol=0, atol=1e-9)


def test_ablations_leave_one_path_out():
    intra, inter = module(path="intra"), module(path="inter")
    cues, joint, _ = run(intra, features(SMALL))
    torch.testing.assert_close(joint, torch.cat(cues, 1))
    assert run(inter, features(SMALL))[0] == []
    assert joint.shape[1] == run(inter, features(SMALL))[1].shape[1] == SMALL.inter_size


def test_a_sentence_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="16 frames at least; the shortest has 15"):
        run(module(padded=False), features(SMALL, batch=2, time=20), 20, 15)
