"""Rows of ``metafile.yml``: the published figures of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mmuniformer.errors import UserError

METRICS = ('box AP', 'mask AP', 'mIoU', 'AP', 'Top 1 Accuracy')
"""Those that comparisons and the front page show."""


def load_models(metafile: Path) -> list[dict[str, Any]]:
    """Return the models of a metafile, OpenMMLab's or ours."""
    try:
        content = yaml.safe_load(metafile.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise UserError(f'{metafile} is not valid YAML: {error}') from error
    models = content.get('Models') if isinstance(content, dict) else None
    if not models:
        raise UserError(f'{metafile} has no "Models" list: add one or remove the file')
    return models


def find_model(config: str | Path | None, layout: str) -> dict[str, Any] | None:
    """Return the row of a config file in a layout (a name), from the metafile beside it, if any."""
    metafile = Path(config).with_name('metafile.yml') if config else None
    for model in load_models(metafile) if metafile and metafile.is_file() else ():
        is_row = Path(str(model.get('Config'))).name == Path(config).name
        if is_row and (model.get('Metadata') or {}).get('Test Layout') in (None, layout):
            return model
    return None


def metrics_of(model: dict[str, Any]) -> dict[str, float]:
    """Return the results of a row by their names."""
    return {
        name: value
        for result in model.get('Results') or ()
        for name, value in result['Metrics'].items()
    }


def stated_accuracy(config: str | Path | None, layout: str) -> str | None:
    """Return what the metafile states of a config's accuracy in a layout, if anything."""
    model = find_model(config, layout) or {}
    shown = ', '.join(f'{v} {name}' for name, v in metrics_of(model).items() if name in METRICS)
    provenance = (model.get('Metadata') or {}).get('Provenance', 'published')
    return f'{shown} ({provenance})' if shown else None
