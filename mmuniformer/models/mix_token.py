"""MixToken: a box of each image's tokens comes from another image, as token labels allow it.

Token labeling, arXiv 2104.10858, section 3.2: mixed after the stem, so that no token mixes images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class TokenBox(NamedTuple):
    """A box of tokens on a grid; the last row and column are excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        """Count its tokens."""
        return (self.bottom - self.top) * (self.right - self.left)

    def shrink(self, factor: int) -> TokenBox:
        """Return the box on a grid whose sides are ``factor`` times smaller, rounded down."""
        return TokenBox(*(edge // factor for edge in self))


def random_box(height: int, width: int) -> TokenBox:
    """Draw a box whose area is, before clipping, a uniform share of the grid."""
    share = math.sqrt(torch.rand(()).item())

    def edges(side: int) -> tuple[int, int]:
        center, half = torch.randint(side, ()).item(), int(side * share) // 2
        return max(center - half, 0), min(center + half, side)

    (top, bottom), (left, right) = edges(height), edges(width)
    return TokenBox(top, left, bottom, right)


def mix_images(x: Tensor, box: TokenBox) -> Tensor:
    """Take a box of maps ``(B, C, H, W)`` from the batch in reverse order."""
    inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    x = x.clone()
    x[inside] = x.flip(0)[inside]
    return x
