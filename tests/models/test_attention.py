"""Fused and plain attention are one function; windows partition and reverse without loss."""

import pytest
import torch

from mmuniformer.compat import TORCH_HAS_ALLOW_LIST
from mmuniformer.models.execution.attention import chunked_attention, fused_attention
from mmuniformer.models.mhra import (
    GlobalMHRA,
    attention_weights,
    partition,
    plain_attention,
    reverse,
)
from mmuniformer.models.uniformer import UniFormer
from mmuniformer.models.uniformer_light import UniFormerLight


def qkv(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(3)]


def test_plain_attention_is_the_formula():
    q, k, v = qkv(2, 3, 5, 4)
    expected = torch.empty_like(q)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                weights = torch.exp(torch.stack([q[b, h, i] @ k[b, h, j] for j in range(5)]) / 2)
                expected[b, h, i] = (weights / weights.sum()) @ v[b, h]
    torch.testing.assert_close(plain_attention(q, k, v), expected, rtol=0, atol=1e-14)


def test_fused_attention_equals_plain_in_output_and_gradients():
    tensors = [t.requires_grad_() for t in qkv(3, 2, 17, 8)]
    outs = [f(*tensors) for f in (plain_attention, fused_attention)]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-13)
    grads = [torch.autograd.grad(out.square().sum(), tensors) for out in outs]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def test_chunked_attention_equals_one_call():
    q, k, v = qkv(7, 2, 5, 4)
    chunked = chunked_attention(q, k, v, dropout=0.0, limit=3)
    torch.testing.assert_close(chunked, fused_attention(q, k, v), rtol=0, atol=1e-15)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_attention_weights_stay_finite_and_sum_to_one_in_half_precision(dtype):
    if dtype == torch.float16 and not TORCH_HAS_ALLOW_LIST:
        pytest.skip('this torch has no matrix product of float16 on CPUs')
    q, k, _ = qkv(1, 1, 4200, 16, dtype=dtype)
    weights = attention_weights(q[:, :, :8] * 30, k)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 8), rtol=0, atol=1e-5)


def test_traced_windows_are_padded_at_other_sizes():
    traced = torch.jit.trace(lambda x: partition(x, 3), torch.randn(1, 6, 9, 2))
    assert traced(torch.randn(1, 6, 9, 2)).shape == (6, 9, 2)
    assert 'pad' in str(traced.graph)


@torch.no_grad()
def test_traced_attention_takes_other_counts_of_tokens():
    """Blocks of weights would be as many at every size."""
    q, k, v = torch.randn(3, 1, 2, 600, 8, dtype=torch.bfloat16).unbind(0)
    traced = torch.jit.trace(lambda *qkv: fused_attention(*qkv), (q, k, v))
    q, k, v = torch.randn(3, 1, 7, 4100, 8, dtype=torch.bfloat16).unbind(0)
    expected = plain_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(traced(q, k, v).float(), expected, rtol=0, atol=0.02)


def test_windows_that_fit_are_partitioned_by_one_copy(monkeypatch):
    monkeypatch.setattr('torch.nn.functional.pad', None)
    assert partition(torch.randn(1, 6, 9, 3), 3).shape == (6, 9, 3)


@pytest.mark.parametrize(('height', 'width', 'size'), [(6, 9, 3), (5, 7, 4), (2, 3, 5), (1, 1, 1)])
def test_windows_partition_and_reverse_without_loss(height, width, size):
    x = torch.randn(2, height, width, 3)
    windows = partition(x, size)
    assert windows.shape == (2 * -(-height // size) * -(-width // size), size * size, 3)
    torch.testing.assert_close(reverse(windows, size, height, width), x, rtol=0, atol=0)


def test_window_padding_is_zero_at_the_right_and_bottom():
    windows = partition(torch.ones(1, 2, 3, 1), 2).view(2, 2, 2)
    assert windows.tolist() == [[[1, 1], [1, 1]], [[1, 0], [1, 0]]]


@pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
def test_fused_and_plain_networks_agree_in_gradients(backbone):
    torch.manual_seed(0)
    fused = backbone('nano', fused_attn=True).double()
    plain = backbone('nano', fused_attn=False).double()
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    for model in (fused, plain):
        sum(out.square().mean() for out in model(x)).backward()
    for (name, a), b in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize('fused', [True, False])
def test_attention_dropout_acts_in_training_only(fused):
    torch.manual_seed(0)
    mhra = GlobalMHRA(32, head_dim=16, attn_drop=0.5)
    if fused:
        mhra.attention = fused_attention
    tokens = torch.randn(1, 9, 32)
    assert not torch.equal(mhra(tokens), mhra(tokens))
    mhra.eval()
    assert torch.equal(mhra(tokens), mhra(tokens))
