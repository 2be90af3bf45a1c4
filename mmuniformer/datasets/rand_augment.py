"""RandAugment as the authors train: timm's operations and their names, on one image or a clip.

RandAugment, arXiv 1909.13719. One draw serves all frames of a clip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mmuniformer.errors import UserError

GRAY = (128, 128, 128)
MAX_LEVEL = 10.0
PROBABILITY = 0.5
"""Of each drawn operation to be applied."""
Operation = Callable[[Image.Image], Image.Image]


Matrix = tuple[float, float, float, float, float, float]
"""Leads from a place (x, y) of the output to one of the input; x comes first."""


def new_random() -> np.random.Generator:
    """Return a generator that follows NumPy's global seed, which mmengine sets in each worker."""
    return np.random.default_rng(np.random.randint(2**32, size=4))


@dataclass(frozen=True)
class Warp:
    """A geometric operation, which label maps go through, too."""

    matrix: Callable[[int, int], Matrix]
    """From width and height."""
    resample: int
    fill: tuple[int, ...]
    """Color of what comes from outside."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Warp an image."""
        kind, matrix = Image.Transform.AFFINE, self.matrix(*image.size)
        return image.transform(image.size, kind, matrix, self.resample, fillcolor=self.fill)


def rotation(degrees: float) -> Callable[[int, int], Matrix]:
    """Return the matrix of a rotation about the middle, rounded as Pillow does."""
    angle = math.radians(degrees)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)

    def matrix(width: int, height: int) -> Matrix:
        x, y = width / 2, height / 2
        return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)

    return matrix


def enhanced(kind: type, factor: float) -> Operation:
    """Return a change of color, contrast, brightness or sharpness; the factor 1 changes nothing."""
    return lambda image: kind(image).enhance(factor)


def posterized(bits: int) -> Operation:
    """Return what keeps the highest bits of values; without any, which Pillow refuses, black."""
    mask = 256 - 2 ** (8 - bits)
    return lambda image: image.point([value & mask for value in range(256)] * 3)


def solarized_by_adding(amount: int) -> Operation:
    """Return what makes dark values lighter."""
    table = [min(255, value + amount) if value < 128 else value for value in range(256)]
    return lambda image: image.point(table * 3)


ENHANCEMENTS = {
    'Color': ImageEnhance.Color,
    'Contrast': ImageEnhance.Contrast,
    'Brightness': ImageEnhance.Brightness,
    'Sharpness': ImageEnhance.Sharpness,
}
NAMES = (
    *('AutoContrast', 'Equalize', 'Invert', 'Rotate', 'Posterize', 'Solarize', 'SolarizeAdd'),
    *ENHANCEMENTS,
    *('ShearX', 'ShearY', 'TranslateX', 'TranslateY'),
)


def operation(
    name: str,
    level: float,
    sign: int,
    increasing: bool,
    resample: int,
    fill: tuple[int, ...] = GRAY,
) -> Operation:
    """Return an operation at a level in [0, 10]; ``sign`` is 1 or -1 where it has a direction.

    Without ``increasing``, four kinds get weaker with the level, as in the first RandAugment.
    """
    part = level / MAX_LEVEL
    if name in ENHANCEMENTS:
        factor = 1 + sign * 0.9 * part if increasing else 0.1 + 1.8 * part
        return enhanced(ENHANCEMENTS[name], factor)
    bits, threshold = int(part * 4), int(part * 256)
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
    shear, shift = sign * 0.3 * part, sign * 0.45 * part
    warps = {
        'Rotate': rotation(sign * 30 * part),
        'ShearX': lambda width, height: (1, shear, 0, 0, 1, 0),
        'ShearY': lambda width, height: (1, 0, 0, shear, 1, 0),
        'TranslateX': lambda width, height: (1, 0, shift * width, 0, 1, 0),
        'TranslateY': lambda width, height: (1, 0, 0, 0, 1, shift * height),
    }
    if name in warps:
        return Warp(warps[name], resample, fill)
    return {
        'AutoContrast': lambda: ImageOps.autocontrast,
        'Equalize': lambda: ImageOps.equalize,
        'Invert': lambda: ImageOps.invert,
        'Posterize': lambda: posterized(bits),
        'Solarize': lambda: lambda image: ImageOps.solarize(image, threshold),
        'SolarizeAdd': lambda: solarized_by_adding(int(part * 110)),
    }[name]()


class Augment:
    """Apply drawn operations to images, the same to all of a call.

    Args:
        interpolation: Of warps: 'bicubic', 'bilinear', or 'random' for one of them by chance.
        fill: Red, green and blue of what warps take from outside.
    """

    increasing = False
    """Whether all operations get stronger with the level."""

    def __init__(self, interpolation: str = 'bicubic', fill: Sequence[int] = GRAY):
        names = ('bilinear', 'bicubic') if interpolation == 'random' else (interpolation,)
        self.resamples = [Image.Resampling[name.upper()] for name in names]
        self.fill = tuple(fill)

    def draw(self, random: np.random.Generator) -> list[Operation]:
        """Draw the operations of one image or clip."""
        raise NotImplementedError

    def operation(self, name: str, level: float, random: np.random.Generator) -> Operation:
        """Return an operation in a drawn direction."""
        sign, resample = random.choice((1, -1)), random.choice(self.resamples)
        return operation(name, level, sign, self.increasing, resample, self.fill)

    def __call__(
        self, images: Sequence[np.ndarray], random: np.random.Generator
    ) -> list[np.ndarray]:
        """Return images, ``(H, W, 3)`` uint8 each, with the operations of one draw."""
        return apply(self.draw(random), images)


def apply(operations: Sequence[Operation], images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return images after operations."""
    found = []
    for image in map(Image.fromarray, images):
        for operate in operations:
            image = operate(image)
        found.append(np.asarray(image))
    return found


class RandAugment(Augment):
    """Random operations of one level.

    Args:
        policy: As timm writes it: ``rand``, then ``-m`` level (10), ``-n`` operations (2),
            ``-mstd`` standard deviation of the level (0), ``-inc1`` all get stronger with it.
        options: As ``Augment`` takes them.

    Raises:
        UserError: The policy is written in another way.
    """

    def __init__(self, policy: str, *options: Any, **named: Any):
        super().__init__(*options, **named)
        form = re.fullmatch(r'rand(?:-m(\d+))?(?:-n(\d+))?(?:-mstd(\d*\.?\d+))?(-inc1)?', policy)
        if not form:
            raise UserError(f'policy={policy!r}: write rand[-mN][-nN][-mstdX][-inc1]')
        level, count, deviation, increasing = form.groups()
        self.level = float(level or MAX_LEVEL)
        self.count = int(count or 2)
        self.deviation = float(deviation or 0)
        self.increasing = increasing is not None

    def draw(self, random: np.random.Generator) -> list[Operation]:
        """Draw the operations of one image or clip."""
        drawn = []
        for name in random.choice(NAMES, self.count):
            if random.random() < PROBABILITY:
                level = np.clip(random.normal(self.level, self.deviation), 0, MAX_LEVEL)
                drawn.append(self.operation(name, level, random))
        return drawn
