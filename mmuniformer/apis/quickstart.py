"""Quickstart: train, test and draw nano models on toy data, by the commands of this package."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmuniformer.apis.config import find_config
from mmuniformer.datasets.toy.folder import ToyData, image_files
from mmuniformer.datasets.toy.write import write_toy_data
from mmuniformer.errors import UserError

DATA = Path('data/toy')
"""Where the toy configs look for their data, below the current folder."""
DRAWN = 4
"""Validation images that are drawn."""

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
    config = str(find_config(example.config))
    train_seconds = call(say, 'train', config, '--work-dir', work_dir)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    test_seconds = call(say, 'test', config, checkpoint, '--work-dir', work_dir)
    predictions = work_dir / 'predictions'
    people = data.coco / 'annotations' / 'person_keypoints_val2017.json'
    options = {
        'det': ['--ann-file', people.with_name('instances_val2017.json')],
        'seg': [],
        'pose': ['--boxes', people, '--ann-file', people.with_name('instances_val2017.json')],
    }[task]
    call(
        say, 'predict', task, config, checkpoint, *image_paths(data), *options,
        '--out', predictions, '--force',
    )  # fmt: skip
    drawings = [str(path) for path in sorted((predictions / 'vis').iterdir())]
    metrics = newest_metrics(work_dir, example)
    return Result(task, config, metrics, train_seconds, test_seconds, checkpoint, drawings)


def image_paths(data: ToyData) -> list[Path]:
    """Return the validation images that are drawn."""
    count = min(DRAWN, data.settings.images('val'))
    return [data.out / image_files('val', index)[0] for index in range(count)]


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
