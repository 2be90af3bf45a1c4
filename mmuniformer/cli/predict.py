"""``mmuniformer predict det|seg|pose``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError

STATUS_LEFT_OUT = 3
"""Exit status of a run that left inputs out."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """Add what the three tasks have in common: arguments first, then options."""
    from mmuniformer.models.uniformer import STAGE3_LAYOUTS

    decorators = (
        click.argument('config'),
        click.argument('checkpoint'),
        click.argument('inputs', nargs=-1, required=True, metavar='INPUT...'),
        click.option(
            '--out',
            type=click.Path(file_okay=False, path_type=Path),
            help='Folder for the results.  [default: predictions/TASK]',
        ),
        click.option('--device', help='Such as cpu or cuda:0.  [default: a GPU if there is one]'),
        click.option(
            '--batch-size',
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help='Pictures at a time; those that come to the same size share a batch.',
        ),
        click.option('--amp', is_flag=True, help='Half precision: bf16 on a CPU, fp16 on a GPU.'),
        click.option('--deploy', is_flag=True, help='Fold norms into weights first: faster.'),
        click.option(
            '--compile',
            'compiled',
            is_flag=True,
            help='Compile the backbone, for GPUs: takes a minute or more at first.',
        ),
        click.option(
            '--stage3-attn',
            type=click.Choice(STAGE3_LAYOUTS),
            help="Attention of stage 3, instead of the config's.",
        ),
        click.option(
            '--window-size', type=click.IntRange(1), help='Window side in stage-3 tokens (16 px).'
        ),
        click.option(
            '--ann-file',
            type=FILE,
            help='COCO data set that holds the pictures: the results take its ids.',
        ),
        click.option('--no-pictures', is_flag=True, help='Write no drawings.'),
        click.option('--force', is_flag=True, help='Replace results that are there.'),
        cfg_options,
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


score_thr = click.option(
    '--score-thr',
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help='Leave out what the model is less sure of (pose: key points in the drawings only).',
)


@click.group()
def command() -> None:
    """Predict on pictures, folders, 'glob patterns' and videos.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL. Inputs that can not
    be read are told at the end, with exit status 3; the others are done.
    """


@command.command(cls=ConfigCommand)
@shared
@score_thr
def det(score_thr: float, **options: Any) -> None:
    """Boxes and masks of things.

    Writes COCO results (bbox and RLE segmentation) and drawings.
    """
    run('det', lambda network, data_set, _: make_det(network, score_thr, data_set), **options)


@command.command(cls=ConfigCommand)
@shared
def seg(**options: Any) -> None:
    """A class for each pixel.

    Writes mask PNGs with class indices, COCO results (an RLE a class) and drawings.
    """
    from mmuniformer.apis.inference.seg import SegTask

    run('seg', lambda network, *_: SegTask(network), **options)


@command.command(cls=ConfigCommand)
@shared
@score_thr
@click.option('--boxes', type=FILE, help='Where people are: a COCO data set or COCO results.')
@click.option('--det-config', help='Detect people first, with this config ...')
@click.option('--det-checkpoint', help='... and this checkpoint.')
@click.option(
    '--box-thr',
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help='Leave out people that were detected with a lower score.',
)
def pose(
    score_thr: float,
    boxes: Path | None,
    det_config: str | None,
    det_checkpoint: str | None,
    box_thr: float,
    **options: Any,
) -> None:
    """Key points of people: in boxes of a file, of a detector, or one person a picture.

    Writes COCO results (keypoints) and drawings.
    """
    from mmuniformer.apis.inference import coco
    from mmuniformer.apis.inference import pose as poses
    from mmuniformer.apis.inference.network import Network

    if bool(det_config) != bool(det_checkpoint):
        raise UserError('--det-config and --det-checkpoint go together: give both or neither')
    if boxes and det_config:
        raise UserError('--boxes and --det-config both say where people are: give one of them')
    ann_file = options['ann_file']
    listed = coco.read_data_set(ann_file) if ann_file else None
    found = None
    if boxes:
        found = coco.PeopleBoxes(boxes, box_thr, (listed or {}).get('categories', ()))
        listed = listed or found.data_set

    def make(network: Network, data_set: Any, device: str) -> poses.PoseTask:
        finder = poses.whole_picture
        if found:
            finder = poses.from_file(found)
        elif det_config:
            ways = {name: options[name] for name in ('amp', 'deploy', 'compiled')}
            detector = Network('det', det_config, det_checkpoint, device, **ways)
            finder = poses.from_detector(make_det(detector, box_thr, None))
        category = coco.category_ids([coco.PERSON], data_set)[0]
        return poses.PoseTask(network, finder, score_thr, options['batch_size'], category)

    run('pose', make, listed=listed, need_ids=found is not None, **options)


def make_det(network: Any, score_thr: float, data_set: Any) -> Any:
    """Return the task; imported here, so that ``--help`` needs no framework."""
    from mmuniformer.apis.inference.det import DetTask

    return DetTask(network, score_thr, data_set)


def run(
    kind: str,
    make_task: Callable[[Any, Any, str], Any],
    config: str,
    checkpoint: str,
    inputs: tuple[str, ...],
    out: Path | None,
    device: str | None,
    batch_size: int,
    ann_file: Path | None,
    no_pictures: bool,
    force: bool,
    listed: Any = None,
    need_ids: bool = False,
    **network_options: Any,
) -> None:
    """Predict and tell what was done.

    Args:
        kind: The task's name.
        make_task: Gives the task for a network, the data set and the device.
        config: Path or name.
        checkpoint: Path or URL.
        inputs: Files, folders, patterns.
        out: Folder for the results.
        device: A torch device, or None for the best there is.
        batch_size: Pictures at a time.
        ann_file: COCO data set whose ids the results take.
        no_pictures: Write no drawings.
        force: Replace results.
        listed: ``ann_file``'s content where it was read before.
        need_ids: The pictures' ids have to mean something (boxes are looked up by them).
        network_options: The network's other arguments.
    """
    import torch
    from rich.console import Console

    from mmuniformer.apis.inference import coco
    from mmuniformer.apis.inference.inputs import find_sources
    from mmuniformer.apis.inference.network import Network
    from mmuniformer.apis.inference.output import Output
    from mmuniformer.apis.inference.run import Outcome, predict

    # Broken videos are told of by name at the end; FFmpeg's own lines would tear the progress bar.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    console = Console(stderr=True)
    data_set = listed if listed or not ann_file else coco.read_data_set(ann_file)
    sources, problems = find_sources(inputs)
    ids = coco.PictureIds(sources, data_set)
    if need_ids and data_set is None and not ids.by_name and sources:
        raise UserError(
            '--boxes gives boxes by picture id, and the pictures are not named by ids: give the '
            'COCO data set that they belong to with --ann-file'
        )
    out = out or Path('predictions') / kind
    outcome = Outcome()
    if sources:
        output = Output(out, sources, not no_pictures, kind == 'seg', force)
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        network = Network(kind, config, checkpoint, device, **network_options)
        task = make_task(network, data_set, device)
        outcome = predict(task, sources, output, ids, batch_size, console)
        if outcome.pictures:
            counts = f'{outcome.pictures} pictures, {outcome.records} {task.unit}'
            click.echo(f'{counts}: {output.results}')
    problems += outcome.problems
    for problem in problems:
        console.print(f'left out: {problem.source}: {problem.reason}', markup=False, style='red')
    if problems:
        raise SystemExit(STATUS_LEFT_OUT)
