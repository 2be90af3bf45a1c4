"""Quickstart: train, test and draw nano models on toy data, by the commands of this package."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmuniformer.apis.config import TASKS, find_config
from mmuniformer.datasets.toy.folder import ToyData, image_files
from mmuniformer.datasets.toy.labeled import write_toy_clips, write_toy_crops
from mmuniformer.datasets.toy.write import write_toy_data
from mmuniformer.errors import UserError

DATA = Path('data/toy')
"""Where the toy configs look for their data, below the current folder."""
DRAWN = 4
"""Validation images that are drawn; of the classifier this many of each class."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Example:
    """A toy config, and the metrics of its test log: their names here and their unit."""

    config: str
    metrics: Mapping[str, str]
    unit: float = 1.0


EXAMPLES = {
    'det': Example(
        'mask-rcnn_uniformer-nano_fpn_toy',
        {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50'},
    ),
    # MMSegmentation logs percent.
    'seg': Example('upernet_uniformer-nano_toy-128x128', {'mIoU': 'mIoU'}, 100.0),
    'pose': Example('td-hm_uniformer-nano_toy-128x96', {'coco/AP': 'AP (OKS)'}),
    'cls': Example('uniformer-nano_toy-64x64', {'accuracy/top1': 'top-1'}, 100.0),
    'video': Example('uniformer3d-nano_toy-u4-64x64', {'acc/top1': 'top-1'}),
}
"""By task."""


@dataclass(frozen=True)
class Result:
    """What the model of a task reached on validation images."""

    task: str
    config: str
    metrics: Mapping[str, float]
    """In [0, 1]."""
    train_seconds: float
    test_seconds: float
    checkpoint: str
    drawings: Sequence[str]


def installed_tasks() -> list[str]:
    """Return the tasks whose framework is installed: those of MMPreTrain and MMAction2 may not."""
    return [task for task in EXAMPLES if importlib.util.find_spec(TASKS[task].scope)]


def quickstart(tasks: Iterable[str], out: Path, say: Say = print) -> list[Result]:
    """Write toy data, then train, test and draw the model of each task, a key of ``EXAMPLES``.

    Writes ``results.json`` into the folder ``out``, and what the runs leave into a folder per task.
    ``say`` is called with each command before it runs.

    Raises:
        UserError: The toy data cannot be written, or a command fails.
    """
    try:
        data = write_toy_data(DATA)
    except UserError as error:
        raise UserError(f'{error} (`mmuniformer toy-data {DATA} --force`)') from error
    results = [run_task(task, data, out / task, say) for task in tasks]
    content = json.dumps([vars(result) for result in results], indent=1)
    (out / 'results.json').write_text(content + '\n')
    return results


def run_task(task: str, data: ToyData, work_dir: Path, say: Say) -> Result:
    """Train, test and predict with the model of a task."""
    example = EXAMPLES[task]
    inputs(task, data)  # which writes what the config names
    config = str(find_config(example.config))
    train_seconds = call(say, 'train', config, '--work-dir', work_dir)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    test_seconds = call(say, 'test', config, checkpoint, '--work-dir', work_dir)
    predictions = work_dir / 'predictions'
    options = ['--out', predictions, '--force']
    boxes = data.coco / 'annotations' / 'person_keypoints_val2017.json'
    if task == 'pose':
        options += ['--boxes', boxes]
    if task in ('det', 'pose'):
        options += ['--ann-file', boxes.with_name('instances_val2017.json')]
    call(say, 'predict', task, config, checkpoint, *inputs(task, data), *options)
    drawings = [str(path) for path in sorted((predictions / 'vis').iterdir())]
    metrics = newest_metrics(work_dir, example)
    return Result(task, config, metrics, train_seconds, test_seconds, checkpoint, drawings)


def inputs(task: str, data: ToyData) -> list[Path]:
    """Return the validation images or clips that are drawn."""
    if task == 'cls':
        return first_of_each_class(write_toy_crops(data) / 'val', DRAWN)
    if task == 'video':
        return first_of_each_class(write_toy_clips(data) / 'val', 1)
    count = min(DRAWN, data.settings.images('val'))
    return [data.out / image_files('val', index)[0] for index in range(count)]


def first_of_each_class(folder: Path, count: int) -> list[Path]:
    """Return the first files of each of the folders in a folder."""
    return [path for each in sorted(folder.iterdir()) for path in sorted(each.iterdir())[:count]]


def call(say: Say, *arguments: str | Path) -> float:
    """Run ``mmuniformer`` in a new process with its output in sight; return the seconds it took."""
    words = list(map(str, arguments))
    say(f'$ mmuniformer {" ".join(words)}')
    start = time.perf_counter()
    program = 'from mmuniformer.cli import main; main()'
    status = subprocess.run([sys.executable, '-c', program, *words], check=False).returncode
    if status:
        raise UserError(
            f'mmuniformer {words[0]} failed with status {status}, see its messages above; '
            '`mmuniformer doctor` checks the installation'
        )
    return time.perf_counter() - start


def newest_metrics(work_dir: Path, example: Example) -> dict[str, float]:
    """Read the metrics that the last test logged, in [0, 1]."""
    # A run's folder is named by its time, 20261122_155805, and so is its log.
    for log in sorted(work_dir.glob('[0-9]*_[0-9]*/*.json'), reverse=True):
        values = json.loads(log.read_text())
        if set(example.metrics) <= set(values):
            return {name: values[key] / example.unit for key, name in example.metrics.items()}
    raise UserError(f'{work_dir} has no log with {", ".join(example.metrics)}')
