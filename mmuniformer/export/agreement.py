"""Comparing an exported detector with mmdetection: by matching detections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from mmuniformer.export.networks import Outputs

SAME_BOX = 0.1
"""Pixels that the sides of the same box may be apart: boxes without area have no overlap."""
SAME_MASK, ENOUGH = 0.99, 0.99
"""Overlap from which on masks are the same, and the share of detections that has to be."""


class Agreement(NamedTuple):
    """How many detections of mmdetection a file finds, and how near they are."""

    images: int
    expected: int
    """Detections of mmdetection."""
    surplus: int
    """Detections of the file beyond these."""
    matched: int
    """Of the same class, with a score within the tolerance and the same box."""
    same_masks: int
    """Of those matched."""

    @property
    def enough(self) -> bool:
        """Tell whether the file agrees; where nothing is detected there is nothing to say."""
        wanted = ENOUGH * (self.expected + self.surplus)
        return self.matched >= wanted and self.same_masks >= ENOUGH * self.matched


@torch.no_grad()
def match(
    run: Callable[[Tensor], Outputs],
    expected: Callable[[Tensor], Outputs],
    images: Iterable[Tensor],
    tolerance: float,
) -> Agreement:
    """Run a file and mmdetection on images ``(1, C, H, W)``; scores may differ by a tolerance."""
    totals = torch.zeros(5, dtype=torch.long)
    for image in images:
        theirs = expected(image)
        found = run(image)
        ours = [output[found[1] > 0] for output in found]
        same = (theirs[2][:, None] == ours[2]) & ((theirs[1][:, None] - ours[1]).abs() <= tolerance)
        apart = (theirs[0][:, None] - ours[0]).abs().amax(-1)
        pairs = (same & (apart <= SAME_BOX)).nonzero().tolist()
        partner = dict(reversed(pairs))
        masks = sum(
            same_mask(theirs[3][index], ours[3][other], ours[0][other])
            for index, other in partner.items()
        )
        surplus = max(0, len(ours[1]) - len(theirs[1]))
        totals += torch.tensor([1, len(theirs[1]), surplus, len(partner), masks])
    return Agreement(*totals.tolist())


def same_mask(theirs: Tensor, ours: Tensor, box: Tensor) -> bool:
    """Tell whether a mask of a box, laid on the image, is one of the whole image."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    whole, _ = _do_paste_mask(ours[None, None], box[None], *theirs.shape, skip_empty=False)
    whole = whole[0] >= 0.5
    union = (whole | theirs).sum()
    return bool((whole & theirs).sum() >= SAME_MASK * union)


def render(agreement: Agreement, tolerance: float) -> Table:
    """Lay it out for the terminal."""
    table = Table(
        title='the file against mmdetection',
        caption=f'to {SAME_BOX} pixels, {SAME_MASK:.0%} of a mask, {tolerance:g} of a score',
    )
    for name in ('images', 'detections', 'surplus', 'same boxes', 'same masks', 'verdict'):
        table.add_column(name, justify='right')
    verdict = '[green]agrees' if agreement.enough else '[red]differs'
    if not agreement.expected:
        verdict = '[yellow]nothing detected'
    table.add_row(*map(str, agreement), verdict)
    return table
