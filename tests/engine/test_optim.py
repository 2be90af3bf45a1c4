"""Layer-wise learning-rate decay: the exact rate of every parameter, and mmengine's own rules."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmuniformer.engine.runner import CheckedRunner
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight

CONSTRUCTOR = 'mmuniformer.LayerDecayOptimWrapperConstructor'
DECAY, LR, WEIGHT_DECAY = 0.5, 0.25, 0.125  # powers of two: equal without a tolerance


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(128, 8, 1)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))


def wrap(model, decay=DECAY, lr=LR, **paramwise):
    cfg = {
        'optimizer': {'type': 'AdamW', 'lr': lr, 'weight_decay': WEIGHT_DECAY},
        'constructor': CONSTRUCTOR,
        'paramwise_cfg': {'layer_decay_rate': decay, **paramwise},
    }
    return build_optim_wrapper(model, cfg)


def settings(model, wrapper, key='lr'):
    """The setting of each parameter's group, by name; fails if a parameter is in two groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    pairs = [
        (names[parameter], group[key])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    ]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


# By depth, from 0: the stem, one a block with what embeds its stage, and last the output norms.
NANO = [
    ['patch_embed1.proj.weight', 'patch_embed1.norm.bias'],
    ['blocks1.0.pos_embed.weight', 'blocks1.0.norm1.weight'],
    ['patch_embed2.proj.bias', 'blocks2.0.conv1.weight'],
    ['blocks2.1.mlp.fc2.bias'],
    ['patch_embed3.norm.weight', 'blocks3.0.attn.qkv.weight'],
    ['blocks3.1.attn.proj.bias'],
    ['blocks3.2.norm2.weight'],
    ['blocks3.3.mlp.fc1.weight'],
    ['patch_embed4.proj.weight', 'blocks4.0.attn.qkv.bias'],
    ['norm1.weight', 'norm4.bias'],
]
LIGHT_NANO = [
    ['patch_embed1.proj.0.weight', 'patch_embed1.proj.4.bias'],
    *NANO[1:4],
    ['cls_token', 'patch_embed3.norm.weight', 'blocks3.0.attn.qkv.weight'],
    *NANO[5:8],
    ['cls_upsample.weight', 'patch_embed4.proj.weight', 'blocks4.0.attn.qkv.bias'],
    ['blocks4.1.pos_embed.weight'],
    ['norm1.weight', 'norm4.bias'],
]


@pytest.mark.parametrize(
    ('backbone', 'layers'),
    [(UniFormer, NANO), (UniFormerLight, LIGHT_NANO)],
    ids=['UniFormer', 'UniFormerLight'],
)
def test_rates_fall_from_the_last_layer_to_the_stem(backbone, layers):
    model = Model(backbone('nano'))
    rates = settings(model, wrap(model))
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for depth, names in enumerate(layers):
        for name in names:
            assert rates[f'backbone.{name}'] == LR * DECAY ** (len(layers) - 1 - depth)
    outside = {rate for name, rate in rates.items() if not name.startswith('backbone.')}
    assert outside == {LR}
    assert set(rates.values()) == {LR * DECAY**depth for depth in range(len(layers))}


def test_equal_settings_share_a_group():
    model = Model(UniFormer('nano'))
    groups = wrap(model).optimizer.param_groups
    assert [group['lr'] for group in groups] == [LR * DECAY**depth for depth in range(9, -1, -1)]
    assert {group['weight_decay'] for group in groups} == {WEIGHT_DECAY}


def test_the_other_rules_of_mmengine_hold():
    model = Model(UniFormer('nano', drop_path_rate=0.1))
    wrapper = wrap(
        model,
        norm_decay_mult=0.0,
        bias_lr_mult=2.0,
        custom_keys={'backbone.blocks4': {'lr_mult': 0.5, 'decay_mult': 4.0}, 'head': {}},
    )
    rates, decays = settings(model, wrapper), settings(model, wrapper, 'weight_decay')
    assert rates['backbone.blocks4.0.attn.qkv.weight'] == LR * DECAY * 0.5
    assert decays['backbone.blocks4.0.norm1.weight'] == WEIGHT_DECAY * 4  # a custom key wins
    assert decays['backbone.blocks3.0.norm1.weight'] == 0
    assert decays['backbone.blocks3.0.attn.qkv.weight'] == WEIGHT_DECAY
    assert rates['neck.weight'] == LR
    assert rates['neck.bias'] == LR * 2
    assert rates['backbone.blocks3.0.attn.qkv.bias'] == LR * 2 * DECAY**5
    assert rates['backbone.norm4.bias'] == LR  # norms' biases are exempt
    assert rates['head.0.bias'] == LR
    assert decays['head.1.weight'] == WEIGHT_DECAY


