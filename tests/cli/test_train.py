"""``mmuniformer train`` and ``test``: arguments as mim and launchers pass them, exit statuses."""

import os

import pytest

from mmuniformer.apis import train
from mmuniformer.cli import main
from mmuniformer.errors import UserError

NOTHING = {'work_dir': None, 'launcher': 'none', 'cfg_options': {}}
TRAIN = {**NOTHING, 'amp': False, 'auto_scale_lr': False, 'resume': None}
TEST = {**NOTHING, 'tta': False}


@pytest.fixture
def calls(monkeypatch):
    """Arguments that training and testing were called with."""
    made = []

    def call(*arguments, **options):
        made.append((*arguments, options))

    monkeypatch.setattr(train, 'train', call)
    monkeypatch.setattr(train, 'evaluate', call)
    monkeypatch.setenv('LOCAL_RANK', '')  # so that it is restored
    monkeypatch.delenv('LOCAL_RANK')
    return made


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.mark.parametrize(
    ('arguments', 'changed'),
    [
        (['--launcher', 'none'], {}),
        (['--work-dir', 'run', '--amp', '--auto-scale-lr'],
         {'work_dir': 'run', 'amp': True, 'auto_scale_lr': True}),
        (['--resume'], {'resume': 'auto'}),
        (['--resume', '--launcher', 'slurm'], {'resume': 'auto', 'launcher': 'slurm'}),
        (['--resume', 'a.pth'], {'resume': 'a.pth'}),
        (['--resume', '--cfg-options', 'a.b=1', 'c=[2,3]', 'd=x', '--amp'],
         {'resume': 'auto', 'amp': True, 'cfg_options': {'a.b': 1, 'c': [2, 3], 'd': 'x'}}),
    ],
)  # fmt: skip
def test_training_arguments(calls, arguments, changed):
    assert run('train', 'some.py', *arguments) == 0
    assert run('train', *arguments, '--', 'some.py') == 0
    assert calls == [('some.py', {**TRAIN, **changed})] * 2


def test_testing_arguments(calls):
    assert run('test', 'some.py', 'a.pth', '--launcher', 'none') == 0
    options = ['--tta', '--work-dir', 'run']
    assert run('test', 'some.py', 'a.pth', *options, '--cfg-options', 'a=1') == 0
    changed = {'tta': True, 'work_dir': 'run'}
    assert calls == [
        ('some.py', 'a.pth', TEST),
        ('some.py', 'a.pth', {**TEST, **changed, 'cfg_options': {'a': 1}}),
    ]


@pytest.mark.parametrize(
    ('option', 'given', 'rank'),
    [
        ('--local_rank=3', None, '3'),
        ('--local-rank=3', None, '3'),
        ('--local-rank=3', '1', '1'),
        (None, None, '0'),
    ],
)
def test_local_rank_of_the_environment_wins(calls, monkeypatch, option, given, rank):
    if given:
        monkeypatch.setenv('LOCAL_RANK', given)
    assert run('train', *[option] * bool(option), 'some.py', '--launcher', 'pytorch') == 0
    assert os.environ['LOCAL_RANK'] == rank


def test_user_errors_are_one_line_and_status_1(calls, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise UserError('some.py is refused')

    monkeypatch.setattr(train, 'train', refuse)
    assert run('train', 'some.py') == 1
    assert capsys.readouterr().err == 'Error: some.py is refused\n'


@pytest.mark.parametrize(
    'arguments', [['train'], ['test', 'some.py'], ['train', 'some.py', '--launcher', 'x']]
)
def test_wrong_usage_is_status_2(calls, arguments):
    assert run(*arguments) == 2
    assert calls == []
