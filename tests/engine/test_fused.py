"""Optimizers that step in one kernel: the same weights, and states of other stacks."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmuniformer.engine import fused
from mmuniformer.engine.fused import keep_step, with_fused_step

ADAMW = {'optimizer': {'type': 'AdamW', 'lr': 0.01, 'weight_decay': 0.1}}


def is_fused(wrapper):
    return [group.get('fused') for group in wrapper.optimizer.param_groups]


@pytest.mark.skipif(not fused.ON_CPU, reason='this torch has fused steps on CUDA alone')
def test_fused_steps_give_the_same_weights():
    ends = []
    for change in (dict, lambda settings: with_fused_step(settings, 'cpu')):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        settings = {**ADAMW, 'paramwise_cfg': {'norm_decay_mult': 0.0}}
        wrapper = build_optim_wrapper(model, change(settings))
        for _ in range(20):
            wrapper.update_params(model(torch.randn(5, 3)).square().sum())
        ends.append(
            (is_fused(wrapper), torch.cat([p.detach().flatten() for p in model.parameters()]))
        )
    (plainly, plain), (in_one, found) = ends
    assert len(plainly) == len(in_one) == 6
    assert set(plainly) == {None}
    assert set(in_one) == {True}
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('settings', 'device'),
    [
        ({'type': 'AmpOptimWrapper', **ADAMW}, 'cuda'),
        (ADAMW, 'mps'),
        ({'optimizer': {'type': 'AdamW', 'lr': 0.1, 'foreach': True}}, 'cuda'),
        ({'optimizer': {'type': 'SGD', 'lr': 0.1}}, 'cuda'),
        ({'head': ADAMW, 'constructor': 'Own'}, 'cuda'),
        (object(), 'cuda'),
    ],
)
def test_others_stay_as_they_are(settings, device):
    assert with_fused_step(settings, device) is settings


def test_settings_are_not_changed_in_place():
    settings = {'optimizer': dict(ADAMW['optimizer'])}
    assert with_fused_step(settings, 'cuda')['optimizer']['fused'] is True
    assert settings == ADAMW


def test_torch_without_it_on_cpus(monkeypatch):
    monkeypatch.setattr(fused, 'ON_CPU', False)
    assert with_fused_step(ADAMW, 'cpu') is ADAMW


@pytest.mark.skipif(not fused.ON_CPU, reason='this torch has fused steps on CUDA alone')
@pytest.mark.parametrize(('saved', 'own'), [(True, None), (None, True)])
def test_states_of_other_stacks_resume(train, tmp_path, monkeypatch, saved, own):
    """A run steps as its own stack does, whichever the checkpoint was written on."""
    monkeypatch.setattr(fused, 'ON_CPU', bool(saved))
    first = train(epochs=1)
    assert set(is_fused(first.optim_wrapper)) == {saved}
    monkeypatch.setattr(fused, 'ON_CPU', bool(own))
    second = train(epochs=2, resume=True, load_from=str(tmp_path / 'work' / 'epoch_1.pth'))
    assert set(is_fused(second.optim_wrapper)) == {own}
    assert {int(state['step']) for state in second.optim_wrapper.optimizer.state.values()} == {4}


def test_optimizers_without_such_a_choice_stay(monkeypatch):
    model = nn.Linear(2, 2)
    wrapper = build_optim_wrapper(model, {'optimizer': {'type': 'RMSprop', 'lr': 0.1}})
    keep_step(wrapper)
    assert is_fused(wrapper) == [None]
