"""Weights of networks for images in networks for clips."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmuniformer.errors import CheckpointError

INFLATIONS = ('average', 'center')


def inflate(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], source: str, how: str = 'average'
) -> tuple[dict[str, Tensor], list[str]]:
    """Give the kernels of a file for images the time axis that a network for clips has.

    Args:
        theirs: The file's backbone.
        ours: The network's state dict.
        source: The file's name.
        how: ``average`` repeats a kernel along time and divides it by the count of frames, so that
            a still clip gives what its image gave, as far as the clip's ends are not padded.
            ``center`` puts it in the middle between zeros.

    Returns:
        The state dict, and the keys of what was inflated.

    Raises:
        CheckpointError: The file has what no network for clips has, or ``how`` is unknown.
    """
    if how not in INFLATIONS:
        raise CheckpointError(f'inflation={how!r} is unknown: choose {" or ".join(INFLATIONS)}')
    factors = [key for key in theirs if key.endswith('gamma_3')]
    if factors:
        raise CheckpointError(
            f'{source} cannot be inflated: it has {factors[0]}, the LayerScale of dropped patches, '
            'and light networks for clips have none: take a file without LayerScale'
        )
    kernels = [
        key for key, kernel in theirs.items() if kernel.ndim == 4 and ours_is_5d(ours.get(key))
    ]
    grown = {key: along_time(theirs[key], ours[key].shape[2], how) for key in kernels}
    return {**theirs, **grown}, kernels


def ours_is_5d(tensor: Tensor | None) -> bool:
    """Tell whether a tensor of the network has a time axis."""
    return tensor is not None and tensor.ndim == 5


def along_time(kernel: Tensor, frames: int, how: str) -> Tensor:
    """Inflate one kernel ``(out, in, H, W)`` to ``(out, in, frames, H, W)``."""
    kernel = kernel.unsqueeze(2)
    if how == 'average':
        return kernel.repeat(1, 1, frames, 1, 1) / frames
    zeros = torch.zeros_like(kernel).repeat(1, 1, frames // 2, 1, 1)
    return torch.cat([zeros, kernel, zeros], 2)
