"""NaN and Inf: found at their step, named, and kept out of the weights."""

import copy

import pytest
import torch
from mmengine.hooks import Hook

from mmuniformer.compat import load_file
from mmuniformer.engine.hooks.finite import FiniteHook, all_finite
from mmuniformer.errors import UserError

FOURTH = range(12, 16)
"""Calls of the dataset that give the fourth batch."""


class Watch(Hook):
    """Keeps the state before an iteration, and the learning rates."""

    priority = 'LOWEST'

    def __init__(self):
        self.states, self.rates = {}, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.states[runner.iter] = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


def same(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize('clip', [{}, {'clip_grad': {'max_norm': 1}}])
def test_run_stops_at_the_step_with_good_weights(train, tmp_path, clip):
    watch = Watch()
    with pytest.raises(UserError) as caught:
        train(spoiled=FOURTH, hooks=[watch], wrapper=clip)
    text = str(caught.value)
    assert text.startswith('iteration 4: loss is nan, loss_size is nan, loss_sign is nan; ')
    assert 'the gradients of 6 of 6 parameters are not finite, worst last.bias (100% ' in text
    order = [int(name[0]) for name in text.partition('Images: ')[2].split('. The')[0].split(', ')]
    assert len(set(order)) == 4
    runner = train.made[0]
    assert same(runner.model.state_dict(), watch.states[3])
    saved = load_file(tmp_path / 'work' / 'interrupted.pth')
    assert saved['meta']['iter'] == 3
    assert same(saved['state_dict'], watch.states[3])
    resumed = train(resume=True, spoiled=range(8, 12), finite={'action': 'skip'})
    assert resumed.iter == 6
    assert all_finite(resumed.model.state_dict().values())


def test_skipped_step_changes_nothing(train):
    torch.compile(torch.nn.Identity(), backend='eager')(
        torch.ones(1)
    )  # old torch forgets hooks then
    watch = Watch()
    runner = train(spoiled=FOURTH, hooks=[watch], finite={'action': 'skip'})
    assert runner.iter == 6
    assert same(watch.states[3], watch.states[4])
    assert not same(watch.states[4], watch.states[5])
    state = runner.optim_wrapper.optimizer.state.values()
    assert {entry['step'].item() for entry in state} == {5}
    assert watch.rates == [0.1] * 6


def test_lowered_rate(train):
    watch = Watch()
    train(spoiled=FOURTH, hooks=[watch], finite={'action': 'lower', 'factor': 0.25})
    assert watch.rates == [0.1] * 3 + [0.025] * 3


def test_skipping_ends_where_nothing_else_happens(train):
    with pytest.raises(UserError, match='iteration 4: '):
        train(spoiled=range(8, 99), finite={'action': 'skip', 'limit': 2})


def test_infinite_gradient_of_one_parameter_is_named(train):
    def spoil(runner):
        runner.model.norm.weight.register_hook(lambda grad: grad / torch.tensor([1, 1, 1, 0.0]))

    with pytest.raises(UserError) as caught:
        train(before=spoil)
    assert 'iteration 1: the gradients of 1 of 6 parameters' in str(caught.value)
    assert 'worst norm.weight (25% of its values)' in str(caught.value)


@pytest.mark.parametrize('elsewhere', [False, True])
def test_loss_without_finite_value_makes_no_step(train, monkeypatch, elsewhere):
    """Its gradients are finite: a constant was added. The loss may be another process's."""
    watch = Watch()

    def spoil(runner):
        forward, calls = runner.model.forward, []

        def spoiled(*args, **kwargs):
            calls.append(1)
            losses = forward(*args, **kwargs)
            constant = float('nan') if len(calls) == 4 and not elsewhere else 0.0
            return {**losses, 'loss_size': losses['loss_size'] + constant}

        runner.model.forward = spoiled
        if elsewhere:
            found = 'mmuniformer.engine.hooks.finite.highest'
            monkeypatch.setattr(found, lambda value: len(calls) == 4 or value)

    runner = train(before=spoil, hooks=[watch], finite={'action': 'skip'})
    assert same(watch.states[3], watch.states[4])
    assert not same(watch.states[4], watch.states[5])
    assert {each['step'].item() for each in runner.optim_wrapper.optimizer.state.values()} == {5}


def test_masks_pass_and_statistics_are_named(train):
    def mask(runner):
        runner.model.register_buffer('attn_mask', torch.full((2,), float('-inf')))

    class Spoil(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, *args, **kwargs):
            runner.model.norm.running_var[0] = float('inf')

    assert train(before=mask).iter == 6
    with pytest.raises(UserError, match=r'^iteration 2: norm\.running_var is not finite after'):
        train('other', before=mask, hooks=[Spoil()])


def test_all_processes_stop_for_one(train, monkeypatch):
    monkeypatch.setattr('mmuniformer.engine.hooks.finite.highest', lambda found: 1)
    with pytest.raises(UserError, match='^iteration 1: another process has met NaN or Inf, see'):
        train()


def test_accumulated_gradients_go_with_the_spoiled_batch(train):
    wrapper = {'accumulative_counts': 2}
    watch = Watch()
    runner = train(spoiled=range(8, 12), hooks=[watch], wrapper=wrapper, finite={'action': 'skip'})
    assert all_finite(runner.model.state_dict().values())
    assert not same(watch.states[3], watch.states[4])


def test_rate_that_throws_weights_out_is_named(train, tmp_path):
    wrapper = {'optimizer': {'type': 'SGD', 'lr': 3e38}}
    with pytest.raises(
        UserError, match=r'is not finite after the step.*learning rate|is inf|is nan'
    ):
        train(wrapper=wrapper)
    for path in (tmp_path / 'work').glob('*.pth'):
        assert all_finite(load_file(path)['state_dict'].values())


def test_bf16_and_empty_tensors():
    assert all_finite([torch.ones(3, dtype=torch.bfloat16), torch.empty(0), torch.tensor([2])])
    assert not all_finite([torch.ones(2), torch.tensor([1.0, float('-inf')], dtype=torch.float64)])
    assert all_finite([torch.tensor([3e38] * 9)])  # its norm is not finite


@pytest.mark.parametrize('option', [{'action': 'go on'}, {'factor': 2}])
def test_options_of_no_use(option):
    with pytest.raises(UserError, match='default_hooks.finite'):
        FiniteHook(**option)
