"""The relations of a clip and of a video, the proposals, the pooling: identities of the sheet and what breaks them."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.lstr.method.backbone import Backbone, PerFrame, SmallBackbone, small_2d
from labkit.papers.lstr.method.feature_bank import FeatureBank
from labkit.papers.lstr.method.heads import Head, refinement_loss
from labkit.papers.lstr.method.long_term import GraphConvolution, LongTermRelation, allowed, symmetric
from labkit.papers.lstr.method.network import Long, Lstr, Settings, Short
from labkit.papers.lstr.method.proposals import ProposalNetwork, ProposalSettings, anchors, assign, recall, thin
from labkit.papers.lstr.method.roi import TubeletFeatures, boxes_over_time
from labkit.papers.lstr.method.short_term import ActorCentricRelation, ShortTermRelation, factorized
from labkit.vision import boxes
from labkit.vision.slow_only import SlowOnly, load_weights


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scene(clips: int = 3, k: int = 2, channels: int = 8, frames: int = 2, steps: int = 1):
    """Features, maps of 5 x 6 cells of 4 pixels, tubelets."""
    corner = torch.rand(clips, k, frames, 2) * 10
    tubelets = torch.cat([corner, corner + 2 + torch.rand(clips, k, frames, 2) * 6], -1)
    return torch.randn(clips, k, 16), torch.randn(clips, channels, steps, 5, 6), tubelets


def relation(**options) -> ShortTermRelation:
    return ShortTermRelation(8, 16, 4, inner=8, **options)


# -- short term (sheet check 4) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"heads": 2}, {"geometry": False}, {"uniform": True}, {"context": "actors"}, {"factorized": True, "heads": 2}],
)
def test_attention_rows_sum_to_one(options):
    x, maps, tubelets = scene(steps=2)
    output = relation(**options)(x, maps, tubelets, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(output.weights.sum(-1), torch.ones(3, 2, options.get("heads", 1)))
    positions = 2 if options.get("context") == "actors" else 2 * 5 * 6
    assert output.weights.shape[-1] == positions
    assert output.features.shape == x.shape


def test_without_geometry_the_order_of_positions_does_not_matter():
    x, maps, tubelets = scene()
    order = torch.randperm(30)
    shuffled = maps.flatten(2)[..., order].view_as(maps)
    for geometry, same in ((False, True), (True, False)):
        net = relation(geometry=geometry)
        a, b = net(x, maps, tubelets).features, net(x, shuffled, tubelets).features
        assert torch.allclose(a, b, atol=1e-5) == same


def test_zero_output_weights_are_the_identity():
    x, maps, tubelets = scene()
    for net in (relation(), ActorCentricRelation(8, 16)):
        nn.init.zeros_(net.out.weight)
        nn.init.zeros_(net.out.bias)
        assert torch.equal(net(x, maps, tubelets).features, x)


def test_one_position_has_all_the_weight():
    x, maps, tubelets = scene()
    assert torch.equal(relation()(x, maps[..., :1, :1], tubelets).weights, torch.ones(3, 2, 1, 1))


def test_an_actor_looks_near_it_at_first():
    """With content and the network of g silent, weight falls with the distance."""
    net = relation()
    for layer in (net.query, net.geometry[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    tubelets = torch.tensor([[[[6.0, 6.0, 10.0, 10.0]] * 2]])  # center 8, 8: cell (2, 2)
    weights = net(torch.randn(1, 1, 16), torch.randn(1, 8, 1, 5, 6), tubelets).weights.view(5, 6)
    assert weights.argmax() == 2 * 6 + 2
    assert (weights[2, 2:].diff() < 0).all()


def test_padding_is_never_attended_to():
    x, maps, tubelets = scene(k=3)
    valid = torch.tensor([[True, True, False]] * 3)
    net = relation(context="actors")
    padded = net(x, maps, tubelets, valid)
    assert (padded.weights[:, :2, :, 2] == 0).all()
    torch.testing.assert_close(padded.features[:, :2], net(x[:, :2], maps, tubelets[:, :2]).features)


def test_factorized_attention_is_a_product_of_time_and_space():
    """Weights are the product of their sums; where scores are a sum over time and space, they are plain attention's."""
    x, maps, tubelets = scene(steps=2)
    weights = relation(factorized=True)(x, maps, tubelets).weights.unflatten(-1, (2, 30))
    over_time, over_space = weights.sum(-1), weights.sum(-2)
    torch.testing.assert_close(weights, over_time[..., None] * over_space[..., None, :])
    assert not torch.allclose(over_time[..., 0], over_time[..., 1])
    assert over_space.std() > 0
    summed = (torch.randn(3, 1, 2, 2, 1) + torch.randn(3, 1, 2, 1, 30)).flatten(-2)
    torch.testing.assert_close(factorized(summed, 2), summed.softmax(-1))


