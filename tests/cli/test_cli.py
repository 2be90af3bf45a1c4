"""The command line: overview without loading, errors without tracebacks."""

import importlib
import runpy
import sys

import click
import pytest
from click.testing import CliRunner

from mmuniformer import cli
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.version import __version__


def invoke(*arguments):
    return CliRunner().invoke(cli.group, arguments, prog_name='mmuniformer')


@pytest.fixture
def failing(monkeypatch):
    """A sub-command 'fail' that raises what ``failing.error`` says."""

    class Module:
        error = UserError('scenes.json: not JSON. Write it again.')

        @click.command()
        @staticmethod
        def command():
            raise Module.error

    load = importlib.import_module
    monkeypatch.setattr(
        importlib, 'import_module', lambda name: Module if name == 'failing' else load(name)
    )
    monkeypatch.setitem(cli.COMMANDS, 'fail', cli.Entry('failing:command', 'Fail.'))
    return Module


@pytest.mark.integration
def test_overview_lists_every_command_and_loads_none(monkeypatch):
    targets = {entry.target.partition(':')[0] for entry in cli.COMMANDS.values()}
    for module in targets:
        monkeypatch.delitem(sys.modules, module, raising=False)
    done = invoke('--help')
    assert done.exit_code == 0, done.output
    assert not targets & set(sys.modules)
    lines = [line.strip() for line in done.output.splitlines()]
    assert lines[0] == 'Usage: mmuniformer [OPTIONS] COMMAND [ARGS]...'
    for name, entry in cli.COMMANDS.items():
        assert any(line.split() == [name, *entry.help.split()] for line in lines), name


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_command_loads_and_has_help(name):
    done = invoke(name, '--help')
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f'Usage: mmuniformer {name}')


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_line_in_the_overview_fits(name):
    line = cli.COMMANDS[name].help
    assert line.endswith('.')
    assert len(line) <= 62


def test_version():
    assert invoke('--version').output == f'mmuniformer, version {__version__}\n'


def test_unknown_command_is_a_usage_error():
    done = invoke('tarin')
    assert done.exit_code == 2
    assert "No such command 'tarin'" in done.stderr


@pytest.mark.parametrize('kind', [UserError, CheckpointError])
def test_user_error_is_one_message_on_stderr(failing, kind):
    failing.error = kind('scenes.json: not JSON. Write it again.')
    done = invoke('fail')
    assert done.exit_code == 1
    assert done.stderr == 'Error: scenes.json: not JSON. Write it again.\n'
    assert done.stdout == ''


def test_other_errors_keep_their_traceback(failing):
    failing.error = KeyError('a bug')
    assert isinstance(invoke('fail').exception, KeyError)


def test_command_that_can_not_be_imported_points_to_doctor(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, 'lame', cli.Entry('mmuniformer.no_such:command', 'Lame.'))
    done = invoke('lame')
    assert done.exit_code == 1
    assert done.stderr.startswith('Error: lame can not start: ModuleNotFoundError')
    assert '`mmuniformer doctor`' in done.stderr


@pytest.mark.parametrize('name', ['doctor', 'predict', 'toy_data'])
@pytest.mark.integration
def test_tools_pass_their_arguments_on(repository, monkeypatch, capsys, name):
    script = str(repository / 'tools' / f'{name}.py')
    monkeypatch.setattr(sys, 'argv', [script, '--help'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name='__main__')
    assert end.value.code == 0
    command = name.replace('_', '-')
    assert capsys.readouterr().out.startswith(f'Usage: mmuniformer {command}')
