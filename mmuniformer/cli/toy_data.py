"""``mmuniformer toy-data``."""

from __future__ import annotations

from pathlib import Path

import click

from mmuniformer.cli.loading import loading


def _setting(name: str, default: int, text: str):
    return click.option(name, default=default, show_default=True, help=text)


@click.command('toy-data')
@click.argument('out', metavar='DIR', type=click.Path(path_type=Path))
@_setting('--seed', 0, 'Seed of the scenes.')
@_setting('--images', 400, 'Number of training images.')
@_setting('--val-images', 48, 'Number of held-out images.')
@_setting('--size', 128, 'Side of the images in pixels.')
@click.option('--force', is_flag=True, help='Replace what an earlier run wrote to DIR.')
def command(out: Path, seed: int, images: int, val_images: int, size: int, force: bool) -> None:
    """Write toy scenes to the folder DIR, as COCO and ADE style datasets.

    DIR/coco is a data root for detection and pose, DIR/ade one for segmentation. DIR/cls and
    DIR/video hold images of single objects and clips of moving ones, in a folder a class.
    """
    with loading():
        from rich.console import Console
        from rich.progress import Progress

        from mmuniformer.datasets.toy.labeled import write_toy_clips, write_toy_crops
        from mmuniformer.datasets.toy.write import CLASSES, write_toy_data
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('toy scenes', total=images + val_images)
        data = write_toy_data(
            out, seed, images, val_images, size, force, lambda *_: progress.advance(bar)
        )
    crops, clips = write_toy_crops(data), write_toy_clips(data)
    number = {name: sum(counts[name] for counts in data.instances.values()) for name in CLASSES}
    objects = ', '.join(f'{name} {count}' for name, count in number.items())
    click.echo(
        f'{out} {"already holds" if data.reused else "now holds"} {images} scenes to train on and '
        f'{val_images} held out ({objects})\n'
        f'  detection and pose: {data.coco}\n'
        f'  segmentation: {data.ade}\n'
        f'  classification: {crops} and {clips}'
    )