def test_factorized_attention_over_one_step_is_plain():
    x, maps, tubelets = scene()
    plain, product = relation(), relation(factorized=True)
    product.load_state_dict(plain.state_dict())
    torch.testing.assert_close(product(x, maps, tubelets).features, plain(x, maps, tubelets).features)
    with pytest.raises(InputError, match="context must be 'clip'"):
        relation(factorized=True, context="actors")


# -- long term (sheet checks 5, 6) ------------------------------------------------------------------------------------


def nodes(videos: int = 2, clips: int = 4, k: int = 2, width: int = 16):
    return torch.randn(videos, clips, k, width), torch.ones(videos, clips, k, dtype=torch.bool)


def test_identity_graph_and_identity_weights():
    layer = GraphConvolution(16, adjacency="identity")
    layer.weight.weight.data = torch.eye(16)
    x = torch.randn(2, 8, 16)
    torch.testing.assert_close(layer(x, torch.ones(2, 8, 8, dtype=torch.bool)).features, x + x.relu())


@pytest.mark.parametrize("adjacency", ["softmax", "symmetric"])
@pytest.mark.parametrize("bank", [False, True])
def test_zero_weights_are_the_identity(adjacency, bank):
    net = LongTermRelation(16, layers=2, adjacency=adjacency, bank=bank)
    for layer in net.layers:
        nn.init.zeros_(layer.weight.weight)
    x, valid = nodes()
    assert torch.equal(net(x, valid).features, x)


@pytest.mark.parametrize("adjacency", ["softmax", "symmetric", "identity"])
def test_permuted_nodes_give_permuted_outputs(adjacency):
    net = LongTermRelation(16, layers=2, adjacency=adjacency, mask="all")
    x, valid = nodes(k=3)
    order = torch.randperm(3)
    torch.testing.assert_close(net(x[:, :, order], valid).features, net(x, valid).features[:, :, order])


@pytest.mark.parametrize("net", [LongTermRelation(16, 2), FeatureBank(16, "max"), FeatureBank(16, "non-local")])
def test_the_past_does_not_hear_the_future(net):
    """Sheet check 5: clip 1 has no derivative at all with respect to clips 2 and 3; clip 3 depends on clip 1."""
    x, valid = nodes()
    x.requires_grad_()
    (early,) = torch.autograd.grad(net(x, valid).features[:, 1].sum(), x)
    assert (early[:, 2:] == 0).all()
    later, changed = net(x, valid).features, x.detach().clone()
    changed[:, 3] += 1
    assert torch.equal(net(changed, valid).features[:, :3], later[:, :3])
    changed = x.detach().clone()
    changed[:, 1] += 1
    assert not torch.allclose(net(changed, valid).features[:, 3], later[:, 3])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_reach_as_many_hops(layers):
    """A path graph: one node a clip, a window of one clip."""
    net = LongTermRelation(16, layers, mask="window", window=1)
    x, valid = nodes(videos=1, clips=6, k=1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, valid).features[0, 5].sum(), x)
    reached = (gradient[0, :, 0] != 0).any(-1)
    assert reached.tolist() == [5 - c <= layers for c in range(6)]


