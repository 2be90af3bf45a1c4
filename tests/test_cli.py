"""The command line: overview without loading, errors without tracebacks."""

import importlib

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


def test_overview_lists_every_command_and_loads_none(run_python):
    code = (
        'import atexit, sys\n'
        'from mmuniformer.cli import COMMANDS, main\n'
        'targets = {entry.target.partition(":")[0] for entry in COMMANDS.values()}\n'
        'before = targets & set(sys.modules)\n'
        'atexit.register(lambda: print("loaded:", targets & set(sys.modules) - before))\n'
        'main(["--help"])'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == 'Usage: mmuniformer [OPTIONS] COMMAND [ARGS]...'
    assert 'loaded: set()' in lines
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


def test_tools_pass_their_arguments_on(run_python, repository):
    done = run_python(repository / 'tools' / 'doctor.py', '--help')
    assert done.stdout.startswith('Usage: mmuniformer doctor'), done.stderr