def test_decay_of_one_is_the_default_constructor():
    model = Model(UniFormer('nano'))
    paramwise = {'custom_keys': {'norm': {'decay_mult': 0.0}}}
    optimizer = {'type': 'AdamW', 'lr': LR, 'weight_decay': WEIGHT_DECAY}
    default = build_optim_wrapper(model, {'optimizer': optimizer, 'paramwise_cfg': paramwise})
    ours = wrap(model, decay=1, **paramwise)
    assert settings(model, ours, 'weight_decay') == settings(model, default, 'weight_decay')
    assert set(settings(model, ours).values()) == {LR}


def test_a_bare_backbone_and_one_that_is_deeper_inside():
    bare = UniFormer('nano')
    assert settings(bare, wrap(bare))['patch_embed1.proj.weight'] == LR * DECAY**9
    nested = nn.ModuleDict({'detector': Model(UniFormer('nano'))})
    rates = settings(nested, wrap(nested))
    assert rates['detector.backbone.patch_embed1.proj.weight'] == LR * DECAY**9
    assert rates['detector.neck.weight'] == LR


def test_auto_scale_lr_scales_every_layer():
    model = Model(UniFormer('nano'))
    wrapper = wrap(model)
    before = settings(model, wrapper)
    runner = object.__new__(CheckedRunner)
    runner._train_dataloader, runner._world_size = {'batch_size': 4}, 1
    runner.logger, runner.param_schedulers = MMLogger.get_current_instance(), None
    runner.scale_lr(wrapper, {'enable': True, 'base_batch_size': 16})
    assert settings(model, wrapper) == {name: rate / 4 for name, rate in before.items()}


@pytest.mark.frameworks
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpose'])
def test_every_framework_finds_the_constructor(scope):
    pytest.importorskip(scope)
    model = Model(UniFormer('nano'))
    with DefaultScope.overwrite_default_scope(scope):
        rates = settings(model, wrap(model))
    assert rates['backbone.patch_embed1.proj.weight'] == LR * DECAY**9


def test_frozen_parameters_are_left_out():
    model = Model(UniFormer('nano', frozen_stages=2))
    names = set(settings(model, wrap(model)))
    assert names == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any('blocks2' in name for name in names)


def test_steps_follow_the_rates():
    """Adam's first step has the length of the rate, whatever the gradient."""
    model = Model(UniFormer('nano'))
    wrapper = wrap(model, lr=2**-10)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in wrapper.optimizer.param_groups:
        group['weight_decay'] = 0.0
    wrapper.step()
    for name, factor in (('neck.bias', 1.0), ('backbone.blocks1.0.conv1.bias', DECAY**8)):
        moved = (before[name] - dict(model.named_parameters())[name]).abs()
        torch.testing.assert_close(
            moved, torch.full_like(moved, 2**-10 * factor), rtol=0.02, atol=0
        )


@pytest.mark.parametrize('decay', [0, -0.5, 1.5, '0.75', True])
def test_refuses_rates_outside_0_and_1(decay):
    with pytest.raises(UserError, match=rf'layer_decay_rate={decay!r} should lie in \(0, 1\]'):
        wrap(Model(UniFormer('nano')), decay=decay)


def test_refuses_a_missing_rate():
    cfg = {'optimizer': {'type': 'AdamW', 'lr': LR}, 'constructor': CONSTRUCTOR}
    with pytest.raises(UserError, match=r'set optim_wrapper\.paramwise_cfg\.layer_decay_rate'):
        build_optim_wrapper(Model(UniFormer('nano')), cfg)


def test_refuses_an_optimizer_without_a_learning_rate():
    cfg = {
        'optimizer': {'type': 'AdamW'},
        'constructor': CONSTRUCTOR,
        'paramwise_cfg': {'layer_decay_rate': 0.75},
    }
    with pytest.raises(UserError, match=r'set optim_wrapper\.optimizer\.lr'):
        build_optim_wrapper(Model(UniFormer('nano')), cfg)


def test_refuses_a_backbone_that_does_not_know_its_depth():
    with pytest.raises(UserError, match='Conv2d has no get_layer_depth: use a backbone of'):
        wrap(Model(nn.Conv2d(3, 8, 1)))
