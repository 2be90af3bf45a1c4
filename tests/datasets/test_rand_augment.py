"""RandAugment against the ranges that timm documents, and alike on all frames."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mmuniformer.datasets.rand_augment import NAMES, RandAugment, operation
from mmuniformer.errors import UserError

BILINEAR = Image.Resampling.BILINEAR
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def applied(name, level, sign=1, increasing=True):
    return np.asarray(operation(name, level, sign, increasing, BILINEAR)(IMAGE))


def warped(*matrix):
    gray = (128, 128, 128)
    return IMAGE.transform(IMAGE.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=gray)


def solarized_add(amount):
    values = np.asarray(IMAGE).astype(int)
    return np.where(values < 128, np.minimum(values + amount, 255), values).astype(np.uint8)


@pytest.mark.parametrize(
    ('name', 'level', 'sign', 'increasing', 'expected'),
    [
        ('AutoContrast', 7, 1, True, lambda: ImageOps.autocontrast(IMAGE)),
        ('Equalize', 7, 1, True, lambda: ImageOps.equalize(IMAGE)),
        ('Invert', 7, 1, True, lambda: ImageOps.invert(IMAGE)),
        ('Rotate', 5, -1, True, lambda: IMAGE.rotate(-15, BILINEAR, fillcolor=(128,) * 3)),
        ('Posterize', 7, 1, True, lambda: ImageOps.posterize(IMAGE, 2)),
        ('Posterize', 7, 1, False, lambda: ImageOps.posterize(IMAGE, 2)),
        ('Posterize', 5.1, 1, False, lambda: ImageOps.posterize(IMAGE, 2)),
        ('Posterize', 2.6, 1, True, lambda: ImageOps.posterize(IMAGE, 3)),
        ('Posterize', 10, 1, True, lambda: np.zeros_like(IMAGE)),
        ('Posterize', 2, 1, False, lambda: np.zeros_like(IMAGE)),
        ('Solarize', 5, 1, True, lambda: ImageOps.solarize(IMAGE, 128)),
        ('Solarize', 7, 1, True, lambda: ImageOps.solarize(IMAGE, 256 - 179)),
        ('Solarize', 7, 1, False, lambda: ImageOps.solarize(IMAGE, 179)),
        ('SolarizeAdd', 7, 1, True, lambda: solarized_add(77)),
        ('Color', 7, -1, True, lambda: ImageEnhance.Color(IMAGE).enhance(1 - 0.63)),
        ('Contrast', 5, 1, True, lambda: ImageEnhance.Contrast(IMAGE).enhance(1.45)),
        ('Brightness', 5, 1, False, lambda: ImageEnhance.Brightness(IMAGE).enhance(1.0)),
        ('Sharpness', 10, 1, False, lambda: ImageEnhance.Sharpness(IMAGE).enhance(1.9)),
        ('ShearX', 10, 1, True, lambda: warped(1, 0.3, 0, 0, 1, 0)),
        ('ShearY', 10, -1, True, lambda: warped(1, 0, 0, -0.3, 1, 0)),
        ('TranslateX', 10, 1, True, lambda: warped(1, 0, 0.45 * 30, 0, 1, 0)),
        ('TranslateY', 10, -1, True, lambda: warped(1, 0, 0, 0, 1, -0.45 * 20)),
    ],
)
def test_operation_is_timms(name, level, sign, increasing, expected):
    np.testing.assert_array_equal(applied(name, level, sign, increasing), np.asarray(expected()))


@pytest.mark.parametrize(
    ('policy', 'settings'),
    [
        ('rand-m7-n4-mstd0.5-inc1', (7, 4, 0.5, True)),
        ('rand-m5-n2-mstd0.25', (5, 2, 0.25, False)),
        ('rand', (10, 2, 0, False)),
    ],
)
def test_policies_of_the_recipes(policy, settings):
    made = RandAugment(policy)
    assert (made.level, made.count, made.deviation, made.increasing) == settings
    assert made.resamples == [Image.Resampling.BICUBIC]


def test_draws_every_operation_half_of_the_time():
    random = np.random.default_rng(0)
    counts = [len(RandAugment('rand-n4').draw(random)) for _ in range(500)]
    assert np.mean(counts) == pytest.approx(2, abs=0.15)
    assert len(NAMES) == 15


def test_all_frames_get_the_same():
    frame, random = np.asarray(IMAGE), np.random.default_rng(1)
    changed = 0
    for _ in range(20):
        first, second = RandAugment('rand-m7-n4-mstd0.5-inc1')([frame, frame.copy()], random)
        np.testing.assert_array_equal(first, second)
        changed += (first != frame).any()
    assert changed > 10


def test_refuses_other_policies():
    with pytest.raises(UserError, match=r'rand-m7-x3.*write rand'):
        RandAugment('rand-m7-x3')


@pytest.mark.parametrize('level', [0, 2, 5, 10])
@pytest.mark.parametrize('increasing', [True, False])
@pytest.mark.parametrize('name', NAMES)
def test_every_level_is_possible(name, increasing, level):
    assert applied(name, level, -1, increasing).shape == (20, 30, 3)
