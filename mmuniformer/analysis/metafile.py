"""Model tables in the READMEs, made from the metafiles so that a figure is written down once."""

from __future__ import annotations

import os
from pathlib import Path

import click
import yaml

from mmuniformer.errors import UserError

BEGIN = '<!-- model-table:begin -->'
END = '<!-- model-table:end -->'

TITLES = {
    'det': 'Detection and instance segmentation',
    'seg': 'Semantic segmentation',
    'pose': 'Top-down human pose',
}
PROVENANCE = ('published', 'converted', 'trained here', 'toy only', 'not trained')

# Metadata key, column header, format. A column that no model of a table fills is left out.
COLUMNS_BEFORE_METRICS = (
    ('Epochs', 'Epochs', '{}'),
    ('Iterations', 'Iterations', '{}'),
    ('Batch Size', 'Batch', '{}'),
    ('Training Layout', 'Trained', '{}'),
    ('Test Layout', 'Tested', '{}'),
    ('Input Size', 'Input', '{}'),
    ('Parameters (M)', 'Params (M)', '{:.2f}'),
    ('FLOPs (G)', 'FLOPs (G)', '{}'),
    ('FLOPs Input', 'FLOPs at', '{}'),
)
EMPTY = '-'
STAR = r' \*'
NOT_REPRODUCED = (
    r'\* Published, not reproduced by the count; `mmuniformer complexity` shows both figures.'
)


def load_models(metafile: Path) -> list[dict]:
    """Models of one metafile, each checked for the fields that a table needs.

    Raises:
        UserError: the file is not YAML, or a model lacks a field or has an unknown provenance.
    """
    try:
        content = yaml.safe_load(metafile.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise UserError(f'{metafile} is not valid YAML: {error}') from error
    models = content.get('Models') if isinstance(content, dict) else None
    if not models:
        raise UserError(f'{metafile} has no "Models" list; add one or remove the file.')
    for model in models:
        name = model.get('Name', '(no Name)')
        missing = [key for key in ('Name', 'Config', 'Metadata') if not model.get(key)]
        if missing:
            raise UserError(f'{metafile}: model {name} lacks {", ".join(missing)}.')
        provenance = model['Metadata'].get('Provenance')
        if provenance not in PROVENANCE:
            raise UserError(
                f'{metafile}: model {name} has Metadata/Provenance {provenance!r}; '
                f'choose one of {", ".join(PROVENANCE)}.'
            )
    return models


def render_table(models: list[dict], folder: str) -> str:
    """Markdown table of `models`; links are relative to `folder`, a path below the root."""
    metrics = [_metrics(model) for model in models]
    names = list(dict.fromkeys(name for row in metrics for name in row))
    columns = [
        column
        for column in COLUMNS_BEFORE_METRICS
        if any(column[0] in model['Metadata'] for model in models)
    ]
    weights = any(model.get('Weights') for model in models)

    header = ['Model', *(title for _, title, _ in columns), *names, 'Provenance']
    lines = [header + ['Weights'] * weights, ['---'] * (len(header) + weights)]
    for model, scores in zip(models, metrics, strict=True):
        metadata = model['Metadata']
        link = Path(os.path.relpath(model['Config'], folder)).as_posix()
        row = [f'[{model["Name"]}]({link})']
        row += [_cell(metadata, key, layout) for key, _, layout in columns]
        row += [str(scores.get(name, EMPTY)) for name in names]
        row.append(metadata['Provenance'])
        if weights:
            url = model.get('Weights')
            row.append(f'[file]({url})' if url else EMPTY)
        lines.append(row)
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    starred = any(_is_starred(model['Metadata']) for model in models)
    return f'{table}\n\n{NOT_REPRODUCED}' if starred else table


def _cell(metadata: dict, key: str, layout: str) -> str:
    if key not in metadata:
        return EMPTY
    star = STAR if key == 'FLOPs (G)' and _is_starred(metadata) else ''
    return layout.format(metadata[key]) + star


def _is_starred(metadata: dict) -> bool:
    return not metadata.get('FLOPs Reproduced', True)


def _metrics(model: dict) -> dict[str, float]:
    return {
        name: value
        for result in model.get('Results') or ()
        for name, value in result['Metrics'].items()
    }


def replace_table(text: str, table: str, path: Path) -> str:
    """`text` with `table` between the markers.

    Raises:
        UserError: the markers are not there exactly once and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise UserError(
            f'{path} needs the lines {BEGIN} and {END} once each, in this order, '
            'where the model table belongs.'
        )
    return f'{before}{BEGIN}\n\n{table}\n\n{END}{after}'


def render_readmes(root: Path) -> dict[Path, str]:
    """What README.md and each task's README.md have to hold, by path.

    Raises:
        UserError: there is no metafile below `root`, or a README or its markers are missing.
    """
    metafiles = sorted(
        root.glob('configs/*/metafile.yml'), key=lambda path: [*TITLES].index(_task(path))
    )
    if not metafiles:
        raise UserError(f'{root} has no configs/*/metafile.yml; name a checkout with --root.')
    readmes, sections = {}, []
    for metafile in metafiles:
        models = load_models(metafile)
        readme = metafile.with_name('README.md')
        folder = metafile.parent.relative_to(root).as_posix()
        readmes[readme] = replace_table(_read(readme), render_table(models, folder), readme)
        sections.append(f'### {TITLES[_task(metafile)]}\n\n{render_table(models, ".")}')
    readme = root / 'README.md'
    readmes[readme] = replace_table(_read(readme), '\n\n'.join(sections), readme)
    return readmes


def _task(metafile: Path) -> str:
    task = metafile.parent.name
    if task not in TITLES:
        raise UserError(f'{metafile} is of an unknown task; known: {", ".join(TITLES)}.')
    return task


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f'{path} is missing; create it with the lines {BEGIN} and {END}.')
    return path.read_text(encoding='utf-8')


def stale_readmes(root: Path) -> dict[Path, str]:
    """The READMEs below `root` whose table differs from the metafiles, with their new text."""
    return {path: text for path, text in render_readmes(root).items() if _read(path) != text}


@click.command('model-zoo')
@click.option('--check', is_flag=True, help='Write nothing; exit with status 1 if a table is old.')
@click.option(
    '--root',
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default='.',
    help='Checkout that holds configs/ and README.md.  [default: here]',
)
@click.pass_context
def command(context: click.Context, check: bool, root: Path) -> None:
    """Write the model tables of the READMEs from the metafiles."""
    stale = stale_readmes(root)
    for path, text in stale.items():
        if check:
            click.echo(f'{path}: the model table is old; run `mmuniformer model-zoo`')
        else:
            path.write_text(text, encoding='utf-8')
            click.echo(f'{path}: model table written')
    if not stale:
        click.echo('all model tables are up to date')
    elif check:
        context.exit(1)