def test_equal_features_share_the_weight_and_symmetric_graphs_have_eigenvalue_one():
    layer = GraphConvolution(16)
    same = torch.randn(1, 1, 16).expand(1, 7, 16)
    everybody = torch.ones(1, 7, 7, dtype=torch.bool)
    torch.testing.assert_close(layer.adjacency(same, everybody), torch.full((1, 7, 7), 1 / 7))
    x = torch.randn(1, 7, 16)
    adjacency = GraphConvolution(16, adjacency="symmetric").adjacency(x, everybody)[0].double()
    torch.testing.assert_close(adjacency, adjacency.T)
    assert torch.linalg.eigvalsh(adjacency)[-1].item() == pytest.approx(1.0, abs=1e-5)
    alone = symmetric(torch.randn(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool))
    torch.testing.assert_close(alone[0], torch.eye(3))


@pytest.mark.parametrize("options", [{}, {"adjacency": "symmetric"}, {"bank": True}, {"mask": "all"}])
def test_padded_videos_equal_those_alone(options):
    """Sheet section 3: videos of different node counts, side by side."""
    net = LongTermRelation(16, 2, **options)
    x, valid = nodes(k=3)
    valid[0, :, 1:] = False
    valid[1, 2] = False
    together = net(x, valid).features
    alone = net(x[:1, :, :1], valid[:1, :, :1]).features
    torch.testing.assert_close(together[:1, :, :1], alone)
    x[0, :, 1:] = 100.0
    torch.testing.assert_close(net(x, valid).features[0, :, 0], together[0, :, 0])


def test_a_bank_gives_neighbours_no_gradient():
    for bank, reaches in ((False, True), (True, False)):
        net = LongTermRelation(16, bank=bank)
        x, valid = nodes()
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(net(x, valid).features[:, 3].sum(), x)
        assert (gradient[:, 0] != 0).any().item() == reaches
        assert (gradient[:, 3] != 0).any()
    torch.manual_seed(1)
    plain = LongTermRelation(16)
    kept = LongTermRelation(16, bank=True)
    kept.load_state_dict(plain.state_dict())
    x, valid = nodes()
    torch.testing.assert_close(kept(x, valid).features, plain(x, valid).features)


def test_linked_tubelets_continue_each_other():
    """Two actors that go on from clip to clip and change their order once; a third clip begins far from the second."""
    left, right, far = (torch.tensor([a, 0.0, a + 10, 10]) for a in (0.0, 30.0, 80.0))
    tubelets = torch.stack(
        [torch.stack([torch.stack(pair) for pair in clip]) for clip in (
            ((left, left), (right, right)), ((right + 2, right + 2), (left + 2, far)), ((far + 2, far), (left, left)))]
    )[None].flatten(1, 2)  # fmt: skip
    clip = torch.arange(3).repeat_interleave(2)
    every = torch.ones(1, 6, dtype=torch.bool)
    pairs = allowed(clip, every, "linked", tubelets=tubelets)[0]
    wanted = torch.eye(6, dtype=torch.bool)
    for i, j in ((0, 3), (1, 2), (3, 4)):  # 3 ends where 4 begins, and neither 2 nor 3 ends where 5 begins
        wanted[i, j] = wanted[j, i] = True
    assert torch.equal(pairs, wanted)
    padded = allowed(clip, every & (torch.arange(6) != 3), "linked", tubelets=tubelets)[0]
    assert padded[3].sum() == padded[:, 3].sum() == 1
    with pytest.raises(InputError, match="give the tubelets"):
        allowed(clip, every, "linked")


@pytest.mark.parametrize("net", [LongTermRelation(16, 2, mask="linked"), FeatureBank(16, "mean", mask="linked")])
def test_a_linked_graph_follows_its_tubelets(net):
    """Two actors that stand still: nothing of the one reaches the other, whatever the weights."""
    x, valid = nodes(videos=1)
    x.requires_grad_()
    stands = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9]])[:, None].expand(1, 4, 2, 2, 4)
    features = net(x, valid, None, stands).features
    (heard,) = torch.autograd.grad(features[0, 1, 0].sum(), x)
    assert (heard[0, :, 1] == 0).all()
    later = features.detach().clone()
    changed = x.detach().clone()
    changed[0, 0, 0] = torch.randn(16)
    again = net(changed, valid, None, stands).features
    assert not torch.allclose(again[0, 1, 0], later[0, 1, 0])
    assert torch.equal(again[0, :, 1], later[0, :, 1])


