"""RandAugment as the authors train: timm's operations and their names, on one image or a clip.

RandAugment, arXiv 1909.13719. One draw serves all frames of a clip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mmuniformer.errors import UserError

GRAY = (128, 128, 128)
MAX_LEVEL = 10.0
PROBABILITY = 0.5
"""Of each drawn operation to be applied."""
Operation = Callable[[Image.Image], Image.Image]


def affine(matrix: Sequence[float], resample: int) -> Operation:
    """Return a warp that fills what comes from outside with gray."""
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=GRAY
    )


def shifted(x: float, y: float, resample: int) -> Operation:
    """Return a shift by shares of width and height."""
    return lambda image: affine((1, 0, x * image.width, 0, 1, y * image.height), resample)(image)


def rotated(degrees: float, resample: int) -> Operation:
    """Return a rotation."""
    return lambda image: image.rotate(degrees, resample=resample, fillcolor=GRAY)


def enhanced(kind: type, factor: float) -> Operation:
    """Return a change of color, contrast, brightness or sharpness; the factor 1 changes nothing."""
    return lambda image: kind(image).enhance(factor)


def posterized(bits: int) -> Operation:
    """Return what keeps the highest bits of values."""
    return (lambda image: image) if bits >= 8 else lambda image: ImageOps.posterize(image, bits)


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


def operation(name: str, level: float, sign: int, increasing: bool, resample: int) -> Operation:
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
    return {
        'AutoContrast': lambda: ImageOps.autocontrast,
        'Equalize': lambda: ImageOps.equalize,
        'Invert': lambda: ImageOps.invert,
        'Rotate': lambda: rotated(sign * 30 * part, resample),
        'Posterize': lambda: posterized(bits),
        'Solarize': lambda: lambda image: ImageOps.solarize(image, threshold),
        'SolarizeAdd': lambda: solarized_by_adding(int(part * 110)),
        'ShearX': lambda: affine((1, sign * 0.3 * part, 0, 0, 1, 0), resample),
        'ShearY': lambda: affine((1, 0, 0, sign * 0.3 * part, 1, 0), resample),
        'TranslateX': lambda: shifted(sign * 0.45 * part, 0, resample),
        'TranslateY': lambda: shifted(0, sign * 0.45 * part, resample),
    }[name]()


class RandAugment:
    """Apply random operations to images, the same to all of a call.

    Args:
        policy: As timm writes it: ``rand``, then ``-m`` level (10), ``-n`` operations (2),
            ``-mstd`` standard deviation of the level (0), ``-inc1`` all get stronger with it.
        interpolation: Of warps: 'bicubic' or 'bilinear'.

    Raises:
        UserError: The policy is written in another way.
    """

    def __init__(self, policy: str, interpolation: str = 'bicubic'):
        form = re.fullmatch(r'rand(?:-m(\d+))?(?:-n(\d+))?(?:-mstd(\d*\.?\d+))?(-inc1)?', policy)
        if not form:
            raise UserError(f'policy={policy!r}: write rand[-mN][-nN][-mstdX][-inc1]')
        level, count, deviation, increasing = form.groups()
        self.level = float(level or MAX_LEVEL)
        self.count = int(count or 2)
        self.deviation = float(deviation or 0)
        self.increasing = increasing is not None
        self.resample = Image.Resampling[interpolation.upper()]

    def draw(self, random: np.random.Generator) -> list[Operation]:
        """Draw the operations of one image or clip."""
        drawn = []
        for name in random.choice(NAMES, self.count):
            if random.random() < PROBABILITY:
                level = np.clip(random.normal(self.level, self.deviation), 0, MAX_LEVEL)
                sign = random.choice((1, -1))
                drawn.append(operation(name, level, sign, self.increasing, self.resample))
        return drawn

    def __call__(
        self, images: Sequence[np.ndarray], random: np.random.Generator
    ) -> list[np.ndarray]:
        """Return images, ``(H, W, 3)`` uint8 each, with the operations of one draw."""
        operations = self.draw(random)
        found = []
        for image in map(Image.fromarray, images):
            for apply in operations:
                image = apply(image)
            found.append(np.asarray(image))
        return found
