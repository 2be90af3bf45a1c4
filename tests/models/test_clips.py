"""Backbones for clips: policies, options and arguments; parity is in test_classification."""

import functools
import inspect

import pytest
import reference
import torch
from torch import nn

from mmuniformer.errors import InputError
from mmuniformer.models import UniFormer3D, UniFormerLight3D
from mmuniformer.models.execution import set_policies

KINDS = {
    'joint': (UniFormer3D, {}),
    'split': (UniFormer3D, dict(split=True)),
    'LayerScale': (UniFormer3D, dict(layer_scale_init_value=0.1)),
    'hourglass': (UniFormerLight3D, {}),
    'hourglass with LayerScale': (UniFormerLight3D, dict(layer_scale_init_value=0.1)),
}


def filled(name, **options):
    kind, kwargs = KINDS[name]
    model = kind('nano', **kwargs, **options)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    model.load_state_dict(reference.formula_state(shapes))
    return model.double()


def clip(batch=2, frames=5, height=64, width=40):
    return reference.formula_image((batch, 3, frames, height, width))


def outputs_and_gradients(model):
    out = model(clip())
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, torch.autograd.grad((out * weights).sum(), list(model.parameters()))


@functools.cache
def what_the_plain_one_gives(name):
    """Outputs and gradients of a step, the buffers it moved, and the outputs after it."""
    plain = filled(name, fused_attn=False)
    set_policies(plain, fused_attn=False, policies={})
    mean = plain.norm.running_mean.clone()
    expected, moved = outputs_and_gradients(plain.train()), dict(plain.named_buffers())
    assert not torch.equal(moved['norm.running_mean'], mean)
    with torch.no_grad():
        return expected, moved, plain.eval()(clip())


@pytest.mark.parametrize('options', [
    dict(), dict(with_cp=True), dict(with_cp=False, channels_last=False),
    dict(with_cp=(1, 0, 2, 0)),
], ids=str)  # fmt: skip
@pytest.mark.parametrize('name', KINDS)
def test_fused_recomputing_network_gives_what_the_plain_one_gives(name, options):
    expected, moved, tested = what_the_plain_one_gives(name)
    model = filled(name, **options)
    got = outputs_and_gradients(model.train())
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=1e-11)
    scale = max(grad.norm().item() for grad in expected[1])
    for a, b in zip(got[1], expected[1], strict=True):
        assert (a - b).norm().item() < 1e-11 * scale
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, moved[key])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(clip()), tested, rtol=0, atol=1e-10)


@pytest.mark.parametrize('name', KINDS)
@torch.no_grad()
def test_folding_keeps_outputs(name):
    model = filled(name).eval()
    expected = model(clip())
    model.switch_to_deploy()
    assert (model(clip()) - expected).abs().max() <= 1e-11 * expected.abs().max()


@torch.no_grad()
def test_outputs_of_stages_are_bare_maps_but_for_the_last():
    model = filled('joint', out_indices=(0, 2, 3)).eval()
    outs = model(clip(frames=4))
    assert [tuple(out.shape) for out in outs] == [
        (2, 16, 2, 16, 10), (2, 64, 2, 4, 2), (2, 128, 2, 2, 1)
    ]  # fmt: skip
    torch.testing.assert_close(outs[-1], filled('joint').eval()(clip(frames=4)))
    assert not [name for name, _ in model.named_parameters() if name.startswith('norm1')]


@pytest.mark.parametrize(('frames', 'left'), [(1, 1), (2, 1), (5, 3), (16, 8)])
@torch.no_grad()
def test_every_second_frame_is_left(frames, left):
    for kind in (UniFormer3D, UniFormerLight3D):
        assert kind('nano').eval()(torch.rand(1, 3, frames, 32, 32)).shape[2] == left


def test_stages_freeze_and_batch_norm_stays():
    model = filled('joint', frozen_stages=1, norm_eval=True).train()
    model(clip()).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not [name for name in trained if name.startswith(('patch_embed1', 'blocks1'))]
    assert {name.partition('.')[0] for name in trained} == {
        *(f'{part}{stage}' for part in ('patch_embed', 'blocks') for stage in (2, 3, 4)), 'norm'
    }  # fmt: skip
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm3d))


def test_attention_along_time_starts_as_nothing():
    model = UniFormer3D('nano', split=True)
    joint = UniFormer3D('nano')
    state = model.state_dict()
    assert state['blocks3.0.t_attn.qkv.weight'].abs().max() == 0
    assert state['blocks3.0.t_attn.proj.weight'].min() == 1
    joint.load_state_dict({k: v for k, v in state.items() if '.t_' not in k})
    # A clip of one frame has nothing to relate along time.
    x = torch.rand(1, 3, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), joint.eval()(x))


def test_layer_depth_covers_every_parameter():
    for kind in (UniFormer3D, UniFormerLight3D):
        model = kind('nano')
        depths = [model.get_layer_depth(name) for name, _ in model.named_parameters()]
        assert {depth for depth, _ in depths} == set(range(sum(model.depths) + 2))


def test_signature_shows_the_arguments_of_both_parents():
    names = set(inspect.signature(UniFormer3D).parameters)
    assert {
        'split',
        'time_kernels',
        'layer_norm_eps',
        'window_size',
        'with_cp',
        'init_cfg',
    } <= names
    with pytest.raises(TypeError, match="no argument 'time_kernel': did you mean 'time_kernels'"):
        UniFormer3D('nano', time_kernel=3)


@pytest.mark.parametrize(('options', 'error', 'text'), [
    (dict(time_kernels=(3, 2, 1, 1)), ValueError, 'time_kernels=.* should be 4 odd numbers'),
    (dict(time_kernels=7), ValueError, 'time_kernels=7 should be 4 odd numbers'),
    (dict(stage3_attn='window'), ValueError, "stage3_attn='window' is for images"),
    (dict(mix_token=True), ValueError, 'mix_token=True is for images'),
    (dict(out_norm='SyncBN'), ValueError, "out_norm='SyncBN' should be 'LN' or 'BN'"),
    (dict(out_indices=(0, 1)), ValueError, r'out_indices=\(0, 1\) should end with 3'),
])  # fmt: skip
def test_wrong_arguments_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        UniFormer3D('nano', **options)


@pytest.mark.parametrize(('shape', 'error', 'text'), [
    ((1, 3, 64, 64), ValueError, r'takes \(B, 3, T, H, W\), not \(1, 3, 64, 64\): stack clips'),
    ((1, 3, 0, 64, 64), ValueError, 'at least one clip'),
    ((1, 3, 4, 16, 64), InputError, 'an image of 16 x 64'),
])  # fmt: skip
def test_wrong_inputs_are_refused(shape, error, text):
    with pytest.raises(error, match=text):
        UniFormer3D('nano')(torch.rand(shape))