def test_shuffled_graphs_keep_their_rows():
    net = GraphConvolution(16, adjacency="shuffled")
    x, valid = nodes(videos=1)
    clip = torch.arange(4).repeat_interleave(2)
    pairs = allowed(clip, valid.flatten(1), "past")
    shuffled = net.adjacency(x.flatten(1, 2), pairs)
    net.kind = "softmax"
    plain = net.adjacency(x.flatten(1, 2), pairs)
    torch.testing.assert_close(shuffled.sort(-1).values, plain.sort(-1).values)
    assert ((shuffled > 0) <= pairs).all()
    assert not torch.allclose(shuffled, plain)


def test_feature_banks_pool_what_they_say():
    x, valid = nodes(videos=1, clips=3, k=1)
    mean, most = FeatureBank(16, "mean"), FeatureBank(16, "max")
    assert torch.equal(mean(x, valid).features[:, 0], x[:, 0])  # nobody before the first clip
    assert torch.equal(most(x, valid).features[:, 0], x[:, 0])
    torch.testing.assert_close(mean(x, valid).adjacency[0, 2], torch.tensor([0.5, 0.5, 0]))
    wanted = x[0, 2, 0] + most.out(most.norm(torch.maximum(x[0, 0, 0], x[0, 1, 0]))).relu()
    torch.testing.assert_close(most(x, valid).features[0, 2, 0], wanted)


# -- proposals (sheet check 3) ----------------------------------------------------------------------------------------


def test_offsets_lead_there_and_back():
    a, b = (torch.rand(50, 4, dtype=torch.float64) for _ in range(2))
    a, b = (torch.cat([x[:, :2] * 20, x[:, :2] * 20 + 1 + x[:, 2:] * 9], 1) for x in (a, b))
    torch.testing.assert_close(boxes.decode(boxes.encode(b, a), a), b)
    torch.testing.assert_close(boxes.encode(boxes.decode(b / 20, a), a), b / 20)
    assert boxes.decode(torch.full((1, 4), 1e4), a[:1].float()).isfinite().all()
    assert boxes.clip(torch.tensor([-3.0, 2.0, 99.0, 7.0]), 5, 50).tolist() == [0, 2, 50, 5]


def test_anchors_stand_on_the_cells():
    boxes = anchors(2, 3, 4, (8.0, 16.0), (1.0, 4.0)).view(2, 3, 4, 4)
    assert boxes[1, 2, 0].tolist() == [4.0, 0.0, 12.0, 8.0]
    sides = boxes[0, 0, :, 2:] - boxes[0, 0, :, :2]
    assert sides.tolist() == [[8, 8], [4, 16], [16, 16], [8, 32]]  # w, h = size / sqrt(ratio), size * sqrt(ratio)


