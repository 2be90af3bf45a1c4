"""AutoAugment's table v0 and timm's augmentation of images in mmpretrain."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from mmuniformer.datasets.auto_augment import V0, AutoAugment, policy_augment
from mmuniformer.datasets.rand_augment import NAMES, RandAugment, Warp, operation
from mmuniformer.errors import UserError


def test_table_has_pairs_of_known_operations():
    assert len(V0) == 25
    entries = [entry for pair in V0 for entry in pair]
    assert len(entries) == 50
    assert {name for name, _, _ in entries} < set(NAMES)
    # Sums that a wrong digit would change.
    assert sum(probability for _, probability, _ in entries) == pytest.approx(29.8)
    assert sum(level for _, _, level in entries) == 240
    assert {name: sum(name == entry[0] for entry in entries) for name in ('Equalize', 'Color')} == {
        'Equalize': 12, 'Color': 9,
    }  # fmt: skip


def test_draws_pairs_by_their_probabilities():
    random = np.random.default_rng(0)
    counts = [len(AutoAugment().draw(random)) for _ in range(3000)]
    assert set(counts) == {0, 1, 2}
    assert np.mean(counts) == pytest.approx(29.8 / 25, abs=0.04)


def test_levels_are_those_of_the_first_search():
    augment = AutoAugment(fill=(1, 2, 3))
    found = augment.operation('TranslateY', 9, np.random.default_rng(0))
    assert isinstance(found, Warp)
    assert abs(found.matrix(100, 200)[5]) == pytest.approx(0.45 * 0.9 * 200)
    assert found.fill == (1, 2, 3)
    assert not augment.increasing  # Posterize keeps 0 bits at level 2, Color adds nothing at 5


def test_policies_by_name():
    assert isinstance(policy_augment('v0'), AutoAugment)
    assert isinstance(policy_augment('rand-m9-mstd0.5-inc1'), RandAugment)
    with pytest.raises(UserError, match="policy='v1'"):
        policy_augment('v1')


def test_random_interpolation_takes_both():
    augment, random = AutoAugment('random'), np.random.default_rng(0)
    assert {augment.operation('Rotate', 5, random).resample for _ in range(40)} == {2, 3}


def test_images_are_augmented_in_rgb_and_filled_with_the_mean(monkeypatch):
    pytest.importorskip('mmcv', reason='needs mmcv: make install')
    transform = TRANSFORMS.build(dict(type='mmuniformer.TimmAugment', policy='v0'))
    shift = operation('TranslateX', 10, 1, False, 0, transform.augment.fill)
    color = operation('Color', 0, 1, False, 0)
    monkeypatch.setattr(transform.augment, 'draw', lambda random: [shift, color])
    image = np.zeros((4, 20, 3), np.uint8)
    image[..., 0] = 200  # blue
    found = transform({'img': image, 'gt_label': 1})
    assert found['gt_label'] == 1
    # Blue counts 0.114 in gray, of which Color at level 0 leaves 0.9.
    gray = round(200 * 0.114)
    assert found['img'][0, 0].tolist() == pytest.approx(
        [gray * 0.9 + 20, gray * 0.9, gray * 0.9], abs=1
    )
    # Gray of red 124, green 116, blue 104.
    assert found['img'][0, -1].tolist() == pytest.approx([116, 117, 118], abs=1)
