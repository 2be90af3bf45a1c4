"""Comparing an exported file with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from mmuniformer.deployment.files import MIN_SIDE
from mmuniformer.deployment.networks import Outputs

Shape = tuple[int, int, int]
"""Batch, height and width."""


class Comparison(NamedTuple):
    """How far a file's outputs are from PyTorch's on images of one shape."""

    shape: Shape
    difference: float
    """Of the entry that differs most."""
    largest: float
    """Largest absolute value of PyTorch's outputs."""

    def within(self, tolerance: float) -> bool:
        """Tell whether the difference is at most a share of the largest value, or of 1."""
        return self.difference <= tolerance * max(1.0, self.largest)


def shapes_to_check(shape: Shape, dynamic: bool) -> list[Shape]:
    """Return the shape of the example and, where sizes are dynamic, others unlike it.

    No side of the others is a multiple of 16, so that patches are cut off and windows padded.
    """
    batch, height, width = shape
    if not dynamic:
        return [shape]
    smaller = (max(MIN_SIDE, height // 2) + 5, max(MIN_SIDE, width * 3 // 4) + 9)
    return [(1, height, width), (3, *smaller), (2, MIN_SIDE + 39, MIN_SIDE + 7)]


@torch.no_grad()
def compare(
    run: Callable[[Tensor], Outputs],
    expected: Callable[[Tensor], Outputs],
    channels: int,
    shapes: Iterable[Shape],
) -> Iterator[Comparison]:
    """Run a file and PyTorch on the same noise, once for each shape."""
    noise = torch.Generator().manual_seed(0)
    for shape in shapes:
        batch, height, width = shape
        image = torch.randn(batch, channels, height, width, generator=noise)
        pairs = list(zip(run(image), expected(image), strict=True))
        yield Comparison(
            shape,
            # Not Python's max, which passes over NaN.
            float(torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max()),
            max(float(theirs.abs().max()) for _, theirs in pairs),
        )


def render(comparisons: list[Comparison], tolerance: float) -> Table:
    """Lay comparisons out for the terminal."""
    table = Table(
        title='the file against PyTorch', caption=f'tolerance: {tolerance:g} of the value'
    )
    table.add_column('batch x height x width')
    for name in ('largest difference', 'largest value', 'verdict'):
        table.add_column(name, justify='right')
    for each in comparisons:
        verdict = '[green]agrees' if each.within(tolerance) else '[red]differs'
        shape = ' x '.join(map(str, each.shape))
        table.add_row(shape, f'{each.difference:.2e}', f'{each.largest:.3g}', verdict)
    return table
