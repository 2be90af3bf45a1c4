"""``mmuniformer predict det|seg|pose|cls|video``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options, device, max_pixels
from mmuniformer.errors import UserError

if TYPE_CHECKING:
    from mmuniformer.apis.inference.run import Task

SHOWN = 20
"""Inputs whose labels are printed."""
SKIPPED_STATUS = 3
"""Exit status of a run that skipped inputs."""

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
threshold = partial(click.option, type=click.FloatRange(0, 1), default=0.3, show_default=True)


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """Add what the tasks have in common: arguments first, then options; and load what they use."""

    @wraps(function)
    def loaded(ann_file: Path | None, **options: Any) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        live = Live(
            Spinner('dots', 'loading the model'), console=Console(stderr=True), transient=True,
            # Loggers that are made meanwhile keep the streams that they find.
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        with live:
            with loading():
                from mmuniformer.apis.inference.coco import read_coco
            data_set = read_coco(ann_file) if ann_file else None
            function(data_set=data_set, loaded=live.stop, **options)

    decorators = (
        click.argument('config'),
        click.argument('checkpoint'),
        click.argument('inputs', nargs=-1, required=True, metavar='INPUT...'),
        click.option(
            '--out', type=FOLDER, metavar='DIR', help='Write here instead of predictions/TASK.'
        ),
        device,
        click.option(
            '--batch-size',
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help='Images at a time. Those that are resized to the same size share a batch.',
        ),
        max_pixels,
        click.option('--amp', is_flag=True, help='Run in bf16 on a CPU, in fp16 on a GPU.'),
        click.option(
            '--ann-file',
            type=FILE,
            metavar='FILE',
            help='COCO data set that lists the images: results take its ids.',
        ),
        click.option('--no-vis', is_flag=True, help='Write no drawings.'),
        click.option('--force', is_flag=True, help='Replace existing results.'),
        cfg_options,
    )
    for decorator in reversed(decorators):
        loaded = decorator(loaded)
    return loaded


@click.group()
def command() -> None:
    """Predict on images, folders, 'glob patterns' and videos.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL. Inputs that cannot
    be used are skipped and listed at the end; the exit status is then 3.
    """


@command.command(cls=ConfigCommand)
@shared
@threshold('--score-thr', help='Skip instances with a lower score.')
def det(score_thr: float, **options: Any) -> None:
    """Detect objects: boxes and masks.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL, INPUT an image, a
    video, a folder or a quoted glob pattern. Writes COCO results (bbox and RLE segmentation) and
    drawings.
    """
    from mmuniformer.apis.inference import DetTask

    run = Run('det', **options)
    run.write(DetTask(run.network, score_thr, run.data_set))


@command.command(cls=ConfigCommand)
@shared
def seg(**options: Any) -> None:
    """Predict a class for each pixel.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL, INPUT an image, a
    video, a folder or a quoted glob pattern. Writes mask PNGs with class indices, COCO results (an
    RLE per class) and drawings.
    """
    from mmuniformer.apis.inference import SegTask

    run = Run('seg', **options)
    run.write(SegTask(run.network))


@command.command(cls=ConfigCommand, short_help='Estimate keypoints in boxes.')
@shared
@threshold('--score-thr', help='Do not draw keypoints with a lower score.')
@click.option(
    '--boxes', type=FILE, metavar='FILE', help='Take boxes from a COCO data set or COCO results.'
)
@click.option('--det-config', metavar='CONFIG', help='Detect boxes first, with this config ...')
@click.option('--det-checkpoint', metavar='CHECKPOINT', help='... and this checkpoint.')
@threshold('--box-thr', help='Skip boxes that were detected with a lower score.')
@click.option(
    '--box-classes',
    metavar='NAME,...|all',
    default='',
    help='Categories of the boxes to use.  [default: person if there is such a category, else all]',
)
def pose(
    score_thr: float,
    boxes: Path | None,
    det_config: str | None,
    det_checkpoint: str | None,
    box_thr: float,
    box_classes: str,
    data_set: Any,
    **options: Any,
) -> None:
    """Estimate keypoints in boxes of a file, of a detector, or in each image as a whole.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL, INPUT an image, a
    video, a folder or a quoted glob pattern. Writes COCO results (keypoints) and drawings.
    """
    from mmuniformer.apis.inference import BoxFile, Detected, DetTask, Network, PoseTask, WholeImage

    if bool(det_config) != bool(det_checkpoint):
        raise UserError('--det-config and --det-checkpoint go together: give both or neither')
    if boxes and det_config:
        raise UserError('--boxes and --det-config are two sources of boxes: give one of them')
    names = tuple(name.strip() for name in box_classes.split(',') if name.strip())
    if boxes:
        finder = BoxFile(boxes, box_thr, names, (data_set or {}).get('categories', ()))
        data_set = data_set or finder.data_set
    elif not det_config:
        if len(names) > 1 or 'all' in names:
            raise UserError(
                f'--box-classes {box_classes}: without --boxes or --det-config each image is one '
                'instance: give its category alone'
            )
        finder = WholeImage(*names, data_set=data_set)
    run = Run('pose', data_set=data_set, need_ids=boxes is not None, **options)
    if det_config:
        device, amp = str(run.network.device), run.network.amp
        detector = Network('det', det_config, det_checkpoint, device, amp)
        finder = Detected(DetTask(detector, box_thr), names, data_set)
    run.write(PoseTask(run.network, finder, score_thr, run.batch_size))


top_k = click.option(
    '--top-k', type=click.IntRange(1), default=5, show_default=True, help='Labels for each input.'
)


@command.command(cls=ConfigCommand)
@shared
@top_k
def cls(top_k: int, **options: Any) -> None:
    """Classify images.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL, INPUT an image, a
    video (each frame is classified), a folder or a quoted glob pattern. Writes the best labels as
    JSON and CSV, and drawings.
    """
    from mmuniformer.apis.inference import ClsTask

    run = Run('cls', **options)
    run.write(ClsTask(run.network, top_k))


@command.command(cls=ConfigCommand)
@shared
@top_k
def video(top_k: int, **options: Any) -> None:
    """Classify videos, each as a whole.

    CONFIG is a path or the name of a shipped config, CHECKPOINT a path or URL, INPUT a video, a
    folder of videos, a folder of numbered frames or a quoted glob pattern. Clips and crops are
    those of the config's test pipeline. Writes the best labels as JSON and CSV, and drawings.
    """
    from mmuniformer.apis.inference import VideoTask

    run = Run('video', **options)
    run.write(VideoTask(run.network, top_k))


def printable(text: str) -> str:
    """Return a text on one line and without control characters: file names may hold any."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


