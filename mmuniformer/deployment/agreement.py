"""Comparing an exported detector with mmdetection: by matching detections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from mmuniformer.deployment.networks import Outputs

SAME_BOX = 0.1
"""Pixels that the sides of the same box may be apart: boxes without area have no overlap."""
SAME_MASK, ENOUGH = 0.99, 0.99
"""Share of a mask's pixels from which on it is the same, and of detections that has to be."""
UNSURE = 0.01
"""Pixels whose probability is this close to a half may go either way."""


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
        gap = (theirs[1][:, None] - ours[1]).abs()
        apart = (theirs[0][:, None] - ours[0]).abs().amax(-1)
        same = (theirs[2][:, None] == ours[2]) & (apart <= SAME_BOX) & (gap <= tolerance)
        # Boxes without area suppress nothing: there may be several in almost one place.
        order = (gap + apart).masked_fill(~same, torch.inf).argsort(1).tolist()
        partner = {index: order[index][0] for index in same.any(1).nonzero()[:, 0].tolist()}
        masks = sum(
            same_mask(theirs[3][index], ours[3][other], theirs[0][index])
            for index, other in partner.items()
        )
        surplus = max(0, len(ours[1]) - len(theirs[1]))
        totals += torch.tensor([1, len(theirs[1]), surplus, len(partner), masks])
    return Agreement(*totals.tolist())


def same_mask(theirs: Tensor, ours: Tensor, box: Tensor) -> bool:
    """Tell whether a mask, laid on the image at its box, is one of the whole image."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    # As mmdetection does on a CPU: around the box alone.
    part, place = _do_paste_mask(ours[None, None], box[None], *theirs.shape)
    whole = torch.full(theirs.shape, -0.5)
    whole[place] = part[0] - 0.5
    differ = ((whole >= 0) != theirs) & (whole.abs() > UNSURE)
    return bool(differ.sum() <= (1 - SAME_MASK) * ((whole >= 0) | theirs).sum())


def render(agreement: Agreement, tolerance: float) -> Table:
    """Lay it out for the terminal."""
    table = Table(
        title='the file against mmdetection',
        caption=f'to {SAME_BOX} pixels, {SAME_MASK:.0%} of a mask, {tolerance:g} of a score',
    )
    for name in ('images', 'detections', 'surplus', 'same boxes', 'same masks', 'verdict'):
        table.add_column(name, justify='right')
    verdict = '[green]agrees' if agreement.enough else '[red]differs'
    if not agreement.expected and not agreement.surplus:
        verdict = '[yellow]nothing detected'
    table.add_row(*map(str, agreement), verdict)
    return table
