"""The whole road in one command: toy data, training, evaluation and pictures of each task.

Training and testing go through ``mim``, as a user's would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from mmuniformer.apis.config import find_config
from mmuniformer.datasets.toy.folder import ToyData, image_files
from mmuniformer.datasets.toy.write import write_toy_data
from mmuniformer.errors import UserError
from mmuniformer.visualization.contact_sheet import contact_sheet

DATA = Path('data/toy')
"""Where the toy configs look for their data, below the current folder."""
SHOWN = 4
"""Held-out scenes that are drawn."""


@dataclass(frozen=True)
class Task:
    """One row of the quickstart."""

    name: str
    framework: str
    config: Path
    metrics: dict[str, str]
    """Keys of the framework's metrics, and what they are called here."""


TASKS = {
    task.name: task
    for task in (
        Task(
            'det',
            'mmdet',
            Path('configs/det/toy/mask-rcnn_uniformer-nano_fpn_toy.py'),
            {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50'},
        ),
        Task(
            'seg',
            'mmsegmentation',
            Path('configs/seg/toy/upernet_uniformer-nano_toy-128x128.py'),
            {'mIoU': 'mIoU'},
        ),
        Task(
            'pose',
            'mmpose',
            Path('configs/pose/toy/td-hm_uniformer-nano_toy-128x96.py'),
            {'coco/AP': 'AP (OKS)'},
        ),
    )
}


@dataclass(frozen=True)
class Result:
    """What one task reached on held-out scenes; metrics in [0, 1], times in seconds."""

    task: str
    config: str
    metrics: dict[str, float]
    train_seconds: float
    test_seconds: float
    checkpoint: str
    pictures: list[str]


def run_task(task: Task, data: ToyData, out: Path) -> Result:
    """Train, evaluate and draw one task.

    Raises:
        UserError: A step fails; says which.
    """
    config = task.config if task.config.is_file() else find_config(task.config.stem)
    work_dir = out / task.name
    # mim counts GPUs, and 0 of them means the CPU.
    gpus = ['--gpus', str(int(torch.cuda.is_available()))]
    train = ['train', task.framework, str(config), *gpus, '--work-dir', str(work_dir)]
    train_seconds = call(f'train {task.name}', 'mim', *train)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    test = ['test', task.framework, str(config), '--checkpoint', str(checkpoint), *gpus]
    test_seconds = call(f'test {task.name}', 'mim', *test, '--work-dir', str(work_dir))
    pictures = draw(task, config, checkpoint, data, work_dir / 'predictions')
    metrics = newest_metrics(work_dir, task)
    return Result(
        task.name, str(config), metrics, train_seconds, test_seconds, str(checkpoint), pictures
    )


def draw(task: Task, config: Path, checkpoint: Path, data: ToyData, out: Path) -> list[str]:
    """Predict on held-out scenes with the project's own command; return the pictures' paths."""
    scenes = [str(path) for path in scene_paths(data)]
    options = ['--out', str(out), '--force']
    people = data.coco / 'annotations' / 'person_keypoints_val2017.json'
    if task.name == 'pose':
        options += ['--boxes', str(people)]
    if task.name != 'seg':
        options += ['--ann-file', str(people).replace('person_keypoints', 'instances')]
    command = ['predict', task.name, str(config), str(checkpoint), *scenes, *options]
    call(f'predict {task.name}', 'mmuniformer', *command)
    return [str(path) for path in sorted((out / 'vis').iterdir())]


def scene_paths(data: ToyData) -> list[Path]:
    """Return the held-out scenes that are drawn."""
    count = min(SHOWN, data.settings.images('val'))
    return [data.out / image_files('val', index)[0] for index in range(count)]


def call(step: str, program: str, *arguments: str) -> float:
    """Run a program of this environment with its output in sight; return the seconds it took.

    Raises:
        UserError: It ends with another status than 0.
    """
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    click.secho(f'\n$ {program} {" ".join(arguments)}', bold=True)
    start = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(
            f'{step} failed with status {status}: its messages are above; '
            '`mmuniformer doctor` tells whether the installation is sound'
        )
    return time.perf_counter() - start


def newest_metrics(work_dir: Path, task: Task) -> dict[str, float]:
    """Read the metrics that the last test wrote, as shares of 1.

    Raises:
        UserError: The test wrote none of them.
    """
    # A run's folder is named by its time, 20261122_155805, and so is its log.
    for log in sorted(work_dir.glob('[0-9]*_[0-9]*/*.json'), reverse=True):
        values = json.loads(log.read_text())
        if set(task.metrics) <= set(values):
            # mmsegmentation counts in percent.
            unit = 100 if task.framework == 'mmsegmentation' else 1
            return {name: values[key] / unit for key, name in task.metrics.items()}
    raise UserError(f'{work_dir} has no metrics {", ".join(task.metrics)}: the test wrote none')


def show(results: Sequence[Result], console: Console) -> None:
    """Print one row a metric."""
    table = Table(title='Held-out toy scenes')
    for name in ('task', 'config', 'metric'):
        table.add_column(name, overflow='fold')
    for name in ('value', 'train s', 'test s'):
        table.add_column(name, justify='right')
    for result in results:
        for index, (metric, value) in enumerate(result.metrics.items()):
            first = index == 0
            table.add_row(
                result.task if first else '',
                Path(result.config).stem if first else '',
                metric,
                f'{value:.3f}',
                f'{result.train_seconds:.0f}' if first else '',
                f'{result.test_seconds:.0f}' if first else '',
            )
    console.print(table)


@click.command('quickstart')
@click.option(
    '--task',
    'names',
    multiple=True,
    type=click.Choice(list(TASKS)),
    help='Only this task; may be given again.  [default: all]',
)
@click.option(
    '--out',
    type=click.Path(file_okay=False, path_type=Path),
    default=Path('work_dirs/quickstart'),
    show_default=True,
    help='Folder for checkpoints, logs and pictures.',
)
def command(names: tuple[str, ...], out: Path) -> None:
    """Write toy data, train, evaluate and draw: what a new user wants to see run.

    Takes minutes on two CPU cores. Uses data/toy below the current folder, and writes it once.
    """
    start = time.perf_counter()
    click.secho(f'toy data: {DATA}', bold=True)
    data = write_toy_data(DATA)
    results = [run_task(TASKS[name], data, out) for name in names or TASKS]
    sheet = contact_sheet(
        scene_paths(data), data, {result.task: out / result.task for result in results}
    )
    sheet_path = out / 'contact_sheet.png'
    sheet.save(sheet_path)
    record = [vars(result) for result in results]
    (out / 'results.json').write_text(json.dumps(record, indent=1) + '\n')

    console = Console()
    console.print()
    show(results, console)
    for result in results:
        click.echo(f'{result.task}: {result.checkpoint}')
        for picture in result.pictures:
            click.echo(f'  {picture}')
    click.echo(f'scene, ground truth, prediction of each task: {sheet_path}')
    click.echo(f'figures: {out / "results.json"}; {time.perf_counter() - start:.0f} s in all')