def test_the_assignment_of_anchors():
    overlaps = torch.tensor([[[0.6, 0.1], [0.2, 0.35], [0.45, 0.1], [0.1, 0.1]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    positive, negative, match = assign(overlaps, both, 0.5, 0.3)
    assert positive.tolist() == [[True, True, False, False]]  # the second is the best there is for truth 1
    assert negative.tolist() == [[False, False, False, True]]  # the third is neither
    assert match[0, :2].tolist() == [0, 1]
    padded = assign(overlaps, torch.tensor([[True, False]]), 0.5, 0.3)
    assert padded[0].tolist() == [[True, False, False, False]]
    nothing = assign(overlaps[:, :, :0], both[:, :0], 0.5, 0.3)
    assert not nothing[0].any()
    assert nothing[1].all()


def test_proposals_find_what_they_are_taught():
    """A map that marks its two objects: after some steps both are found."""
    truth = torch.tensor([[[[6.0, 6, 18, 18], [7, 6, 19, 18]], [[26, 22, 36, 32], [26, 21, 36, 31]]]])
    maps = torch.zeros(1, 4, 1, 10, 10)
    maps[0, 0, 0, 3, 3] = maps[0, 1, 0, 7, 8] = 1.0
    net = ProposalNetwork(4, 2, 4, ProposalSettings(sizes=(11.0,)))
    valid = torch.ones(1, 2, dtype=torch.bool)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        sum(net.loss(maps, truth, valid)).backward()
        optimizer.step()
    proposals = net.propose(maps, 2, (40, 40))
    assert recall(proposals, truth, valid, 0.5) == 1.0
    assert proposals.valid.all()
    assert (proposals.scores[:, 0] >= proposals.scores[:, 1]).all()


def test_clips_without_truth_teach_background_alone():
    net = ProposalNetwork(4, 2, 4)
    objectness, offsets = net.loss(
        torch.randn(2, 4, 1, 5, 5), torch.zeros(2, 0, 2, 4), torch.zeros(2, 0, dtype=torch.bool)
    )
    assert offsets.item() == 0
    (objectness + offsets).backward()
    assert net.objectness.weight.grad.abs().sum() > 0


def test_thinning_is_suppression_inside_of_each_clip():
    one = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])[:, None]
    proposals = thin(torch.stack([one, one]), torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 4.0]]), 0.3, 3)
    assert proposals.valid.tolist() == [[True, True, False]] * 2
    assert proposals.tubelets[0, :2, 0].tolist() == [one[1, 0].tolist(), one[2, 0].tolist()]
    assert proposals.tubelets[1, :2, 0].tolist() == [one[2, 0].tolist(), one[0, 0].tolist()]
    assert thin(torch.stack([one, one]), torch.zeros(2, 3), 0.3, 1).valid.sum() == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProposalSettings(sizes=()),
        lambda: ProposalSettings(positive=0.2, negative=0.5),
        lambda: ProposalSettings(nms=2.0),
        lambda: ShortTermRelation(8, 16, 4, inner=9, heads=2),
        lambda: LongTermRelation(16, layers=4),
        lambda: Head(16, 0, 2),
        lambda: Settings(width=0),
        lambda: boxes_over_time(torch.zeros(1, 1, 5, 4), 2),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()


# -- pooling, backbones, heads, the whole -----------------------------------------------------------------------------


def test_a_tubelets_features_follow_it():
    """Two objects on one map, a box that moves from one to the other: the mean of what each frame shows."""
    maps = torch.zeros(1, 1, 2, 8, 8)
    maps[0, 0, 0, 2, 2], maps[0, 0, 1, 6, 6] = 1.0, 3.0
    net = TubeletFeatures(1, 4, 4, 1)
    net.project = nn.Identity()
    moving = torch.tensor([[[[7.5, 7.5, 8.5, 8.5], [23.5, 23.5, 24.5, 24.5]]]])  # around cells (2, 2) and (6, 6)
    assert net(maps, moving).item() == pytest.approx((1 + 3) / 2, rel=0.15)
    assert net(maps, moving.flip(2)).item() == pytest.approx(0, abs=0.1)


