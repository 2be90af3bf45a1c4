"""Mixup and CutMix with the batch in reverse order, as the authors' code writes them."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.nn import functional

from mmuniformer.errors import UserError
from mmuniformer.models import BatchMix

CLASSES = 5


def batch(count=4):
    inputs = torch.arange(count * 3 * 2 * 8 * 8, dtype=torch.float64).reshape(count, 3, 2, 8, 8)
    return inputs, functional.one_hot(torch.arange(count) % CLASSES, CLASSES).double()


def released(inputs, scores, mixup=0.8, cutmix=1.0, switch=0.5):
    """The arithmetic and the order of draws of the authors' ``MixUp``."""
    use_cutmix = np.random.rand() < switch
    share = np.random.beta(*([cutmix] * 2 if use_cutmix else [mixup] * 2))
    if use_cutmix:
        height, width = inputs.shape[-2:]
        cut_h, cut_w = (int(side * np.sqrt(1 - share)) for side in (height, width))
        y, x = np.random.randint(height), np.random.randint(width)
        top, bottom = np.clip((y - cut_h // 2, y + cut_h // 2), 0, height)
        left, right = np.clip((x - cut_w // 2, x + cut_w // 2), 0, width)
        inputs = inputs.clone()
        inputs[..., top:bottom, left:right] = inputs.flip(0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        inputs = inputs * share + inputs.flip(0) * (1 - share)
    return inputs, scores * share + scores.flip(0) * (1 - share)


@pytest.mark.parametrize('seed', range(12))
def test_mixes_as_released(seed):
    inputs, scores = batch()
    np.random.seed(seed)
    expected = released(inputs, scores)
    np.random.seed(seed)
    found = BatchMix(CLASSES)(inputs.clone(), scores)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_either_kind_by_its_probability():
    inputs, scores = batch()
    only = {kind: BatchMix(CLASSES, switch_prob=prob) for kind, prob in (('mix', 0), ('cut', 1))}
    mixed, cut = (only[kind].mix(inputs, scores)[0] for kind in ('mix', 'cut'))
    values = torch.cat([inputs, inputs.flip(0)])
    assert (cut.unsqueeze(1) == values.unsqueeze(0)).any(1).all()
    assert not (mixed.unsqueeze(1) == values.unsqueeze(0)).any(1).all()


def test_data_samples_get_the_scores_of_the_mixture():
    inputs, scores = batch()
    samples = [BaseDataElement(gt_label=torch.tensor([i])) for i in range(4)]
    mix = BatchMix(CLASSES, switch_prob=0.0)
    np.random.seed(3)
    found, labeled = mix(inputs, samples)
    np.random.seed(3)
    expected, rows = mix(inputs, scores)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.stack([sample.gt_label for sample in labeled]), rows)


def test_refuses_a_single_sample_and_labels_beyond_the_classes():
    inputs, scores = batch(1)
    with pytest.raises(UserError, match=r'need two samples.*batch_size'):
        BatchMix(CLASSES)(inputs, scores)
    samples = [BaseDataElement(gt_label=torch.tensor([i])) for i in (0, 7)]
    with pytest.raises(UserError, match='the label 7, and num_classes is 5'):
        BatchMix(CLASSES)(batch(2)[0], samples)
