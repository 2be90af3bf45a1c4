"""Exported files against PyTorch: outputs on noise, and detections on test data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from rich.table import Table
from torch import Tensor, nn

from mmuniformer.apis.config import scope_of, split_data
from mmuniformer.apis.models import quiet
from mmuniformer.datasets.checks.dataset import check_dataset
from mmuniformer.deployment.files import AXES, MIN_DYNAMIC_FRAMES, MIN_DYNAMIC_SIDE, Run, Shape
from mmuniformer.deployment.networks import Target
from mmuniformer.errors import UserError

BOX_TOLERANCE = 0.1
"""Pixels between the sides of equal boxes; no overlap, because boxes may have no area."""
MASK_TOLERANCE = 0.01
"""Of the probabilities in a mask."""
MATCHED = 0.99
"""Share of detections that must be equal."""
RESULTS = {True: '[green]passes', False: '[red]fails', None: '[yellow]nothing detected'}
COMPARED_IMAGES = 16

Row = dict[str, str | int | float | bool | None]
"""A comparison: what was measured, by column of the table, and its ``result``, a key of
``RESULTS``.
"""


def shapes_to_compare(shape: Shape, dynamic: bool) -> list[Shape]:
    """Return the shape of the example and, for dynamic sizes, others: no side a multiple of 16.

    Of clips the others have fewer frames or one more.
    """
    _, *frames, height, width = shape
    if not dynamic:
        return [shape]
    least = MIN_DYNAMIC_SIDE
    smaller = (max(least, height // 2) + 5, max(least, width * 3 // 4) + 9)
    fewer = [max(MIN_DYNAMIC_FRAMES, count // 2) for count in frames]
    more = [count + 1 for count in frames]
    return [
        (1, *frames, height, width),
        (3, *fewer, *smaller),
        (2, *more, least + 39, least + 7),
    ]


@torch.no_grad()
def compare_outputs(
    run: Run, target: Target, shapes: Iterable[Shape], tolerance: float
) -> list[Row]:
    """Run a file and PyTorch on the same noise, once for each shape.

    The tolerance is a share of the largest value, or of 1 if that is more.
    """
    noise = torch.Generator().manual_seed(0)
    header = ' x '.join(axis for axis in AXES[target.dims] if axis != 'channels')
    rows = []
    for shape in shapes:
        batch, *size = shape
        image = torch.randn(batch, target.channels, *size, generator=noise)
        pairs = list(zip(run(image), target.expected(image), strict=True))
        # Not Python's max, which passes over NaN.
        differences = torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs])
        difference = float(differences.max())
        largest = max(float(theirs.abs().max()) for _, theirs in pairs)
        rows.append(
            {
                header: ' x '.join(map(str, shape)),
                'largest difference': difference,
                'largest value': largest,
                'result': difference <= tolerance * max(1.0, largest),
            }
        )
    return rows


@torch.no_grad()
def compare_detections(
    run: Run, expected: Run, images: Iterable[Tensor], tolerance: float
) -> list[Row]:
    """Match the detections of a file with those of MMDetection on images ``(1, C, H, W)``.

    ``run`` returns what ``detector.Detections`` does, ``expected`` what ``detector.detect`` does.
    Two are equal if their class is the same, and boxes, scores and masks differ by no more than
    their tolerances. 99% have to be equal.
    """
    totals = torch.zeros(4, dtype=torch.long)
    for image in images:
        theirs, outputs = expected(image), run(image)
        ours = [output[outputs[1] > 0] for output in outputs]
        pairs = zip(theirs, ours, strict=True)
        boxes, scores, labels, masks = ((a[:, None] - b).abs() for a, b in pairs)
        equal = (labels == 0) & (scores <= tolerance) & (boxes <= BOX_TOLERANCE).all(-1)
        equal &= (masks <= MASK_TOLERANCE).flatten(2).all(-1)
        surplus = max(0, len(ours[1]) - len(theirs[1]))
        totals += torch.tensor([1, len(theirs[1]), surplus, equal.any(1).sum()])
    row = dict(zip(('images', 'detections', 'surplus', 'equal'), totals.tolist(), strict=True))
    wanted = MATCHED * (row['detections'] + row['surplus'])
    return [{**row, 'result': row['equal'] >= wanted if wanted else None}]


def comparison_table(rows: Sequence[Row], tolerance: float) -> Table:
    """Lay comparisons out for the terminal."""
    table = Table(title='file and PyTorch', caption=f'tolerance {tolerance:g}')
    for column in rows[0]:
        table.add_column(column, justify='right')
    for *values, result in map(dict.values, rows):
        cells = (f'{v:.3g}' if isinstance(v, float) else str(v) for v in values)
        table.add_row(*cells, RESULTS[result])
    return table


def images_to_compare(cfg: Config, model: nn.Module, size: tuple[int, int]) -> list[Tensor]:
    """Return images ``(1, C, H, W)`` of the test data that fit into a size, padded to it."""
    fix = 'detectors are compared on test data: set their path with --cfg-options, or --no-check'
    settings, padded = split_data(cfg), []
    with quiet(), scope_of(cfg):
        try:
            if cfg.get('check_data', True):
                check_dataset(settings)
        except UserError as error:
            raise UserError(f'{error} ({fix})') from error
        dataset = DATASETS.build(settings)
        chosen = np.linspace(0, len(dataset) - 1, min(COMPARED_IMAGES, len(dataset)), dtype=int)
        for index in chosen.tolist():
            image = model.data_preprocessor(pseudo_collate([dataset[index]]), False)['inputs']
            bottom, right = (side - own for side, own in zip(size, image.shape[2:], strict=True))
            if bottom >= 0 and right >= 0:
                padded.append(torch.nn.functional.pad(image, (0, right, 0, bottom)))
    if not padded:
        raise UserError(f'no image of the test data fits into {size[0]} x {size[1]} ({fix})')
    return padded
