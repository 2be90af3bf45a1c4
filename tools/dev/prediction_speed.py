"""Measure prediction from image files to result files: this package, the frameworks' inferencers.

Prints a table in Markdown: images a second, in turn on the same images, over those of the model
alone on images that are decoded and prepared; and the peak memory of a process of each.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import date
from functools import partial
from pathlib import Path

import generated
import torch

from mmuniformer.analysis.benchmark import measure
from mmuniformer.apis.config import find_config
from mmuniformer.apis.inference import (
    DetTask,
    Frames,
    Network,
    PoseTask,
    SegTask,
    Writer,
    predict_and_write,
)

TASKS = {'det': DetTask, 'seg': SegTask, 'pose': PoseTask}
CPU = torch.device('cpu')


def model_alone(options: argparse.Namespace, images: Sequence[Path]) -> Callable[[], None]:
    """Return a call that runs the network on prepared images."""
    task = TASKS[options.task](Network(options.task, options.config, options.checkpoint, 'cpu'))
    forward, batches = task.network.forward, []
    task.network.forward = lambda batch: batches.append(deepcopy(batch)) or forward(batch)
    for frame in Frames(options.images):
        task([frame])
    batches = [batch for batch, _ in zip(itertools.cycle(batches), images)]

    def call() -> None:
        for batch in batches:
            # It takes the results up.
            forward({**batch, 'data_samples': deepcopy(batch['data_samples'])})

    return call


def ours(
    options: argparse.Namespace, images: Sequence[Path], vis: bool = True
) -> Callable[[], None]:
    """Return a call that does what ``mmuniformer predict`` does once the model is loaded."""
    task = TASKS[options.task](Network(options.task, options.config, options.checkpoint, 'cpu'))

    def call() -> None:
        frames = Frames(images)
        with (
            tempfile.TemporaryDirectory() as folder,
            Writer(Path(folder), frames.sources, vis) as writer,
        ):
            for _ in predict_and_write(task, frames, writer.add):
                pass

    return call


def theirs(options: argparse.Namespace, images: Sequence[Path]) -> Callable[[], None]:
    """Return a call of the framework's inferencer that writes predictions and drawings.

    That of mmpose writes no drawings: with NumPy 2.4 its circles are an error.
    """
    names, config = list(map(str, images)), str(find_config(options.config))
    files = (config, options.checkpoint)
    out, more = 'out_dir', {}
    if options.task == 'det':
        from mmdet.apis import DetInferencer

        inferencer = DetInferencer(*files, device='cpu', show_progress=False)
        more['no_save_pred'] = False
    elif options.task == 'seg':
        from mmseg.apis import MMSegInferencer

        inferencer = MMSegInferencer(*files, device='cpu')
        inferencer.show_progress = False
    else:
        from mmpose.apis import MMPoseInferencer

        inferencer = MMPoseInferencer(
            *files, det_model='whole_image', device='cpu', show_progress=False
        )
        out = 'pred_out_dir'

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            list(inferencer(names, **{out: folder}, **more))

    return call


def main(arguments: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('config', help='path, or name of a shipped config')
    parser.add_argument('checkpoint')
    parser.add_argument('images', nargs='+', type=Path, help='image files')
    parser.add_argument('--count', type=int, default=40, help='images a run, by repeating')
    parser.add_argument('--repeats', type=int, default=3, help='timed runs')
    options = parser.parse_args(arguments)
    rows = {
        'model alone': model_alone,
        'predict': ours,
        'predict --no-vis': partial(ours, vis=False),
        'inferencer': theirs,
    }
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for number, image in zip(range(options.count), itertools.cycle(options.images)):
            images.append(Path(folder, f'{number:06d}{image.suffix}'))
            shutil.copy(image, images[-1])
        calls = {name: make(options, images) for name, make in rows.items()}
        seconds = measure.interleaved(calls, options.repeats, CPU)
        peaks = {
            name: measure.peak_memory_on_cpu(make, options, images)[1]
            for name, make in rows.items()
        }
    fastest = statistics.median(seconds['model alone'])
    header = ['', 'img/s', 'of the model alone', 'spread', 'whole MB']
    lines = []
    for name, each in seconds.items():
        median = statistics.median(each)
        spread = (max(each) - min(each)) / median
        lines.append([
            name, f'{options.count / median:.2f}', f'{fastest / median:.2f}', f'{spread:.0%}',
            f'{peaks[name] / 2**20:.0f}',
        ])  # fmt: skip
    print(generated.table(header, lines, numbers=True))
    machine = measure.machine(CPU)
    versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
    print(f'\n{date.today()}, {machine["device"]}, {machine["threads"]} threads, {versions}.')


if __name__ == '__main__':
    main(sys.argv[1:])