class Run:
    """A run of the command: its frames, output files and network, checked in this order."""

    def __init__(
        self,
        task: str,
        inputs: tuple[str, ...],
        out: Path | None,
        batch_size: int,
        max_pixels: int,
        data_set: Any,
        no_vis: bool,
        force: bool,
        loaded: Callable[[], None],
        need_ids: bool = False,
        **network: Any,
    ):
        from mmuniformer.apis.inference import Clips, Frames, Network, Writer

        # Damaged files are listed at the end; what decoders say would tear the progress bar.
        warnings.filterwarnings('ignore', module='PIL')
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        self.data_set, self.batch_size, self.loaded = data_set, batch_size, loaded
        self.frames = (Clips if task == 'video' else Frames)(inputs, data_set, max_pixels)
        if not self.frames.sources:
            self.end()
        if need_ids and data_set is None and not self.frames.ids.by_name:
            raise UserError(
                '--boxes gives boxes by image id, and the images are not named by ids: give the '
                'COCO data set that lists them with --ann-file'
            )
        out = out or Path('predictions') / task
        self.writer = Writer(out, self.frames.sources, not no_vis, force)
        self.network = Network(task, **network)

    def write(self, task: Task) -> None:
        """Predict, write, and say what was written, also of an interrupted run; then end."""
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress

        from mmuniformer.apis.inference import predict_and_write

        self.loaded()
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        try:
            with self.writer, Progress(*columns, console=Console(stderr=True)) as bar:
                shown = bar.add_task('predicting', total=self.frames.total)
                for _ in predict_and_write(task, self.frames, self.writer.add, self.batch_size):
                    bar.update(shown, completed=self.frames.read, total=self.frames.total)
                bar.update(shown, completed=self.frames.total)  # past what was skipped last
        finally:
            if self.writer.finished:
                counts = f'{len(self.writer.images)} images, {self.writer.records} {task.unit}'
                click.echo(f'{counts}: {self.writer.results}')
        if self.writer.finished and self.writer.rows:
            self.print_rows()
        if skipped := sum(task.skipped.values()):
            names = [category['name'] for category in task.categories]
            used = ', '.join(names[:5]) + ', ...' * (len(names) > 5)
            click.echo(f'{skipped} boxes not used: not {used}, crowds, or thinner than a pixel')
        self.end()

    def print_rows(self) -> None:
        """Print the labels of the first inputs."""
        from itertools import groupby

        from rich.console import Console
        from rich.table import Table

        table = Table('input', 'labels')
        inputs = groupby(self.writer.rows, key=lambda row: row['input'])
        for index, (name, rows) in enumerate(inputs):
            if index == SHOWN:
                table.add_row('...', f'all are in {self.writer.table}')
                break
            table.add_row(name, ', '.join(f'{row["name"]} {row["score"]:.3f}' for row in rows))
        Console().print(table)

    def end(self) -> None:
        """List what was skipped, and end with the status that says so."""
        self.loaded()
        for line in self.frames.skipped:
            click.secho(f'skipped: {printable(line)}', fg='red', err=True)
        if self.frames.skipped:
            raise SystemExit(SKIPPED_STATUS)
