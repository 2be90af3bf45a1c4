"""What inference on a CPU does in other ways gives what the plain lines give."""

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn

from mmuniformer.models import UniFormer, UniFormer3D, UniFormerLight, layers
from mmuniformer.models.blocks import LocalBlock
from mmuniformer.models.execution import attention, set_policies, tiling
from mmuniformer.models.mhra import plain_attention


def filled(backbone, **kwargs):
    model = backbone('nano', **kwargs)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(reference.formula_state(shapes))
    return model.eval()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shape', [(2, 5, 7, 12), (3, 12), (2, 9, 12)])
def test_linear_is_linear(shape, dtype):
    layer = layers.Linear(12, 20).to(dtype)
    set_policies(layer)
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    out, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    tolerance = 1e-6 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    for ours, theirs in zip(
        torch.autograd.grad(out.square().sum(), (x, layer.weight, layer.bias)),
        torch.autograd.grad(expected.square().sum(), (x, layer.weight, layer.bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance * 10, atol=tolerance * 100)


def test_linear_takes_tokens_that_are_no_whole_block_of_memory():
    layer = layers.Linear(12, 20)
    set_policies(layer)
    x = torch.randn(4, 9, 24)[:, 1:8, ::2]
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_tokens_are_a_channels_last_map_without_a_copy():
    tokens = torch.randn(6, 8)
    x = tiling.as_map(tokens)
    assert x.shape == (1, 8, 6, 1)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.data_ptr() == tokens.data_ptr()
    assert torch.equal(x[0, :, 4, 0], tokens[4])


@pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
@torch.no_grad()
def test_a_network_without_policies_gives_the_same(backbone):
    model = filled(backbone, layer_scale_init_value=0.5)
    x = reference.formula_image((2, 3, 75, 112)).float()
    outs = model(x)
    set_policies(model, fused_attn=False, policies={})
    assert not any(m.policy for m in model.modules() if isinstance(m, layers.PolicyModule))
    for out, ref in zip(outs, model(x), strict=True):
        assert (out - ref).abs().max() <= 1e-5 * ref.abs().max()


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('layout', ['global', 'hybrid'])
@torch.no_grad()
def test_tiles_change_no_output(layout, deploy, monkeypatch):
    model = filled(UniFormer, stage3_attn=layout, window_size=3, layer_scale_init_value=0.5)
    x = reference.formula_image((2, 3, 75, 112)).float()
    with torch.enable_grad():
        expected = model(x)
    if deploy:
        model.switch_to_deploy()
    monkeypatch.setattr(tiling, 'CACHED_VALUES', 64 * 37)
    monkeypatch.setattr(tiling, 'CACHED_TILE', 16 * 28 * 4)  # of stage 1: 4 rows and 3 twice
    before = x.clone()
    for out, ref in zip(model(x), expected, strict=True):
        assert (out - ref).abs().max() <= 1e-5 * ref.abs().max()
    assert torch.equal(x, before)


def test_tiles_see_the_rows_beside_them(monkeypatch):
    monkeypatch.setattr(tiling, 'CACHED_TILE', 2 * 3 * 4)
    seen = []

    def blur(x):
        seen.append(x.shape[2])
        return F.avg_pool2d(x, (5, 1), stride=1, padding=(2, 0))

    x = torch.randn(2, 2, 11, 3).contiguous(memory_format=torch.channels_last)
    out = tiling.by_tiles(blur, x, reach=2)
    assert seen == [6, 8, 5] * 2
    torch.testing.assert_close(out, blur(x))
    assert not torch.allclose(tiling.by_tiles(blur, x, reach=1), blur(x))


@torch.no_grad()
def test_tiles_are_as_small_as_asked(monkeypatch):
    monkeypatch.setattr(tiling, 'CACHED_VALUES', 80)
    block = LocalBlock(3, 8 / 3).eval()
    seen = []
    block.mlp.register_forward_hook(lambda _, args, out: seen.append(tuple(args[0].shape)))
    tokens = torch.randn(2, 3, 4, 3)
    expected = block.transform(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    seen.clear()
    out = tiling.add_ffn(block, tokens, tiling.as_map)
    assert seen == [(1, 3, 10, 1), (1, 3, 10, 1), (1, 3, 4, 1)]
    assert out.data_ptr() == tokens.data_ptr()
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('why', [None, 'training', 'part', 'hook', 'gradients', 'layout'])
def test_blocks_run_in_tiles_where_nothing_else_sees_their_maps(why):
    block = LocalBlock(3, 2).train(why == 'training')
    block.conv1.train(why in ('training', 'part'))
    if why == 'hook':
        block.norm2.register_forward_hook(lambda *args: None)
    x = torch.randn(2, 3, 3, 4)
    if why != 'layout':
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(why == 'gradients'):
        assert tiling.tileable(block, x) == (why is None)


@pytest.mark.parametrize('many', [1, 1 << 20])
@pytest.mark.parametrize('limit', [7, 30, 100, 1 << 20])
def test_cached_attention_attends_alike(limit, many, monkeypatch):
    monkeypatch.setattr(attention, 'CACHED_WEIGHTS', limit)
    monkeypatch.setattr(attention, 'MANY_WEIGHTS', many)
    q, k, v = torch.randn(3, 4, 2, 6, 8, dtype=torch.float64).transpose(2, 3).unbind(0)
    out = attention.cached_attention(q, k, v)
    torch.testing.assert_close(out, plain_attention(q, k, v), rtol=0, atol=1e-14)


@pytest.mark.parametrize('amx', [False, True])
@torch.no_grad()
def test_bfloat16_attends_by_the_kernel_that_the_cpu_is_fast_at(amx, monkeypatch):
    monkeypatch.setattr(attention, 'HAS_AMX', amx)
    calls = []
    monkeypatch.setattr(attention, 'cached_attention', lambda *qkv: calls.append(qkv))
    q, k, v = torch.randn(3, 1, 1, 6, 8).unbind(0)
    attention.fused_attention(q, k, v)
    assert calls == []
    attention.fused_attention(*(x.bfloat16() for x in (q, k, v)))
    assert len(calls) == (not amx)


@torch.no_grad()
def test_dropout_drops_in_bfloat16():
    q, k, v = torch.ones(3, 1, 1, 64, 8, dtype=torch.bfloat16).unbind(0)
    assert torch.equal(attention.fused_attention(q, k, v), v)
    assert not torch.equal(attention.fused_attention(q, k, v, dropout=0.5), v)


@torch.no_grad()
def test_channels_first_stays_channels_first():
    model = filled(UniFormer, channels_last=False)
    seen = []
    for stage in range(4):
        for block in model.blocks(stage):
            block.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    model(reference.formula_image((2, 3, 64, 96)).float())
    assert seen == [True] * sum(model.depths)


@pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
@torch.no_grad()
def test_bfloat16_follows_float32(backbone):
    model = filled(backbone)
    x = reference.formula_image((1, 3, 64, 96)).float()
    expected = model(x)
    with torch.autocast('cpu', torch.bfloat16):
        for out, ref in zip(model(x), expected, strict=True):
            assert (out.float() - ref).abs().mean() <= 0.02 * ref.abs().mean()


HOOKS = {
    'hook on fc1': lambda ffn, hook: ffn.fc1.register_forward_hook(hook),
    'hook on act': lambda ffn, hook: ffn.act.register_forward_hook(hook),
    'any hook': lambda ffn, hook: nn.modules.module.register_module_forward_hook(hook),
}


@pytest.mark.parametrize('why', [None, 'training', *HOOKS])
def test_hidden_layer_is_overwritten_in_inference_without_hooks_alone(why):
    ffn = layers.FFN(4, 2)
    set_policies(ffn)
    x, hidden = torch.randn(3, 4), torch.randn(3, 8)
    before, expected = hidden.clone(), ffn.output(hidden).detach()
    ffn.fc1 = Given(hidden)
    ffn.train(why == 'training')
    seen = []
    hook = why in HOOKS and HOOKS[why](ffn, lambda module, *_: seen.append(module))
    with torch.no_grad():
        torch.testing.assert_close(ffn(x), expected)
    if hook:
        hook.remove()
        assert seen
    assert torch.equal(hidden, F.gelu(before) if why is None else before)


class Given(nn.Module):
    """A layer that gives what it was made with."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


@pytest.mark.parametrize('training', [False, True])
@torch.no_grad()
def test_another_activation_is_used(training):
    ffn = layers.FFN(4, 2).train(training)
    ffn.act = nn.ReLU()
    x = torch.randn(3, 4)
    torch.testing.assert_close(ffn(x), ffn.fc2(ffn.fc1(x).relu()))


@pytest.mark.parametrize('deploy', [False, True])
@torch.no_grad()
def test_tiles_change_no_dtype(deploy, monkeypatch):
    """LayerScale in float32 makes float32 of what a convolution gave in bfloat16."""
    model = filled(UniFormer, layer_scale_init_value=0.5)
    if deploy:
        model.switch_to_deploy()
    x = reference.formula_image((1, 3, 96, 96)).float()
    with torch.autocast('cpu', torch.bfloat16):
        expected = model(x)
        monkeypatch.setattr(tiling, 'CACHED_TILE', 1)
        outs = model(x)
    for out, ref in zip(outs, expected, strict=True):
        assert out.dtype == ref.dtype
        assert (out - ref).abs().mean() <= 0.02 * ref.abs().mean()


@torch.no_grad()
def test_attention_by_blocks_is_as_close_in_bfloat16_as_the_fused_kernel():
    q, k, v = torch.randn(3, 1, 2, 600, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    expected = plain_attention(q, k, v)
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    ours, theirs = (
        (out.float() - expected).abs().max()
        for out in (attention.cached_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    )
    assert ours <= 2 * theirs


@torch.no_grad()
def test_clips_run_in_tiles(monkeypatch):
    model = filled(UniFormer3D, layer_scale_init_value=0.5)
    x = torch.randn(2, 3, 6, 75, 112)
    with torch.enable_grad():
        expected = model(x)
    monkeypatch.setattr(tiling, 'CACHED_VALUES', 64 * 37)
    monkeypatch.setattr(tiling, 'CACHED_TILE', 16 * 3 * 28 * 4)  # of stage 1: 4 rows and 3 twice
    tiles = []
    monkeypatch.setattr(model.blocks1[0], 'mix', recorded(model.blocks1[0].mix, tiles))
    out = model(x)
    assert {shape[0] for shape in tiles} == {1}
    assert len(tiles) == 2 * 5
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


def recorded(function, shapes):
    """Return a function that notes the shape of its input."""

    def call(x):
        shapes.append(tuple(x.shape))
        return function(x)

    return call
