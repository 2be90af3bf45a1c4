"""The house of the package: rooms in one order, imports go down only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmuniformer'
ROOMS = (
    'cli',
    'deployment',
    'analysis',
    'apis',
    'engine',
    'visualization',
    'datasets',
    'models',
    ('registry', 'errors', 'version', 'compat'),
)
"""From the top floor to the ground."""
FLOORS = {
    name: len(ROOMS) - floor
    for floor, names in enumerate(ROOMS)
    for name in ([names] if isinstance(names, str) else names)
}
FILES = sorted(PACKAGE.rglob('*.py'))


def imports_of(file):
    """Dotted names in mmuniformer that a file imports anywhere in it, without the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmuniformer'):
            inner = node.module.split('.')[1:]
            yield from ([*inner, alias.name] for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith('mmuniformer.'):
                    yield alias.name.split('.')[1:]


def module_of(parts):
    """The file that a dotted name leads to."""
    for end in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:end])
        for file in (path.with_suffix('.py'), path / '__init__.py'):
            if file.is_file():
                return file
    return PACKAGE / '__init__.py'


def test_every_room_is_in_the_plan():
    found = {path.relative_to(PACKAGE).parts[0].removesuffix('.py') for path in FILES}
    assert found == {*FLOORS, '__init__'}


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if room == '__init__':
        return
    upward = [
        '.'.join(parts)
        for parts in imports_of(file)
        if not parts or FLOORS.get(parts[0], 0) > FLOORS[room]
    ]
    assert not upward


def test_no_circle():
    graph = {file: {module_of(parts) for parts in imports_of(file)} - {file} for file in FILES}
    finished, path = set(), []

    def visit(file):
        if file in finished:
            return
        assert file not in path, [str(f.relative_to(PACKAGE)) for f in path[path.index(file) :]]
        path.append(file)
        for target in graph[file]:
            visit(target)
        finished.add(path.pop())

    for file in FILES:
        visit(file)


def test_only_the_cli_knows_click():
    users = {
        file.relative_to(PACKAGE).parts[0]
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and (getattr(node, 'module', None) or node.names[0].name).split('.')[0] == 'click'
    }
    assert users == {'cli'}


def test_models_import_no_framework():
    for file in (PACKAGE / 'models').rglob('*.py'):
        source = file.read_text(encoding='utf-8')
        for framework in ('mmcv', 'mmdet', 'mmseg', 'mmpose'):
            assert f'import {framework}' not in source, file
            assert f'from {framework}' not in source, file
