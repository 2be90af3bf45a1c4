"""Curves of a training run from what mmengine's LocalVisBackend wrote to its work dir."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmuniformer.errors import UserError
from mmuniformer.visualization.figures import check_target, save_figure

SCALARS = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
"""Where the file is, seen from a work dir, a run's folder and the folder of the file itself."""
NO_CURVES = ('epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'momentum')
ABSENT = -1
"""COCO's value for a metric of which the data has no example."""
OLDER_ALPHA = 0.35

Curve = tuple[list[float], list[float]]


class Run(NamedTuple):
    """One run: its name (the time that it started) and its curves by panel and scalar."""

    name: str
    panels: Mapping[str, Mapping[str, Curve]]


def find_runs(work_dir: Path) -> list[Path]:
    """Return the files with scalars in a work dir, oldest first.

    Raises:
        UserError: There is none.
    """
    if not work_dir.is_dir():
        raise UserError(f'{work_dir} is no folder: name the work dir of a training run')
    for pattern in SCALARS:
        files = sorted(work_dir.glob(pattern))
        if files:
            return files
    raise UserError(
        f'{work_dir} has no {SCALARS[0]}, which a training run writes with its first line of log: '
        'name the work dir of a run whose visualizer has a LocalVisBackend'
    )


def read_run(file: Path) -> Run:
    """Read one file of scalars.

    Raises:
        UserError: A line is not what mmengine writes.
    """
    panels: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    by_epoch = False
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
        try:
            scalars = json.loads(line)
            step = scalars['step']
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f'{file}, line {number} is no record of scalars: remove the line or the run'
            ) from error
        training = 'iter' in scalars
        by_epoch |= training and 'epoch' in scalars
        for name, value in scalars.items():
            if name not in NO_CURVES and is_number(value) and (training or value != ABSENT):
                steps, values = panels[panel(name, training, by_epoch)][name]
                steps.append(step)
                values.append(value)
    return Run(file.resolve().parents[1].name, panels)


def is_number(value: Any) -> bool:
    """Tell finite numbers from texts, lists and NaN."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def panel(name: str, training: bool, by_epoch: bool) -> str:
    """Return the title of the panel that a scalar belongs to, with the unit of its steps."""
    if not training:
        # coco/bbox_mAP_50 and its like share a panel: coco/bbox.
        group = name.partition('_mAP')[0] if '_mAP' in name else name.rpartition('/')[0]
        return f'{group or "evaluation"}, by {"epoch" if by_epoch else "iteration"}'
    if name.endswith('lr'):
        return 'learning rate, by iteration'
    if 'loss' in name:
        return 'losses, by iteration'
    return f'{"accuracy" if "acc" in name else name}, by iteration'


def draw_runs(runs: Iterable[Run], title: str) -> Figure:
    """Draw the curves of runs, one panel a kind of scalar; older runs are paler.

    Raises:
        UserError: No run has a curve.
    """
    runs = [run for run in runs if run.panels]
    if not runs:
        raise UserError(f'{title}: the runs have written no numbers yet; wait for the first log')
    names = list(dict.fromkeys(name for run in runs for name in run.panels))
    names.sort(key=lambda name: not name.startswith('losses'))
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        draw_panel(axis, name, runs)
    return figure


def draw_panel(axis: Axes, name: str, runs: list[Run]) -> None:
    """Draw one kind of scalar of all runs."""
    heading, _, unit = name.partition(', by ')
    scalars = list(dict.fromkeys(key for run in runs for key in run.panels.get(name, {})))
    for run in runs:
        for index, key in enumerate(scalars):
            if key not in run.panels.get(name, {}):
                continue
            steps, values = run.panels[name][key]
            latest = run is next(r for r in reversed(runs) if key in r.panels.get(name, {}))
            axis.plot(
                steps,
                values,
                # The sum of all losses stands out from its terms.
                color='black' if key == 'loss' else f'C{index % 10}',
                linestyle='-' if index < 10 else '--',
                linewidth=1.8 if key == 'loss' else 1.2,
                marker='o' if len(steps) < 40 else None,
                markersize=3,
                alpha=1 if latest else OLDER_ALPHA,
                label=key if latest else None,
            )
    if heading == 'losses' and all(low > 0 for low in lowest(runs, name)):
        axis.set_yscale('log')
    axis.set_title(heading, fontsize=10)
    axis.set_xlabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=2)


def lowest(runs: list[Run], name: str) -> list[float]:
    """Return the least value of each curve of a panel."""
    return [min(values) for run in runs for _, values in run.panels.get(name, {}).values()]


@click.command('plot')
@click.argument('work_dir', type=click.Path(path_type=Path))
@click.option(
    '--out',
    type=click.Path(path_type=Path),
    help='Picture to write.  [default: curves.png in the work dir]',
)
@click.option('--all-runs', is_flag=True, help='Draw earlier runs too, paler.')
@click.option('--force', is_flag=True, help='Replace the picture.')
def command(work_dir: Path, out: Path | None, all_runs: bool, force: bool) -> None:
    """Draw the losses, rates and metrics of the training run in WORK_DIR."""
    out = out or work_dir / 'curves.png'
    check_target(out, force)
    files = find_runs(work_dir)
    runs = [read_run(file) for file in (files if all_runs else files[-1:])]
    save_figure(draw_runs(runs, str(work_dir)), out)
    click.echo(f'{out}: {len(runs)} of {len(files)} runs, the latest {runs[-1].name}')
