"""The command line: overview without loading, errors without tracebacks."""

import importlib
import sys

import click
import pytest
from click.testing import CliRunner

from mmuniformer import cli, compat
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
        importlib,
        'import_module',
        lambda name: Module if name == 'mmuniformer.cli.fail' else load(name),
    )
    monkeypatch.setitem(cli.COMMANDS, 'fail', 'Fail.')
    return Module


@pytest.mark.integration
def test_overview_lists_every_command_and_loads_none(monkeypatch):
    targets = {f'mmuniformer.cli.{name.replace("-", "_")}' for name in cli.COMMANDS}
    for module in targets:
        monkeypatch.delitem(sys.modules, module, raising=False)
    done = invoke('--help')
    assert done.exit_code == 0, done.output
    assert not targets & set(sys.modules)
    lines = [line.strip() for line in done.output.splitlines()]
    assert lines[0] == 'Usage: mmuniformer [OPTIONS] COMMAND [ARGS]...'
    for name, text in cli.COMMANDS.items():
        assert any(line.split() == [name, *text.split()] for line in lines), name


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_command_loads_and_has_help(name):
    done = invoke(name, '--help')
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f'Usage: mmuniformer {name}')


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_line_in_the_overview_fits(name):
    line = cli.COMMANDS[name]
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


def test_command_that_cannot_be_imported_points_to_doctor(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, 'absent', 'Fail to import.')
    done = invoke('absent')
    assert done.exit_code == 1
    assert done.stderr.startswith('Error: mmuniformer absent cannot start: ModuleNotFoundError')
    assert '`mmuniformer doctor`' in done.stderr


def test_export_names_the_torch_that_can(monkeypatch):
    for name in [*sys.modules]:
        if name.startswith('mmuniformer.deployment'):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(compat, 'CAN_EXPORT', False)
    done = invoke('export', 'some.py')
    assert done.exit_code == 1
    needed = f'Error: mmuniformer export needs torch {compat.EXPORT_TORCH} or later, this is '
    assert done.stderr.startswith(f'{needed}{compat.torch.__version__}: ')
    assert len(done.stderr.splitlines()) == 1


def test_config_makes_the_folder_of_its_file_or_names_it(tmp_path):
    (tmp_path / 'a.py').write_text("default_scope = 'mmseg'\n")
    out = tmp_path / 'new' / 'b.py'
    done = invoke('config', f'{tmp_path}/a.py', '--out', f'{out}')
    assert done.output == f'wrote {out}\n'
    assert out.read_text() == "default_scope = 'mmseg'\n"
    done = invoke('config', f'{tmp_path}/a.py', '--out', f'{out}/c.py')
    assert done.exit_code == 1
    assert done.stderr.startswith(f'Error: --out {out}/c.py cannot be written: ')
