"""Ctrl-C and SIGTERM: the state is saved, and the resumed run is the uninterrupted one."""

import os
import signal
import threading

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmuniformer.compat import load_file
from mmuniformer.engine.hooks import interrupt as module
from mmuniformer.engine.hooks.interrupt import InterruptHook
from mmuniformer.engine.runner import CheckedRunner


class Sends(Hook):
    """Sends this process a signal in an iteration or validation."""

    def __init__(self, number=signal.SIGTERM, iteration=None, validation=None):
        self.number, self.iteration, self.validation = number, iteration, validation

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            signal.raise_signal(self.number)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == self.validation:
            signal.raise_signal(self.number)


def same(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


ENDS = {
    signal.SIGINT: (KeyboardInterrupt, 'SIGINT: .*iteration 4'),
    signal.SIGTERM: (SystemExit, '143'),
}


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_interrupted_run_goes_on_exactly(train, tmp_path, by_epoch, workers):
    """In the middle and at the end of the second epoch."""
    options = {'by_epoch': by_epoch, 'workers': workers}
    whole = train('whole', **options)
    for number, iteration in ((signal.SIGTERM, 2), (signal.SIGINT, 3)):
        work = tmp_path / f'work{iteration}'
        kind, text = ENDS[number]
        with pytest.raises(kind, match=text):
            train(work.name, hooks=[Sends(number, iteration)], **options)
        path = work / 'interrupted.pth'
        assert (work / 'last_checkpoint').read_text() == str(path)
        assert load_file(path)['meta']['iter'] == iteration + 1
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        torch.rand(5)
        resumed = train(work.name, resume=True, **options)
        assert (resumed.epoch, resumed.iter) == (whole.epoch, whole.iter)
        assert same(whole.model.state_dict(), resumed.model.state_dict())
        ends = [
            each.message_hub.get_scalar('train/loss').data[0].tolist() for each in (whole, resumed)
        ]
        assert ends[0] == ends[1]


def test_interrupted_validation_saves_what_was_before_it(train):
    """The averaged weights that are validated are put away, and so are random numbers."""
    average = {'type': 'EMAHook'}
    whole = train('whole', val=True, hooks=[average])
    with pytest.raises(SystemExit):
        train(val=True, hooks=[average, Sends(validation=2)])
    resumed = train(val=True, hooks=[average], resume=True)
    assert resumed.iter == 6
    assert same(whole.model.state_dict(), resumed.model.state_dict())


class Fails(Hook):
    """Raises an error once the signals are taken over."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM)
        raise ZeroDivisionError


@pytest.mark.parametrize('kind', [Runner, CheckedRunner])
def test_signals_are_given_back_after_an_error(train, monkeypatch, kind):
    """Under mmengine's own runner, too."""
    monkeypatch.setitem(train.__globals__, 'CheckedRunner', kind)
    former = [signal.getsignal(number) for number in module.SIGNALS]
    with pytest.raises(ZeroDivisionError):
        train(hooks=[Fails()])
    assert type(train.made[0]) is kind
    assert [signal.getsignal(number) for number in module.SIGNALS] == former


def test_failing_process_of_several_outlasts_the_launcher(train, monkeypatch):
    """Else its message is lost."""
    ends = []
    former = signal.signal(signal.SIGTERM, lambda *_: ends.append(now[0]))
    try:
        monkeypatch.setattr(module, 'get_world_size', lambda: 2)
        with pytest.raises(ZeroDivisionError):
            train(hooks=[Fails()])
        start, now = module.time.monotonic(), [0]
        monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
        for now[0] in (start, start + 5, start + 11):
            signal.raise_signal(signal.SIGTERM)
        assert ends == [start + 11]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, former)


def test_handler_of_c_code_stays(train, monkeypatch):
    taken = []
    monkeypatch.setattr(signal, 'getsignal', lambda number: None)
    monkeypatch.setattr(signal, 'signal', lambda *args: taken.append(args))
    assert train().iter == 6
    assert taken == []


def test_accumulated_gradients_are_waited_for(train, tmp_path):
    wrapper = {'accumulative_counts': 3}
    whole = train('whole', wrapper=wrapper, by_epoch=False)
    with pytest.raises(SystemExit):
        train(wrapper=wrapper, hooks=[Sends(iteration=1)], by_epoch=False)
    assert load_file(tmp_path / 'work' / 'interrupted.pth')['meta']['iter'] == 3
    resumed = train(wrapper=wrapper, resume=True, by_epoch=False)
    assert same(whole.model.state_dict(), resumed.model.state_dict())


def test_second_signal_ends_at_once_but_not_a_repeated_one(monkeypatch):
    hook, raised = InterruptHook(), []
    monkeypatch.setattr(os, 'write', lambda *_: None)
    monkeypatch.setattr(signal, 'raise_signal', raised.append)
    now = [0.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    former = signal.getsignal(signal.SIGINT)
    try:
        for now[0] in (0.0, 0.5, 3.0):
            hook.note(signal.SIGINT, None)
    finally:
        signal.signal(signal.SIGINT, former)
    assert raised == [signal.SIGINT]


def test_other_threads_train_without_it(train):
    failed = []

    def run():
        try:
            train()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


def test_epoch_of_another_length_begins_anew(train):
    with pytest.raises(SystemExit):
        train(hooks=[Sends(iteration=2)])

    def shorten(runner):
        runner._train_dataloader['batch_size'] = 2

    assert train(resume=True, before=shorten).iter == 3 + 2 * 4
