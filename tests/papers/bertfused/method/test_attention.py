"""Attention against torch's own, closed forms where the memory says nothing, and what must not matter."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.errors import InputError
from labkit.papers.bertfused.method.attention import Attention, attention_weights, project_together, watch

B, T, S, D, H, D_B = 3, 5, 7, 32, 4, 24


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fused_attention(seed: int = 1) -> Attention:
    """attn_B with biases that are not zero."""
    attention = Attention(D, H, D_B).double()
    for number, value in enumerate(attention.parameters()):
        value.data = 0.3 * drawn(*value.shape, seed=seed + number)
    return attention


def mask() -> Tensor:
    return (torch.arange(S) < torch.tensor([7, 3, 5])[:, None])[:, None, None]


def attend(attention: Attention, x: Tensor, memory: Tensor, allowed: Tensor | None) -> Tensor:
    return attention.attend(attention.queries(x), attention.memory(memory), allowed)


def test_it_is_torchs_attention_with_a_memory_of_another_width():
    ours, theirs = fused_attention(), nn.MultiheadAttention(D, H, kdim=D_B, vdim=D_B, batch_first=True).double()
    with torch.no_grad():
        for part in "qkv":
            getattr(theirs, f"{part}_proj_weight").copy_(getattr(ours, f"{part}_proj").weight)
        theirs.in_proj_bias.copy_(torch.cat([getattr(ours, f"{part}_proj").bias for part in "qkv"]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x, memory = drawn(B, T, D), drawn(B, S, D_B, seed=9)
    wanted, weights = theirs(x, memory, memory, key_padding_mask=~mask()[:, 0, 0], average_attn_weights=False)
    torch.testing.assert_close(attend(ours, x, memory, mask()), wanted, rtol=0, atol=1e-12)
    computed = attention_weights(ours.queries(x), ours.memory(memory).keys, mask())
    torch.testing.assert_close(computed, weights, rtol=0, atol=1e-12)


def test_self_attention_is_torchs_and_causal():
    ours, theirs = Attention(D, H).double(), nn.MultiheadAttention(D, H, batch_first=True).double()
    with torch.no_grad():
        ours.in_proj.bias.copy_(drawn(3 * D))
        theirs.in_proj_weight.copy_(ours.in_proj.weight)
        theirs.in_proj_bias.copy_(ours.in_proj.bias)
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = drawn(B, T, D)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    wanted, weights = theirs(x, x, x, attn_mask=future, average_attn_weights=False)
    queries, memory = ours.itself(x)
    torch.testing.assert_close(ours.attend(queries, memory, causal=True), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention_weights(queries, memory.keys, causal=True), weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(queries, ours.queries(x))
    for ahead, alone in zip(memory, ours.memory(x), strict=True):
        torch.testing.assert_close(ahead, alone)


def test_a_memory_of_equal_rows_answers_the_same_to_every_query():
    """attn = W_o (W_v v + b_v) + b_o: the softmax has nothing to choose."""
    attention, v = fused_attention(), drawn(D_B)
    got = attend(attention, drawn(B, T, D), v.expand(B, S, D_B), mask())
    wanted = attention.out_proj(attention.v_proj(v))
    torch.testing.assert_close(got, wanted.expand(B, T, D), rtol=0, atol=1e-12)


def test_an_empty_memory_leaves_the_output_bias():
    attention = fused_attention()
    nn.init.zeros_(attention.v_proj.bias)
    got = attend(attention, drawn(B, T, D), torch.zeros(B, S, D_B, dtype=torch.float64), mask())
    torch.testing.assert_close(got, attention.out_proj.bias.expand(B, T, D), rtol=0, atol=1e-12)


def test_the_order_of_the_memory_does_not_matter_and_masked_rows_are_not_there():
    attention, x, memory = fused_attention(), drawn(B, T, D), drawn(B, S, D_B, seed=9)
    wanted = attend(attention, x, memory, mask())
    order = torch.randperm(S, generator=torch.Generator().manual_seed(0))
    shuffled = attend(attention, x, memory[:, order], mask()[..., order])
    torch.testing.assert_close(shuffled, wanted, rtol=0, atol=1e-12)
    more = torch.cat([memory, 100 * drawn(B, 4, D_B, seed=3)], 1)
    allowed = torch.cat([mask(), torch.zeros(B, 1, 1, 4, dtype=torch.bool)], -1)
    torch.testing.assert_close(attend(attention, x, more, allowed), wanted, rtol=0, atol=1e-12)


def test_all_layers_keys_and_values_by_one_product_are_those_of_each():
    attentions, memory = [fused_attention(seed) for seed in (1, 20, 40)], drawn(B, S, D_B)
    for stacked in (True, False):
        for together, attention in zip(project_together(attentions, memory, stacked), attentions, strict=True):
            for one, projection in zip(together, (attention.k_proj, attention.v_proj), strict=True):
                alone = projection(memory).unflatten(-1, (H, -1)).transpose(1, 2)
                torch.testing.assert_close(one, alone, rtol=0, atol=1e-12)
    native, x = [Attention(D, H).double() for _ in range(2)], drawn(B, S, D)
    for one, other in zip(project_together(native, x, True), project_together(native, x, False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert project_together([], memory) == []
    sum(part.sum() for projected in project_together(attentions, memory, True) for part in projected).backward()
    assert all(a.k_proj.weight.grad is not None and a.v_proj.bias.grad is not None for a in attentions)


def test_what_is_watched_is_what_was_used():
    attention, x, memory = fused_attention(), drawn(B, T, D), drawn(B, S, D_B, seed=9)
    with watch(nn.ModuleDict({"only": attention})) as watched:
        got = attend(attention, x, memory, mask())
    weights, values = watched["only"][0], attention.memory(memory).values
    torch.testing.assert_close(attention.out_proj((weights @ values).transpose(1, 2).flatten(2)), got)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, T, dtype=torch.float64))
    assert attention.watched is None
    scaled = F.scaled_dot_product_attention(attention.queries(x), *attention.memory(memory), attn_mask=mask())
    torch.testing.assert_close(weights @ values, scaled)


@pytest.mark.parametrize(("width", "heads"), [(10, 4), (0, 1), (8, 0)])
def test_heads_must_divide_the_width(width, heads):
    with pytest.raises(InputError, match="multiple of the number of heads"):
        Attention(width, heads)


def test_scores_are_scaled_by_the_root_of_a_heads_width():
    q, k = drawn(1, 1, 1, 16), drawn(1, 1, 2, 16, seed=1)
    ratio = attention_weights(q, k)[0, 0, 0]
    gap = float((q[0, 0, 0] * (k[0, 0, 0] - k[0, 0, 1])).sum()) / 4
    assert math.log(float(ratio[0] / ratio[1])) == pytest.approx(gap)
