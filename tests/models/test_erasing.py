"""Random erasing of normalized images, by timm's boxes and noise."""

import numpy as np
import pytest
import torch

from mmuniformer.models import BatchErasing, BatchMix
from mmuniformer.models.erasing import erase, random_box


def test_boxes_have_timms_areas_and_lie_inside():
    np.random.seed(0)
    boxes = [random_box(50, 80) for _ in range(500)]
    shares = [box.area / 4000 for box in boxes]
    assert 0.015 < min(shares) < 0.03
    assert 0.3 < max(shares) < 0.34
    aspects = [(box.bottom - box.top) / (box.right - box.left) for box in boxes]
    assert 0.25 < min(aspects) < 0.4
    assert 2 < max(aspects) < 3.7
    assert all(0 <= box.top < box.bottom <= 50 and 0 <= box.left < box.right <= 80 for box in boxes)
    assert min(box.top for box in boxes) == min(box.left for box in boxes) == 0
    assert max(box.bottom for box in boxes) == 50
    assert max(box.right for box in boxes) == 80


def test_noise_is_normal_and_not_cut_off():
    np.random.seed(0)
    torch.manual_seed(0)
    images = torch.full((400, 3, 32, 32), 9.0)
    erased = erase(images.clone(), 0.25)
    changed = erased != images
    lost = changed.flatten(1).any(1)
    assert lost.float().mean().item() == pytest.approx(0.25, abs=0.05)
    noise = erased[changed]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert noise.max() > 3.5  # white is 2.2 to 2.6
    # All channels lose the same box, each its own noise.
    first = changed[lost][0]
    assert (first[0] == first[1]).all()
    assert first[0].any(0).sum() * first[0].any(1).sum() == first[0].sum()


def test_frames_of_a_clip_lose_one_box():
    np.random.seed(1)
    changed = erase(torch.full((1, 3, 4, 32, 32), 9.0), 1.0)[0] != 9
    assert (changed == changed[0, 0]).all()


def test_augmentations_of_batches_erase():
    images, scores = torch.full((64, 3, 16, 16), 9.0), torch.eye(64)
    np.random.seed(2)
    found, targets = BatchErasing(0.25)(images.clone(), scores)
    assert targets is scores
    assert 0 < (found != 9).flatten(1).any(1).sum() < 40
    mixed, _ = BatchMix(64, erase_prob=0.5)(images.clone(), scores)
    assert (mixed != 9).any()
    unmixed, _ = BatchMix(64)(images.clone(), scores)
    assert torch.allclose(unmixed, images)
