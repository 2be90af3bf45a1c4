"""Profiles really change how a network runs, and not what it computes."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine import Config

from mmuniformer import models
from mmuniformer.analysis.benchmark.cases import Case, Settings, in_profile
from mmuniformer.analysis.benchmark.measure import KINDS, kind_of, seconds_by_kind
from mmuniformer.analysis.benchmark.profiles import INFERENCE, PROFILES, TRAINING, parse_profiles
from mmuniformer.analysis.benchmark.run import difference
from mmuniformer.errors import UserError
from mmuniformer.models.execution.attention import fused_attention

SHAPE = (64, 64)


def case_of(name, mode=INFERENCE, kind='UniFormer', **backbone):
    backbone = {'type': f'mmuniformer.{kind}', 'arch': 'nano', **backbone}
    cfg = in_profile(Config({'model': backbone}), PROFILES[name])
    settings = Settings('backbone', 'nano', None, (SHAPE,), 1, 1, mode, 'cpu')
    return Case(name, cfg, settings, '', PROFILES[name])


@pytest.mark.parametrize('kind', ['UniFormer', 'UniFormerLight'])
@pytest.mark.parametrize(
    ('name', 'mode', 'wanted'),
    [
        ('plain', INFERENCE, (False, False, False, False)),
        ('plain', TRAINING, (False, False, False, False)),
        ('fused', INFERENCE, (True, True, 'parts', False)),
        ('deploy', INFERENCE, (True, True, 'parts', True)),
        ('bf16', INFERENCE, (True, True, 'parts', True)),
        ('bf16', TRAINING, (True, True, 'parts', False)),
        ('compile', INFERENCE, (True, True, 'parts', True)),
        ('compile', TRAINING, (True, True, 'parts', False)),
        ('cp', TRAINING, (True, True, True, False)),
    ],
)
def test_switches_are_the_profiles_whatever_the_config_has(name, mode, wanted, kind):
    case = case_of(
        name, mode, kind, fused_attn=name == 'plain', channels_last=False, with_cp=(1, 0, 0, 0)
    )
    backbone = case.build()
    attention = {m.attention for m in backbone.modules() if hasattr(m, 'attention')}
    found = (
        attention == {fused_attention},
        backbone.channels_last,
        backbone.with_cp,
        backbone.deployed is not None,
    )
    assert found == wanted
    assert len(attention) == 1
    assert backbone.training == (mode == TRAINING)
    assert (backbone._compiled_call_impl is not None) == (name == 'compile')
    policies = [m.policy for m in backbone.modules() if hasattr(m, 'policy')]
    assert policies
    assert any(policies) == (name != 'plain')


def test_fused_is_what_the_package_does_by_default():
    built, default = case_of('fused').build(), models.UniFormer('nano')
    for name in ('channels_last', 'with_cp'):
        assert getattr(built, name) == getattr(default, name)
    for ours, theirs in zip(built.modules(), default.modules(), strict=True):
        for name in ('policy', 'recomputed', 'attention'):
            assert getattr(ours, name, None) == getattr(theirs, name, None)


def test_weights_are_the_same_in_every_profile():
    plain, *others = (case_of(n, TRAINING).build() for n in ('plain', 'fused', 'cp'))
    for other in others:
        torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('name', 'mode', 'low', 'high'),
    [
        ('fused', INFERENCE, 0, 1e-5),
        ('deploy', INFERENCE, 0, 1e-5),
        ('bf16', INFERENCE, 1e-4, 0.1),
        ('cp', TRAINING, 0, 1e-5),
        ('bf16', TRAINING, 1e-4, 0.1),
    ],
)
def test_outputs_are_plains(name, mode, low, high):
    outputs = []
    for case in (case_of(each, mode, drop_path_rate=0.2) for each in (name, 'plain')):
        outputs.append(case.outputs(case.build(), SHAPE))
    assert all(out.dtype == torch.float32 for out in outputs[0])
    assert low <= difference(*outputs) <= high


def test_nan_differs():
    wanted = [torch.ones(2), torch.ones(2)]
    for place in range(2):
        ours = [*wanted]
        ours[place] = torch.tensor([1.0, torch.nan])
        assert math.isnan(difference(ours, wanted))


def test_outputs_of_zeros_have_no_relative_difference():
    assert difference([torch.ones(2)], [torch.zeros(2)]) is None


def test_bfloat16_is_computed_in():
    case = case_of('bf16')
    backbone = case.build()
    seen = []
    backbone.blocks4[0].mlp.fc1.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    case.call(backbone, SHAPE)()
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize('name', ['plain', 'fused', 'cp'])
def test_a_training_step_reaches_all_parameters_and_keeps_their_gradients_memory(name):
    case = case_of(name, TRAINING)
    backbone = case.build()
    reached = set()
    for parameter_name, parameter in backbone.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _, parameter_name=parameter_name: reached.add(parameter_name)
        )
    before = [parameter.grad.data_ptr() for parameter in backbone.parameters()]
    case.call(backbone, SHAPE)()
    assert reached == {name for name, _ in backbone.named_parameters()}
    assert [parameter.grad.data_ptr() for parameter in backbone.parameters()] == before
    assert not any(parameter.grad.any() for parameter in backbone.parameters())


def test_profiles_by_name():
    assert [p.name for p in parse_profiles('plain, fused,plain', INFERENCE)] == ['plain', 'fused']


@pytest.mark.parametrize(
    ('names', 'mode', 'message'),
    [
        ('plain,fast', INFERENCE, "profile 'fast' is unknown: choose from plain, fused, deploy"),
        ('fused,deploy', TRAINING, "profile 'deploy' is not for training"),
        ('cp', INFERENCE, "profile 'cp' is not for inference"),
    ],
)
def test_profiles_that_are_refused(names, mode, message):
    with pytest.raises(UserError, match=message):
        parse_profiles(names, mode)


@pytest.mark.parametrize(
    ('name', 'shapes', 'kind'),
    [
        ('aten::mkldnn_convolution', [[1, 8, 4, 4], [16, 8, 1, 1], [16]], 'dense'),
        ('aten::mkldnn_convolution', [[1, 8, 4, 4], [8, 1, 5, 5], [8]], 'depthwise'),
        ('aten::convolution_backward', [[1, 8, 4, 4], [1, 8, 4, 4], [8, 1, 3, 3]], 'depthwise'),
        ('aten::mkldnn_convolution', [[1, 8, 4, 4, 4], [8, 1, 5, 5, 5], [8]], 'depthwise'),
        ('aten::cudnn_convolution', [[1, 1, 4, 4], [1, 1, 3, 3]], 'dense'),
        ('aten::addmm', [[8], [4, 8], [8, 8]], 'dense'),
        ('mkldnn::_linear_pointwise', [[9, 8], [16, 8], [16]], 'dense'),
        ('aten::_scaled_dot_product_flash_attention_for_cpu', [], 'attention'),
        ('aten::bmm', [], 'attention'),
        ('aten::_softmax', [], 'attention'),
        ('aten::gelu_backward', [], 'gelu'),
        ('aten::native_batch_norm', [], 'norms'),
        ('aten::upsample_bilinear2d', [], 'rest'),
        ('aten::copy_', [], 'rest'),
    ],
)
def test_operators_are_of_a_kind(name, shapes, kind):
    assert kind_of(name, shapes) == kind


def test_time_is_split_by_kinds_of_operators():
    a = torch.randn(64, 64)
    found = seconds_by_kind(lambda: torch.softmax(a, -1) @ a, torch.device('cpu'))
    assert list(found) == list(KINDS)
    assert {kind for kind, seconds in found.items() if seconds} == {'dense', 'attention', 'rest'}

    case = case_of('plain')
    call = case.call(case.build(), SHAPE)
    assert all(seconds_by_kind(call, torch.device('cpu')).values())
    deployed = case_of('deploy')  # operators of oneDNN are counted, too
    call = deployed.call(deployed.build(), SHAPE)
    found = seconds_by_kind(call, torch.device('cpu'))
    assert found['dense'] > found['attention'] > 0
