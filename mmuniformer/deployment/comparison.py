"""Exported files against PyTorch: outputs, detections, and scores on test data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from rich.table import Table
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from mmuniformer.analysis.benchmark.scores import evaluate
from mmuniformer.apis.config import framework_of, scope_of
from mmuniformer.apis.models import quiet
from mmuniformer.deployment.files import MIN_DYNAMIC_SIDE, Run, runner
from mmuniformer.deployment.networks import Target

BOX_TOLERANCE = 0.1
"""Pixels between the sides of equal boxes; no overlap, because boxes may have no area."""
MASK_TOLERANCE = 0.01
"""Share of a mask's pixels that may differ, and distance from 0.5 of pixels that may go either way.
"""
MATCHED = 0.99
"""Share of detections that must be equal."""
RESULTS = {True: '[green]passes', False: '[red]fails', None: '[yellow]nothing detected'}
SECONDS = 1.0
"""Time spent on timing each network."""

Shape = tuple[int, int, int]
"""Batch, height and width."""
Row = dict[str, str | int | float | bool | None]
"""A comparison: what was measured, by column of the table, and its ``result``, a key of
``RESULTS``.
"""


def shapes_to_compare(shape: Shape, dynamic: bool) -> list[Shape]:
    """Return the shape of the example and, for dynamic sizes, others unlike it.

    No side of the others is a multiple of 16: patches are cropped and windows padded.
    """
    _, height, width = shape
    if not dynamic:
        return [shape]
    least = MIN_DYNAMIC_SIDE
    smaller = (max(least, height // 2) + 5, max(least, width * 3 // 4) + 9)
    return [(1, height, width), (3, *smaller), (2, least + 39, least + 7)]


@torch.no_grad()
def compare_outputs(
    run: Run, target: Target, shapes: Iterable[Shape], tolerance: float
) -> list[Row]:
    """Run a file and PyTorch on the same noise, once for each shape.

    The tolerance is the largest difference that passes, as a share of the largest value, or of 1
    if that is more.
    """
    noise = torch.Generator().manual_seed(0)
    rows = []
    for shape in shapes:
        batch, height, width = shape
        image = torch.randn(batch, target.channels, height, width, generator=noise)
        pairs = list(zip(run(image), target.expected(image), strict=True))
        # Not Python's max, which passes over NaN.
        differences = torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs])
        difference = float(differences.max())
        largest = max(float(theirs.abs().max()) for _, theirs in pairs)
        rows.append(
            {
                'batch x height x width': ' x '.join(map(str, shape)),
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
    Two are equal if their class is the same, their boxes differ by at most 0.1 pixels and their
    scores by at most the tolerance. 99% of the detections and of their masks have to be equal.
    """
    totals = torch.zeros(5, dtype=torch.long)
    for image in images:
        theirs = expected(image)
        outputs = run(image)
        ours = [output[outputs[1] > 0] for output in outputs]
        gap = (theirs[1][:, None] - ours[1]).abs()
        apart = (theirs[0][:, None] - ours[0]).abs().amax(-1)
        equal = (theirs[2][:, None] == ours[2]) & (apart <= BOX_TOLERANCE) & (gap <= tolerance)
        # Boxes without area suppress nothing: several can lie in almost one place.
        order = (gap + apart).masked_fill(~equal, torch.inf).argsort(1).tolist()
        partner = {index: order[index][0] for index in equal.any(1).nonzero()[:, 0].tolist()}
        masks = sum(
            equal_masks(theirs[3][index], ours[3][other], theirs[0][index])
            for index, other in partner.items()
        )
        surplus = max(0, len(ours[1]) - len(theirs[1]))
        totals += torch.tensor([1, len(theirs[1]), surplus, len(partner), masks])
    columns = ('images', 'detections', 'surplus', 'equal boxes', 'equal masks')
    row = dict(zip(columns, totals.tolist(), strict=True))
    wanted = MATCHED * (row['detections'] + row['surplus'])
    boxes, masks = row['equal boxes'], row['equal masks']
    passes = boxes >= wanted and masks >= MATCHED * boxes
    return [{**row, 'result': passes if wanted else None}]


def equal_masks(theirs: Tensor, ours: Tensor, box: Tensor) -> bool:
    """Compare a mask of the image with the probabilities of one inside its box."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    # As MMDetection does on a CPU: around the box only.
    inside, place = _do_paste_mask(ours[None, None], box[None], *theirs.shape)
    pasted = torch.full(theirs.shape, -0.5)
    pasted[place] = inside[0] - 0.5
    differ = ((pasted >= 0) != theirs) & (pasted.abs() > MASK_TOLERANCE)
    return bool(differ.sum() <= MASK_TOLERANCE * ((pasted >= 0) | theirs).sum())


def comparison_table(rows: Sequence[Row], tolerance: float) -> Table:
    """Lay comparisons out for the terminal."""
    table = Table(title='file and PyTorch', caption=f'tolerance {tolerance:g}')
    for column in rows[0]:
        table.add_column(column, justify='right')
    for *values, result in map(dict.values, rows):
        cells = (f'{v:.3g}' if isinstance(v, float) else str(v) for v in values)
        table.add_row(*cells, RESULTS[result])
    return table


def with_network(cfg: Config, model: nn.Module, run: Run) -> nn.Module:
    """Return a copy of a model that runs an exported file as its network.

    What the framework does before and after the network stays: normalization, flip tests, resizing
    of logits, decoding of heatmaps.
    """
    model = copy.deepcopy(model)
    # Attributes of an instance take precedence over the methods of its class.
    if framework_of(cfg) == 'mmseg':
        model.encode_decode = lambda image, metas: run(image)[0]
    else:
        model.extract_feat = lambda image: image
        model.head.forward = lambda image: run(image)[0]
    return model


def score_table(
    cfg: Config, model: nn.Module, target: Target, files: Sequence[Path], shape: Shape
) -> Table:
    """Evaluate PyTorch and each file, and time their networks on one input of a shape."""
    runs = {file.name: runner(file) for file in files}
    models = {'PyTorch': model, **{name: with_network(cfg, model, runs[name]) for name in runs}}
    with quiet(), scope_of(cfg):
        scores = {name: evaluate(each, cfg) for name, each in models.items()}
    image = torch.rand(shape[0], target.channels, *shape[1:])
    threads = torch.get_num_threads()
    timed = ' x '.join(map(str, shape))
    table = Table(title='on the test data', caption=f'time of {timed}, {threads} threads')
    table.add_column('')
    for name in models:
        table.add_column(name, justify='right', overflow='fold')
    for metric in scores['PyTorch']:
        table.add_row(metric, *(f'{scores[name][metric]:.4g}' for name in models))
    with torch.inference_mode():
        timers = [
            Timer('run(image)', globals={'run': run, 'image': image}, num_threads=threads)
            for run in (target.expected, *runs.values())
        ]
        times = [timer.blocked_autorange(min_run_time=SECONDS).median for timer in timers]
    table.add_row('time (ms)', *(f'{seconds * 1e3:.1f}' for seconds in times))
    return table
