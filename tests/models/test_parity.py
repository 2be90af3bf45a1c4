"""The backbones agree with the released network's figures and with the oracle, in float64."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from mmuniformer.models import UniFormer, UniFormerLight

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'reference.json').read_text())
LIGHT = ('xs', 'xxs')
SMALL_NANO = dict(depths=(1, 1, 4, 1), embed_dims=(8, 16, 32, 64), head_dim=16)


def build(arch, **kwargs):
    return (UniFormerLight if arch in LIGHT else UniFormer)(arch, **kwargs)


def build_case(case):
    if case['arch'] in LIGHT:
        return UniFormerLight(case['arch'])
    return UniFormer(case['arch'], stage3_attn=case['attn'], window_size=case['window'])


def fill(model):
    """Give a model formula weights in float64, batch norm on its running statistics."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(reference.formula_state(shapes))
    return model.double().eval()


def worst_error(outs, stages):
    errors = []
    for out, stage in zip(outs, stages, strict=True):
        assert list(out.shape) == stage['shape']
        got = out.detach().flatten()[stage['index']].numpy()
        errors.append(np.abs(got - stage['value']).max() / stage['absmax'])
    return max(errors)


def case_id(case):
    return '-'.join(map(str, (case['arch'], case['attn'] or 'hourglass', *case['input'])))


# The larger cases take seconds each.
CASES = [
    pytest.param(case, id=case_id(case), marks=[pytest.mark.slow] * (case['params'] > 2e7))
    for case in GOLDEN['cases']
    if 'loss' not in case
]


@pytest.mark.parametrize('case', CASES)
def test_agrees_with_released_network(case):
    model = fill(build_case(case))
    assert sum(p.numel() for p in model.parameters()) == case['params']
    with torch.no_grad():
        outs = model(reference.formula_image(case['input']))
    assert worst_error(outs, case['stages']) < 1e-9


def test_gradients_agree_with_released_network():
    (case,) = (case for case in GOLDEN['cases'] if 'loss' in case)
    model = fill(build_case(case))
    outs = model(reference.formula_image(case['input']))
    weights = [np.random.RandomState(100 + i).standard_normal(o.shape) for i, o in enumerate(outs)]
    loss = sum((o * torch.tensor(w)).mean() for o, w in zip(outs, weights, strict=True))
    loss.backward()
    assert loss.item() == pytest.approx(case['loss'], rel=1e-9)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    scale = max(case['grad_norm'].values())
    assert norms == pytest.approx(case['grad_norm'], abs=1e-9 * scale)


@pytest.mark.parametrize('name', [n for n in GOLDEN['keys'] if n.startswith('backbone/')])
def test_state_dict_has_released_names_and_shapes(name):
    arch = name.removeprefix('backbone/').removesuffix('_tl')
    with torch.device('meta'):
        state = build(arch).state_dict()
    text = '\n'.join(f'{key} {tuple(value.shape)}' for key, value in sorted(state.items()))
    assert len(state) == GOLDEN['keys'][name]['count']
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN['keys'][name]['sha256']


@pytest.fixture(scope='module')
def hybrid():
    case = next(case for case in GOLDEN['cases'] if case['attn'] == 'hybrid' and 'loss' in case)
    return case, fill(build_case(case))


@pytest.mark.parametrize(
    'name',
    ['patch_embed1.norm.weight', 'blocks1.0.attn.weight', 'blocks2.1.norm2.running_var',
     'blocks3.3.attn.qkv.bias', 'blocks3.2.pos_embed.weight', 'blocks4.0.mlp.fc2.weight'],
)  # fmt: skip
def test_one_perturbed_weight_breaks_parity(name, hybrid):
    case, model = hybrid
    first = model.state_dict()[name].flatten()[:1]
    before = first.clone()
    first += 1e-3
    with torch.no_grad():
        outs = model(reference.formula_image(case['input']))
    first.copy_(before)
    assert worst_error(outs, case['stages']) > 1e-8


