"""Dense layers by oneDNN give what the plain ones give; packed weights follow their layer."""

import copy
import io
import itertools

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.models import UniFormer
from mmuniformer.models.execution import dense, packing, set_policies
from mmuniformer.models.layers import FFN, Linear, PointwiseConv2d, PointwiseConv3d

TYPES = [torch.float32, torch.bfloat16]
LAYERS = {
    'tokens': (Linear, (2, 5, 7)),
    'image': (PointwiseConv2d, (2, 5, 7)),
    'clip': (PointwiseConv3d, (2, 3, 5, 7)),
}
TOLERANCE = {
    torch.float32: {'rtol': 0, 'atol': 1e-5},
    torch.bfloat16: {'rtol': 0.02, 'atol': 0.03},
}

pytestmark = pytest.mark.skipif(
    not all(map(dense.has_inner_product, TYPES)), reason='this torch or CPU has no inner product'
)


def make(name, dtype=torch.float32, packed=False):
    kind, shape = LAYERS[name]
    layer = kind(12, 20).to(dtype).eval()
    set_policies(layer)
    if packed:
        packing.pack(layer)
    tokens = torch.randn(*shape, 12, dtype=dtype)
    # A map as blocks give it: a view of tokens.
    return layer, tokens if kind is Linear else tokens.movedim(-1, 1)


@pytest.fixture
def calls(monkeypatch):
    """The types, activations and packing of the products that are run."""
    seen, run = [], dense.linear_pointwise

    def spy(x, weight, bias, activation, approximate='none'):
        name = activation if approximate == 'none' else f'{activation}, {approximate}'
        seen.append((x.dtype, name, weight.layout is torch._mkldnn))
        return run(x, weight, bias, activation, approximate)

    monkeypatch.setattr(dense, 'linear_pointwise', spy)
    return seen


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('dtype', TYPES)
@torch.no_grad()
def test_inner_product_is_the_layer(name, dtype, packed, calls):
    layer, x = make(name, dtype, packed)
    out = layer(x)
    assert out.dtype is dtype
    torch.testing.assert_close(out, layer.plain(x), **TOLERANCE[dtype])
    layer.bias += 1
    torch.testing.assert_close(layer(x), out + 1, **TOLERANCE[dtype])
    layer.bias = None
    torch.testing.assert_close(layer(x), layer.plain(x), **TOLERANCE[dtype])
    # In bfloat16 a convolution is as fast, unless weights are packed.
    assert calls == [(dtype, 'none', packed)] * 3 * (packed or dtype is torch.float32)


@pytest.mark.parametrize('approximate', ['none', 'tanh'])
@pytest.mark.parametrize(('name', 'dtype'), list(itertools.product(LAYERS, TYPES)))
@torch.no_grad()
def test_gelu_is_part_of_the_product(name, dtype, approximate, calls):
    kind, _ = LAYERS[name]
    ffn = FFN(12, 2, layer=kind).to(dtype)
    ffn.act = torch.nn.GELU(approximate)
    ffn.eval()
    x = 4 * make(name, dtype)[1]  # where the two functions differ
    expected = ffn.plain(x)
    set_policies(ffn)
    torch.testing.assert_close(ffn(x), expected, **TOLERANCE[dtype])
    assert calls[0] == (dtype, 'gelu' if approximate == 'none' else 'gelu, tanh', False)
    assert len(calls) == (2 if dtype is torch.float32 else 1)


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_autocast_computes_in_its_type(name, packed, calls):
    layer, x = make(name, packed=packed)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
        torch.testing.assert_close(out, layer.plain(x), **TOLERANCE[torch.bfloat16])
    assert out.dtype is torch.bfloat16
    assert calls == [(torch.bfloat16, 'none', True)] * packed


@pytest.mark.parametrize(
    'why',
    ['gradients', 'float64', 'types', 'tracing', 'subclass', 'tensor subclass', 'off', 'absent'],
)
@pytest.mark.parametrize('name', LAYERS)
def test_runs_by_public_operators_where_it_must(name, why, calls, monkeypatch):
    layer, x = make(name, packed=True)
    if why == 'float64':
        layer, x = layer.double(), x.double()
    if why == 'types':
        layer.bfloat16()
    if why == 'subclass':
        layer.__class__ = type('Special', (type(layer),), {})
    if why == 'tensor subclass':
        x = x.as_subclass(type('Special', (torch.Tensor,), {}))
    if why == 'absent':
        monkeypatch.setattr(dense, 'has_inner_product', lambda dtype: False)
    with (
        torch.set_grad_enabled(why == 'gradients'),
        torch.backends.mkldnn.flags(enabled=why != 'off'),
    ):
        if why == 'types':
            with pytest.raises(RuntimeError, match='bias type|same'):
                layer(x)
        elif why == 'tracing':
            torch.jit.trace(layer, x, check_trace=False)
        else:
            torch.testing.assert_close(layer(x), layer.plain(x))
    assert calls == []


