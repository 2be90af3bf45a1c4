"""Write the model tables of the READMEs from the metafiles: ``python tools/dev/model_tables.py``.

Every task's README holds all its models; the front page a few headline models, where it has the
markers; docs/weights.md the released files. ``--check`` writes nothing and exits with status 1 if
a table is out of date.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import generated

from mmuniformer.analysis.metafile import METRICS, load_models, metrics_of
from mmuniformer.errors import UserError
from mmuniformer.models.weights.catalog import RELEASED_FILES

ROOT = Path(__file__).resolve().parents[2]
TASK_MARKERS = '<!-- model-table:begin -->', '<!-- model-table:end -->'
FILE_MARKERS = '<!-- released files -->', '<!-- /released files -->'
HEADLINE_MARKERS = '<!-- headline models -->', '<!-- /headline models -->'
HEADLINES = {
    'mask-rcnn_uniformer-small-h14_fpn_amp-ms-crop-3x_coco': 'Mask R-CNN, small',
    'cascade-mask-rcnn_uniformer-base-h14_fpn_amp-ms-crop-3x_coco': 'Cascade Mask R-CNN, base',
    'fpn_uniformer-light-xs_8xb4-80k_ade20k-512x512': 'Semantic FPN, light XS',
    'upernet_uniformer-base-global_8xb2-160k_ade20k-512x512': 'UperNet, base',
    'td-hm_uniformer-small_8xb128-210e_coco-256x192': 'Top-down heatmaps, small',
    'td-hm_uniformer-base_8xb32-210e_coco-448x320': 'Top-down heatmaps, base',
    'uniformer-base-tl_8xb64-60e_in1k-384px': 'Image classifier, base',
    'uniformer-base_imagenet1k-pre_8xb4-32x4x1-110e_kinetics400-rgb': 'Video classifier, base',
}
"""Models on the front page, and what they are called there."""
PROVENANCE = ('published', 'converted', 'trained here', 'toy only', 'not trained')
COLUMNS = (
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
"""Key in the metafile, header and format; a column that no model of a table fills is left out."""
EMPTY = '-'
ALSO = ('second home', 'third home')
STAR = r' \*'
NOT_REPRODUCED = (
    r'\* Published, not reproduced by the count; `mmuniformer complexity` shows both figures.'
)


def checked_models(metafile: Path) -> list[dict[str, Any]]:
    """Return the models of a metafile of ours, which have all that a table needs.

    Raises:
        UserError: A model lacks a field or has an unknown provenance.
    """
    models = load_models(metafile)
    for model in models:
        name = model.get('Name', '(no Name)')
        missing = [key for key in ('Name', 'Config', 'Metadata') if not model.get(key)]
        if missing:
            raise UserError(f'{metafile}: model {name} lacks {", ".join(missing)}')
        provenance = model['Metadata'].get('Provenance')
        if provenance not in PROVENANCE:
            raise UserError(
                f'{metafile}: model {name} has Metadata/Provenance {provenance!r}; '
                f'choose one of {", ".join(PROVENANCE)}'
            )
    return models


def link(model: dict[str, Any], text: str, folder: Path) -> str:
    """Return a link to a model's config from a folder below the root."""
    return f'[{text}]({Path(os.path.relpath(model["Config"], folder)).as_posix()})'


def cell(figures: dict[str, Any], key: str, form: str) -> str:
    """Return a figure as text; FLOPs that the count does not give carry a star."""
    if key not in figures:
        return EMPTY
    starred = key == 'FLOPs (G)' and not figures.get('FLOPs Reproduced', True)
    return form.format(figures[key]) + STAR * starred


def task_table(models: list[dict[str, Any]], folder: Path) -> str:
    """Return the table of all models of a task; links are relative to a folder."""
    metrics = list(dict.fromkeys(name for model in models for name in metrics_of(model)))
    columns = [each for each in COLUMNS if any(each[0] in model['Metadata'] for model in models)]
    weights = any(model.get('Weights') for model in models)
    header = ['Model', *(title for _, title, _ in columns), *metrics, 'Provenance']
    lines = []
    for model in models:
        figures, scores, url = model['Metadata'], metrics_of(model), model.get('Weights')
        line = [link(model, model['Name'], folder)]
        line += [cell(figures, key, form) for key, _, form in columns]
        line += [str(scores.get(name, EMPTY)) for name in metrics]
        line += [figures['Provenance']] + [f'[file]({url})' if url else EMPTY] * weights
        lines.append(line)
    table = generated.table(header + ['Weights'] * weights, lines)
    starred = any(STAR in text for line in lines for text in line[1:])
    return f'{table}\n\n{NOT_REPRODUCED}' if starred else table


def headline_table(models: list[dict[str, Any]]) -> str:
    """Return the front page's table."""
    by_name = {model['Name']: model for model in models}
    lines = []
    for name, title in HEADLINES.items():
        model = by_name[name]
        scores = metrics_of(model).items()
        result = ', '.join(f'{value} {key}' for key, value in scores if key in METRICS)
        figures = model['Metadata']
        costs = cell(figures, 'Parameters (M)', '{:.2f}'), cell(figures, 'FLOPs (G)', '{}')
        lines.append([link(model, title, Path()), model['Results'][0]['Dataset'], *costs, result])
    header = ['Model', 'Data', 'Params (M)', 'FLOPs (G)', 'Published result']
    return generated.table(header, lines)


def file_table() -> str:
    """Return the table of released files."""
    lines = []
    for file in RELEASED_FILES:
        names = zip((file.name, *ALSO), file.urls, strict=False)
        homes = ', '.join(f'[{text}]({url})' for text, url in names)
        rows = ', '.join(f'`{row}`' for row in file.rows)
        size = f'{file.size / 1e6:.0f}' if file.size else EMPTY
        lines.append([homes, rows, str(file.head_dim), size, file.license, file.note or EMPTY])
    return generated.table(['File', 'Weights of', '`head_dim`', 'MB', 'License', 'Note'], lines)


def pages(root: Path) -> dict[Path, str]:
    """Return what the READMEs have to hold, by path.

    Raises:
        UserError: A metafile is not sound, or a README or its markers are missing.
    """
    found, everything = {}, []
    for metafile in sorted(root.glob('configs/*/metafile.yml')):
        models = checked_models(metafile)
        folder = metafile.parent.relative_to(root)
        readme = metafile.with_name('README.md')
        found[readme] = filled(readme, TASK_MARKERS, task_table(models, folder))
        everything += models
    weights = root / 'docs' / 'weights.md'
    if weights.is_file():
        found[weights] = filled(weights, FILE_MARKERS, file_table())
    front = root / 'README.md'
    if HEADLINE_MARKERS[0] in front.read_text(encoding='utf-8'):
        found[front] = filled(front, HEADLINE_MARKERS, headline_table(everything))
    return found


def filled(page: Path, markers: tuple[str, str], table: str) -> str:
    """Return a page with a table between its markers.

    Raises:
        UserError: The page or its markers are missing.
    """
    try:
        text = page.read_text(encoding='utf-8')
        return generated.replace_between(text, *markers, table)
    except (OSError, UserError) as error:
        raise UserError(f'{page}: {error}') from error


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write the tables that are out of date, or name them; return the exit status."""
    check = '--check' in arguments
    stale = {path: text for path, text in pages(root).items() if path.read_text() != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding='utf-8')
        print(f'{path}: the model table {"is out of date" if check else "is written"}')
    return int(check and bool(stale))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
