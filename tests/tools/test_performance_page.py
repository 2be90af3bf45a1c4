"""Tables of a page, made by the commands above them."""

from __future__ import annotations

import json

import performance_page
import pytest
import torch

from mmuniformer.errors import UserError

PAGE = """# Title

```bash
mmuniformer benchmark backbone small --shape 64 64 \\
    --layout h14
```

<!-- table -->
old
<!-- /table -->

between

```bash
mmuniformer benchmark det some-config --device cuda
```

<!-- table -->
card
<!-- /table -->

```bash
mmuniformer benchmark seg of-no-table
```
"""


def record_of(profile):
    return {
        'time': '2026-01-02T03:04:05+00:00',
        'settings': {'config': 'small', 'repeats': 5, 'device': 'cpu'},
        'machine': {'device': 'Some CPU', 'threads': 2, 'versions': {'torch': '2.x'}},
        'rates': {'float32': {'matrices': 1e11, 'convolution': 2e11}},
        'rows': [{'profile': profile, 'size': '1 x 64 x 64', 'ms': 2.0}],
    }


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A page, and the commands that were measured for it."""
    commands = []

    def measure(arguments, out):
        commands.append(arguments)
        out.mkdir(parents=True, exist_ok=True)
        (out / 'benchmark.json').write_text(json.dumps(record_of(f'run {len(commands)}')))

    monkeypatch.setattr(performance_page, 'measure', measure)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    page = tmp_path / 'page.md'
    page.write_text(PAGE)
    return page, commands


def run(page, *arguments):
    performance_page.main([str(page), '--out', str(page.parent / 'figures'), *arguments])


def test_a_table_is_that_of_the_command_above_it_and_nothing_else_changes(measured, capsys):
    page, commands = measured
    run(page)
    assert commands == [['backbone', 'small', '--shape', '64', '64', '--layout', 'h14']]
    text = page.read_text()
    before, after = PAGE.split('old\n')
    assert text.startswith(before)
    assert text.endswith(after)
    table = text[len(before) : -len(after)]
    assert table.startswith(
        '\n| profile | ms |\n| --- | ---: |\n| run 1 | 2.0 |\n\n2026-01-02, Some'
    )
    assert 'left as it was, there is no GPU: det some-config' in capsys.readouterr().out


def test_only_what_is_asked_for_is_measured(measured):
    page, commands = measured
    run(page, '--only', 'of-no-table')
    assert commands == []
    assert page.read_text() == PAGE


def test_stored_figures_are_laid_out_again(measured):
    page, commands = measured
    run(page)
    text = page.read_text()
    page.write_text(PAGE)
    run(page, '--stored', '--only', 'small')
    assert page.read_text() == text
    assert len(commands) == 1


def test_figures_are_kept_by_their_command(measured):
    page, commands = measured
    run(page)
    text = page.read_text()
    first = '```bash\nmmuniformer benchmark pose other\n```\n\n<!-- table -->\n<!-- /table -->\n\n'
    page.write_text(first + PAGE)
    run(page, '--stored', '--only', 'small')
    assert page.read_text() == first + text
    assert len(commands) == 1


def test_figures_that_are_not_there_are_named(measured):
    page, _ = measured
    with pytest.raises(UserError, match='measure first'):
        run(page, '--stored')


def test_a_command_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(performance_page, 'RUN', 'raise SystemExit(3)')
    with pytest.raises(UserError, match='`mmuniformer benchmark seg x` failed'):
        performance_page.measure(['seg', 'x'], tmp_path)
