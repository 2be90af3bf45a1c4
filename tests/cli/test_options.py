"""``--cfg-options`` reads like that of the frameworks' scripts."""

import click
import pytest
from click.testing import CliRunner

from mmuniformer.cli.options import ConfigCommand, cfg_options


@click.command(cls=ConfigCommand)
@click.argument('name')
@click.option('--flag', is_flag=True)
@cfg_options
def echo(name, flag, cfg_options):
    click.echo(repr((name, flag, cfg_options)))


@pytest.mark.parametrize(
    ('args', 'expected'),
    [
        ('x', ('x', False, {})),
        ('x --cfg-options a.b=1 c=[2,3] --flag', ('x', True, {'a.b': 1, 'c': [2, 3]})),
        ('--cfg-options a=text --flag x', ('x', True, {'a': 'text'})),
        ('--cfg-options a=1 b=None x', ('x', False, {'a': 1, 'b': None})),
        ('--cfg-options a=1 --cfg-options b=2 x', ('x', False, {'a': 1, 'b': 2})),
    ],
)
def test_several_options_after_one_flag(args, expected):
    result = CliRunner().invoke(echo, args.split())
    assert result.output == f'{expected!r}\n'


@pytest.mark.parametrize(
    ('value', 'reason'),
    [('a.b', "'a.b' is not KEY=VALUE"), ('a=[1,(2]', 'Imbalanced brackets exist in 1,(2')],
)
def test_unreadable_value_is_a_usage_error(value, reason):
    result = CliRunner().invoke(echo, ['x', '--cfg-options', value])
    assert result.exit_code == 2
    assert f"Invalid value for '--cfg-options': {reason}" in result.output
