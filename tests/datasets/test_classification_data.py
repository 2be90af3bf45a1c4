"""Label maps and frame numbers agree with those that the released networks were trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmuniformer.datasets.frames import (
    dense_clip,
    dense_start,
    random_dense_start,
    random_segment_clip,
    segment_clip,
)
from mmuniformer.datasets.token_labels import bin_weights, token_label_target

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'classification.json').read_text())


def row_id(row):
    return '-'.join(str(value) for value in row.values() if not isinstance(value, list))


@pytest.mark.parametrize('row', GOLDEN['frames'], ids=row_id)
def test_frames_agree_with_released_sampling(row):
    length, frames, clip, clips = (row[key] for key in ('length', 'frames', 'clip', 'clips'))
    if row['kind'] == 'segments':
        found = segment_clip(length, frames, clip, clips)
    else:
        start = dense_start(length, frames, row['stride'], clip, clips)
        found = dense_clip(length, frames, row['stride'], start)
    assert found.tolist() == row['index']


def test_random_clips_stay_inside_and_reach_both_ends():
    random = np.random.default_rng(0)
    starts = [random_dense_start(100, 8, 4, random) for _ in range(500)]
    assert 0 <= min(starts) < 2
    assert 66 < max(starts) <= 68
    clips = np.stack([random_segment_clip(41, 4, random) for _ in range(500)])
    assert clips.min(0).tolist() == [0, 10, 20, 30]
    assert clips.max(0).tolist() == [10, 20, 30, 40]
    assert random_dense_start(10, 8, 4, random) == 0


def formula_map(random, grid):
    logits = random.uniform(-2, 12, (5, grid, grid)).astype(np.float16)
    order = random.uniform(0, 1, (grid, grid, 1000)).argsort(-1)
    label_map = np.stack([logits, np.moveaxis(order[..., :5], -1, 0).astype(np.float16)])
    crop = (*random.uniform(0, 0.5, 2), *random.uniform(0.2, 0.5, 2))
    return torch.tensor(label_map), crop, random.randint(1000)


def test_token_label_targets_agree_with_released_ones():
    case = GOLDEN['token_label_targets']
    random = np.random.RandomState(case['seed'])
    rows = []
    for given, label in zip(case['crop_top_left_height_width'], case['ground_truth'], strict=True):
        label_map, crop, drawn = formula_map(random, case['grid'])
        assert (drawn, crop) == (label, pytest.approx(given, rel=1e-6))
        rows.append(token_label_target(label, label_map, crop, case['label_size']))
    targets = torch.stack(rows)
    (expected,) = case['outputs']
    assert list(targets.shape) == expected['shape']
    got = targets.flatten()[expected['index']]
    assert got.tolist() == pytest.approx(expected['value'], rel=1e-4, abs=1e-8)
    sums = targets.sum(1)
    torch.testing.assert_close(sums[:, 0], torch.ones(3))
    torch.testing.assert_close(sums[:, 1:], torch.full((3, 50), 1.0001), rtol=0, atol=1e-4)


def test_bins_of_a_whole_map_share_its_cells_evenly():
    weights = bin_weights(-0.5, 8.0, 4, 8)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert weights[1].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    # Points between cells are interpolated, and those outside of the map by more than one are zero.
    assert bin_weights(0.25, 1.0, 1, 4)[0].tolist() == [0.25, 0.75, 0, 0]
    assert bin_weights(-4.0, 2.0, 1, 4).sum() == 0
