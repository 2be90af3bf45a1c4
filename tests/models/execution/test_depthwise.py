"""Depthwise convolutions have the gradients of the plain ones."""

import pytest
import torch

from mmuniformer.models import UniFormer, UniFormer3D
from mmuniformer.models.execution import set_policies
from mmuniformer.models.execution.depthwise import DepthwiseConvolution
from mmuniformer.models.layers import LAYERS

SHAPES = [(2, 6, 7, 9), (1, 6, 1, 4), (2, 6, 4, 7, 5), (1, 6, 1, 5, 5), (2, 6, 2, 3, 8)]


def conv(shape, kernel_size):
    layer = LAYERS[len(shape) - 2].depthwise(shape[1], kernel_size)
    set_policies(layer)
    return layer


def gradients(layer, x, run):
    with torch.enable_grad():
        return torch.autograd.grad(run(x).square().sum(), (x, layer.weight, layer.bias))


@pytest.mark.parametrize('kernel_size', [3, 5, 7])
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('channels_last', [False, True])
def test_gradients_are_those_of_the_plain_one(shape, kernel_size, channels_last):
    layer = conv(shape, kernel_size)
    x = torch.randn(shape)
    if channels_last:
        x = x.contiguous(memory_format=LAYERS[x.ndim - 2].channels_last)
    x.requires_grad_()
    assert type(layer(x).grad_fn).__name__ == 'DepthwiseConvolutionBackward'
    assert torch.equal(layer(x), layer.plain(x))
    for ours, plain in zip(
        gradients(layer, x, layer), gradients(layer, x, layer.plain), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('shape', [(2, 2, 3, 4), (1, 2, 3, 2, 3)])
def test_gradients_are_exact_and_have_gradients(shape):
    inputs = [torch.randn(shape), torch.randn(2, 1, *[3] * (len(shape) - 2)), torch.randn(2)]
    inputs = [value.double().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(DepthwiseConvolution.apply, inputs)
    assert torch.autograd.gradgradcheck(DepthwiseConvolution.apply, inputs)


@pytest.mark.parametrize('shape', SHAPES)
def test_autocast_computes_in_half_precision_and_returns_whole_gradients(shape):
    layer = conv(shape, 5)
    x = torch.randn(shape, requires_grad=True)
    exact = gradients(layer, x, layer.plain)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
        assert out.dtype == torch.bfloat16
        ours = gradients(layer, x, lambda x: layer(x).float())  # backward under autocast
    after = torch.autograd.grad(out.float().square().sum(), (x, layer.weight, layer.bias))
    for found in (ours, after):
        for value, wanted in zip(found, exact, strict=True):
            assert value.dtype == torch.float32
            assert (value - wanted).abs().max() <= 0.03 * wanted.abs().max()


def test_a_gradient_is_laid_out_as_its_weights():
    layer = conv((1, 4, 6, 6), 3)
    layer.weight.data = layer.weight.data.as_strided((4, 1, 3, 3), (9, 1, 3, 1))
    gradient = gradients(layer, torch.randn(1, 4, 6, 6, requires_grad=True), layer)[1]
    assert gradient.stride() == (9, 1, 3, 1)


def test_only_wanted_gradients_are_computed():
    layer = conv((1, 4, 6, 6), 3)
    layer.weight.requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [36.0] * 4
    assert x.grad is not None


def test_the_plain_one_runs_where_the_kernels_are_not():
    layer = conv((1, 4, 6, 6), 3)
    x = torch.randn(1, 4, 6, 6)
    assert 'PythonOp' not in str(torch.jit.trace(layer, x).graph)
    exact = layer.double()(x.double())
    assert type(exact.grad_fn).__name__ == 'ConvolutionBackward0'
    with torch.autocast('cpu', torch.bfloat16):
        assert layer(x.double()).dtype == torch.float64


@pytest.mark.parametrize('kernel_size', [1, 9])
def test_other_kernels_run_plainly(kernel_size):
    layer = conv((1, 4, 1, 1), kernel_size)
    out = layer(torch.randn(1, 4, 1, 1))
    assert type(out.grad_fn).__name__ == 'ConvolutionBackward0'


def test_types_are_not_mixed():
    layer = conv((1, 4, 6, 6), 3)
    with pytest.raises(RuntimeError, match='same'):
        layer(torch.randn(1, 4, 6, 6, dtype=torch.bfloat16))


def test_functional_gradients():
    layer = conv((3, 4, 6, 6), 5)
    x = torch.randn(3, 4, 6, 6)

    def loss(parameters):
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(dict(layer.named_parameters()))
    wanted = gradients(layer, x.requires_grad_(), layer.plain)[1:]
    for name, gradient in zip(('weight', 'bias'), wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dims', [2, 3])
def test_init_cfg_takes_position_embeddings_for_convolutions(dims):
    backbone = {2: UniFormer, 3: UniFormer3D}[dims]
    model = backbone('nano', init_cfg={'type': 'Constant', 'val': 7.0, 'layer': f'Conv{dims}d'})
    model.init_weights()
    for module in (model.blocks1[0].pos_embed, model.blocks1[0].attn, model.blocks4[0].pos_embed):
        assert torch.equal(module.weight, torch.full_like(module.weight, 7.0))


@pytest.mark.parametrize(
    ('backbone', 'shape'), [(UniFormer, (2, 3, 75, 64)), (UniFormer3D, (2, 3, 6, 64, 40))]
)
def test_a_network_without_policies_has_the_same_gradients(backbone, shape):
    model = backbone('nano', out_indices=(3,), out_norm='LN')
    x = torch.randn(shape)

    def gradients_of_all():
        model.zero_grad()
        out = model(x)
        (out if torch.is_tensor(out) else out[0]).square().mean().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    ours = gradients_of_all()
    set_policies(model, fused_attn=False, recomputed='nothing', policies={})
    for name, wanted in gradients_of_all().items():
        # Those of biases before a BatchNorm are 0, but for rounding.
        assert (ours[name] - wanted).abs().max() <= 1e-3 * wanted.abs().max() + 1e-6, name
