"""The guides name files, configs, commands and options that exist, without placeholders."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from test_rooms import ROOMS

from mmuniformer import cli
from mmuniformer.compat import CAN_EXPORT

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = ('build', '.git', 'work_dirs', 'data', 'predictions')
PAGES = sorted(
    path
    for path in ROOT.rglob('*.md')
    if (top := path.relative_to(ROOT).parts[0]) not in SKIPPED and not top.startswith('.venv')
)
each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
PLACEHOLDER = re.compile(r'@[A-Z_]+@|PLACEHOLDER|TODO|FIXME|_EPOCHS\b|XXX|\?\?\?')
MODEL_NAME = re.compile(
    r'\b(?:cascade-mask-rcnn|mask-rcnn|faster-rcnn|fpn|upernet|td-hm)_uniformer[\w-]+'
)
CONFIGS = [path.stem for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]


def prose(page):
    """A page with its code lines joined where a backslash continues them."""
    return re.sub(r'\\\n\s*', ' ', page.read_text())


def test_pages_are_found():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {'README.md', 'docs/pose.md', 'configs/seg/README.md', 'CHANGELOG.md'} <= names


@each_page
def test_no_placeholder_is_left(page):
    assert not PLACEHOLDER.findall(page.read_text())


@pytest.mark.parametrize('text', ['@SCORE@', 'TODO', 'epoch_N_EPOCHS', 'a PLACEHOLDER'])
def test_placeholders_are_recognized(text):
    assert PLACEHOLDER.search(text)


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if '://' not in target and not target.startswith('#'):
            assert (page.parent / target.partition('#')[0]).exists(), target


@each_page
def test_paths_exist(page):
    roots = 'mmuniformer|tests|tools|docs|configs|requirements'
    for path in re.findall(rf'`((?:{roots})/[\w./-]+)`', page.read_text()):
        assert (ROOT / path).exists(), path


def test_map_of_the_readme_is_right():
    """Folders in the order in which they may import, with the files that each row names."""
    rows = re.findall(r'(?m)^\| `([a-z]\w+/(?:\w+/)?)` \|(.*)$', (ROOT / 'README.md').read_text())
    for folder, text in rows:
        for name in re.findall(r'`(\w+(?:\.py|/))`', text):
            assert (ROOT / 'mmuniformer' / folder / name).exists(), (folder, name)
    rooms = [room for room in ROOMS if isinstance(room, str)]
    assert list(dict.fromkeys(folder.split('/')[0] for folder, _ in rows)) == rooms


@each_page
def test_configs_exist(page):
    for name in MODEL_NAME.findall(page.read_text()):
        # Rows of test layouts, and names that are cut off with an ellipsis.
        stem = name.partition('_test-')[0].rstrip('-')
        assert any(config.startswith(stem) for config in CONFIGS), name


def command_lines():
    """Every ``mmuniformer`` command line of the guides, as ``page: words``."""
    for page in PAGES:
        for line in re.findall(r'(?m)(?:^|`|\$ )\s*(mmuniformer [^`\n]+)', prose(page)):
            yield pytest.param(line.split()[1:], id=f'{page.name}: {line[:60]}')


@pytest.mark.parametrize('words', list(command_lines()))
def test_commands_and_their_options_exist(words):
    if words[0] == 'export' and not CAN_EXPORT:
        pytest.skip('this torch is too old to export')
    known = cli.LazyGroup.get_command(cli.group, None, words[0])
    if words[0].startswith('-'):
        known = cli.group
    assert known is not None, words[0]
    if isinstance(known, click.Group) and re.fullmatch(r'\w[\w-]*', ' '.join(words[1:2])):
        known = known.commands[words[1]]
    options = {n for each in known.params for n in (*each.opts, *each.secondary_opts)}
    written = {word.partition('=')[0] for word in words if word.startswith('--')}
    assert written <= options | {'--help'}