@torch.no_grad()
def test_public_operators_run_where_operators_are_seen(calls):
    layer, x = make('tokens', packed=True)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * x.numel() * 20
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(x)).shape == (*x.shape[:-1], 20)
    tangent = torch.func.jvp(layer, (x,), (x,))[1]
    torch.testing.assert_close(tangent, layer.plain(x) - layer.bias)
    assert calls == []


@pytest.mark.parametrize('name', ['image', 'clip'])
@torch.no_grad()
def test_maps_of_whole_channels_are_left_to_convolutions(name, calls):
    layer, x = make(name)
    x = x.contiguous()
    torch.testing.assert_close(layer(x), layer.plain(x))
    single = x[0]
    torch.testing.assert_close(layer(single), layer.plain(single))
    assert calls == []


@pytest.mark.parametrize('fault', ['absent', 'refuses', 'wrong', None])
def test_the_operator_is_tried_before_it_is_used(fault, monkeypatch):
    run = dense.linear_pointwise

    def broken(*args):
        if fault == 'absent':
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")
        if fault == 'refuses':
            raise RuntimeError('could not create a primitive descriptor')
        return run(*args) + (1e-3 if fault == 'wrong' else 0)

    monkeypatch.setattr(dense, 'linear_pointwise', broken)
    with torch.autocast('cpu', torch.bfloat16):  # does not matter
        assert dense.has_inner_product.__wrapped__(torch.float32) == (fault is None)


@pytest.mark.parametrize('change', ['in place', 'state dict', 'type', 'tensor', 'view', 'rows'])
@torch.no_grad()
def test_packed_weights_follow_the_layer(change):
    layer, x = make('tokens', packed=True)
    if change == 'view':
        layer.weight = torch.nn.Parameter(torch.randn(12, 12))
        layer.bias = None
    before = layer(x)
    assert set(layer.packed.by_type) == {torch.float32}
    if change == 'in place':
        layer.weight *= 2
    elif change == 'state dict':
        layer.load_state_dict({**layer.state_dict(), 'weight': layer.weight * 2})
    elif change == 'tensor':
        layer.weight.data = layer.weight * 2
    elif change == 'view':  # the same memory in another order
        layer.weight.data = layer.weight.data.T
    elif change == 'rows':
        layer.weight.data, layer.bias.data = layer.weight.data[:9], layer.bias.data[:9]
    else:
        layer, x = layer.bfloat16(), x.bfloat16()
    torch.testing.assert_close(layer(x), layer.plain(x), **TOLERANCE[x.dtype])
    if change == 'type':
        assert set(layer.packed.by_type) == {torch.bfloat16}
    else:
        assert layer(x).shape != before.shape or not torch.allclose(layer(x), before)


@torch.no_grad()
def test_weights_are_packed_once_for_each_type(monkeypatch):
    made, pack = [], packing.packed_weight
    monkeypatch.setattr(packing, 'packed_weight', lambda w: made.append(w.dtype) or pack(w))
    layer, x = make('tokens', packed=True)
    for _ in range(2):
        layer(x)
        with torch.autocast('cpu', torch.bfloat16):
            layer(x)
    assert made == [torch.float32, torch.bfloat16]


def test_weights_made_in_inference_mode_are_not_packed(calls):
    with torch.inference_mode():
        layer, x = make('tokens', packed=True)
        torch.testing.assert_close(layer(x), layer.plain(x))
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), layer.plain(x))
    assert [packed for *_, packed in calls] == [False, False]


@torch.no_grad()
def test_deployed_networks_pack_and_copies_pack_anew():
    model = UniFormer('nano').eval()
    x = torch.randn(1, 3, 64, 96)
    model.switch_to_deploy()
    names = set(model.state_dict())
    expected = model(x)
    packed = [m for m in model.modules() if getattr(m, 'packed', None) and m.packed.by_type]
    assert len(packed) == 4 * sum(model.depths)  # conv1, conv2 or qkv, proj; fc1, fc2
    assert {type(m) for m in packed} == {Linear, PointwiseConv2d}
    assert set(model.state_dict()) == names
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert not any(m.packed.by_type for m in other.modules() if getattr(m, 'packed', None))
        for out, ref in zip(other(x), expected, strict=True):
            assert torch.equal(out, ref)