def test_backbones_share_a_protocol():
    clips = torch.randn(2, 3, 4, 32, 48)
    backbones = (SmallBackbone(), small_2d(), SlowOnly((1, 1, 1, 1), 8))
    for net, steps in zip(backbones, (2, 4, 4), strict=True):
        assert isinstance(net, Backbone)
        maps = net(clips)
        assert maps.shape == (2, net.channels, steps, 32 // net.stride, 48 // net.stride)


def test_a_per_frame_network_is_a_3d_one_that_does_not_look_at_neighbours():
    """Sheet check 12: a temporal kernel (0, 1, 0)."""
    flat = nn.Conv2d(3, 5, 3, padding=1)
    deep = nn.Conv3d(3, 5, 3, padding=1)
    nn.init.zeros_(deep.weight)
    deep.weight.data[:, :, 1], deep.bias.data = flat.weight.data, flat.bias.data
    clips = torch.randn(2, 3, 4, 9, 9)
    torch.testing.assert_close(PerFrame(flat, 5, 1)(clips), deep(clips), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="4 maps"):
        PerFrame(flat, 4, 1)(clips)


def test_slow_only_takes_2d_and_3d_weights(tmp_path):
    from safetensors.torch import save_file

    net, other = SlowOnly((1, 1, 1, 1), 4), SlowOnly((1, 1, 1, 1), 4)
    flat = {
        name: value[:, :, value.shape[2] // 2].clone() if value.dim() == 5 else value.clone()
        for name, value in net.state_dict().items()
    }
    save_file({**flat, "fc.weight": torch.zeros(3, 3)}, tmp_path / "flat.safetensors")
    missing = load_weights(other, tmp_path / "flat.safetensors")
    assert missing == []
    still = torch.randn(1, 3, 1, 32, 32).expand(1, 3, 3, 32, 32)
    net.eval(), other.eval()
    each = other(still)
    torch.testing.assert_close(each[:, :, 0], each[:, :, 2])  # inflated: every frame by itself
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight has shape"):
        load_weights(other, tmp_path / "wrong.safetensors")
    save_file({"nothing": torch.zeros(1)}, tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="none of this network's"):
        load_weights(other, tmp_path / "none.safetensors")
    temporal = 2 * (512 * 256 + 5 * 1024 * 256 + 1024 * 512 + 2 * 2048 * 512)  # 3 x 1 x 1 in place of 1 x 1 x 1
    assert sum(p.numel() for p in SlowOnly().parameters()) == 25_557_032 - 2048 * 1000 - 1000 + temporal


def test_heads_single_and_multi():
    x = torch.randn(4, 8)
    single, multi = Head(8, 3, 2), Head(8, 3, 2, "multi")
    logits, offsets = single(x)
    assert logits.shape == (4, 4)
    assert offsets.shape == (4, 2, 4)
    targets = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    wanted = nn.functional.cross_entropy(logits[:3], torch.tensor([1, 3, 0]))
    counted = torch.tensor([True, True, True, False])
    torch.testing.assert_close(single.loss(logits, targets, counted), wanted)
    torch.testing.assert_close(single.probabilities(logits), logits.softmax(-1)[:, :3])
    many = multi(x)[0]
    wanted = nn.functional.binary_cross_entropy_with_logits(many[:3], targets[:3])
    torch.testing.assert_close(multi.loss(many, targets, counted), wanted)
    assert single.loss(logits, targets, ~counted & counted).item() == 0
    truth = torch.rand(4, 2, 4) + torch.tensor([0, 0, 2.0, 2.0])
    assert refinement_loss(boxes.encode(truth, truth + 0.1), truth + 0.1, truth).item() == pytest.approx(0, abs=1e-9)
    assert refinement_loss(offsets[:0], truth[:0], truth[:0]).item() == 0


def forward(settings: Settings, clips: Tensor, tubelets: Tensor):
    torch.manual_seed(0)
    net = Lstr(settings, 3, 2).eval()
    return net(clips, tubelets, torch.ones(tubelets.shape[:3], dtype=torch.bool))


def test_cascade_and_parallel_differ_in_what_the_graph_sees():
    """With a silent short-term relation both are the long-term one alone; in general they are not the same."""
    clips, tubelets = torch.rand(2, 3, 3, 2, 24, 24), scene(6)[2].unflatten(0, (2, 3))
    cascade, parallel = Settings(), Settings(order="parallel")
    assert not torch.allclose(forward(cascade, clips, tubelets).logits, forward(parallel, clips, tubelets).logits)
    for settings in (cascade, parallel):
        torch.manual_seed(0)
        net, alone = Lstr(settings, 3, 2).eval(), Lstr(dataclasses.replace(settings, short=None), 3, 2).eval()
        nn.init.zeros_(net.short.out.weight)
        nn.init.zeros_(net.short.out.bias)
        alone.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("short.")})
        valid = torch.ones(tubelets.shape[:3], dtype=torch.bool)
        torch.testing.assert_close(net(clips, tubelets, valid).logits, alone(clips, tubelets, valid).logits)


@pytest.mark.parametrize("backbone", ["small", "small-2d"])
def test_clips_alone_do_not_know_each_other(backbone):
    """Without the long-term relation a clip's scores depend on that clip only; with it earlier ones matter."""
    clips, tubelets = torch.rand(1, 3, 3, 2, 24, 24), scene(3)[2].unflatten(0, (1, 3))
    changed = clips.clone()
    changed[:, 0] = 0
    for long, same in ((None, True), (Long(), False)):
        settings = Settings(long=long, backbone=backbone, short=Short(heads=2))
        a, b = forward(settings, clips, tubelets).logits, forward(settings, changed, tubelets).logits
        assert torch.allclose(a[:, 2], b[:, 2], atol=1e-6) == same