def oracle_windows(model, shape):
    return model.window_sizes((shape[2] // 16) * (shape[3] // 16))


ORACLE_CASES = {
    'global, odd sizes': (dict(), (2, 3, 67, 45)),
    'window 3, padded both ways': (dict(stage3_attn='window', window_size=3), (2, 3, 80, 117)),
    'window larger than the map': (dict(stage3_attn='window', window_size=9), (1, 3, 64, 64)),
    'hybrid 2': (dict(stage3_attn='hybrid', window_size=2), (1, 3, 96, 80)),
    'one entry a block': (
        dict(stage3_attn=['window', 'global', 'global', 'window'], window_size=2), (1, 3, 96, 80)),
    'hybrid with conv stem': (
        dict(conv_stem=True, stage3_attn='hybrid', window_size=3), (2, 3, 75, 97)),
    'head_dim 8': (dict(head_dim=8), (1, 3, 64, 64)),
    'LayerScale everywhere': (dict(layer_scale_init_value=1e-6), (1, 3, 64, 96)),
    'LayerScale in stages 3 and 4': (dict(layer_scale_init_value=(0, 0, 1, 1)), (1, 3, 64, 96)),
    'other FFN ratios': (dict(mlp_ratios=(1, 2, 3, 1.5)), (1, 3, 32, 32)),
}  # fmt: skip


@pytest.mark.parametrize('fused', [True, False], ids=['fused', 'plain'])
@pytest.mark.parametrize('name', ORACLE_CASES)
def test_agrees_with_oracle(name, fused):
    kwargs, shape = ORACLE_CASES[name]
    model = fill(UniFormer('nano', **SMALL_NANO | kwargs, fused_attn=fused))
    x = reference.formula_image(shape)
    expected = reference.uniformer(
        model.state_dict(), x, model.head_dim, oracle_windows(model, shape)
    )
    for out, ref in zip(model(x), expected, strict=True):
        torch.testing.assert_close(out, ref, rtol=0, atol=1e-11 * ref.abs().max().item())


LIGHT_CASES = {
    'preset': (dict(), (2, 3, 96, 64)),
    'odd sizes': (dict(), (1, 3, 101, 75)),
    'no patch kept': (dict(), (1, 3, 32, 32)),
    'other ratios': (
        dict(keep_ratios=((1, 1, 0.7, 0.3), (0.9, 0.2)), trade_offs=((1, 1, 0.7, 0.3), (0.9, 0.2))),
        (2, 3, 96, 96)),
    'LayerScale': (dict(layer_scale_init_value=1e-6), (1, 3, 64, 96)),
}  # fmt: skip


@pytest.mark.parametrize('fused', [True, False], ids=['fused', 'plain'])
@pytest.mark.parametrize('name', LIGHT_CASES)
def test_light_agrees_with_oracle(name, fused):
    kwargs, shape = LIGHT_CASES[name]
    model = fill(UniFormerLight('nano', **kwargs, fused_attn=fused))
    x = reference.formula_image(shape)
    expected = reference.uniformer_light(
        model.state_dict(), x, model.head_dim, model.arch.keep_ratios
    )
    for out, ref in zip(model(x), expected, strict=True):
        torch.testing.assert_close(out, ref, rtol=0, atol=1e-11 * ref.abs().max().item())


def gradients(outs, wanted):
    loss = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).mean() for out in outs)
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize('light', [False, True], ids=['UniFormer', 'UniFormerLight'])
def test_gradients_agree_with_oracle(light):
    model = fill(
        UniFormerLight('nano', layer_scale_init_value=1)
        if light
        else UniFormer('nano', stage3_attn='hybrid', window_size=3, layer_scale_init_value=1)
    )
    x = reference.formula_image((2, 3, 80, 64))
    parameters = dict(model.named_parameters())
    state = model.state_dict() | parameters
    if light:
        expected = reference.uniformer_light(state, x, model.head_dim, model.arch.keep_ratios)
    else:
        windows = oracle_windows(model, x.shape)
        expected = reference.uniformer(state, x, model.head_dim, windows)
    got = gradients(model(x), list(parameters.values()))
    want = gradients(expected, list(parameters.values()))
    scale = max(grad.norm().item() for grad in want)
    for name, a, b in zip(parameters, got, want, strict=True):
        assert (a - b).norm().item() < 1e-11 * scale, name
