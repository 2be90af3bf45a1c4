"""Every config of image classification against the published recipe."""

import math

import numpy as np
import pytest
import torch
import yaml
from config_helpers import ROOT, SHIPPED, decays, load, on_meta, rates, task_of
from mmengine.registry import init_default_scope

pytest.importorskip('mmpretrain', reason='needs mmpretrain: make install')
pytestmark = pytest.mark.frameworks

NAME = 'uniformer-{}_8xb128-300e_in1k'
PUBLISHED = {
    NAME.format('small'): (1e-3, 0.1, 21_545_256, 82.9),
    NAME.format('small-plus'): (1e-3, 0.1, 24_032_552, 83.4),
    NAME.format('base'): (8e-4, 0.3, 49_776_552, 83.8),
    NAME.format('base-ls'): (8e-4, 0.3, 49_796_520, 83.9),
}
"""Rate, drop path, parameters and top-1."""
TOY = 'uniformer-nano_toy-64x64'


def test_each_config_has_its_row():
    rows = yaml.safe_load((ROOT / 'cls' / 'metafile.yml').read_text())['Models']
    found = {row['Name']: row['Results'][0]['Metrics'] for row in rows if 'Results' in row}
    assert found == {name: {'Top 1 Accuracy': row[3]} for name, row in PUBLISHED.items()}
    assert {row['Name'] for row in rows} - set(found) == {TOY}
    assert {*PUBLISHED, TOY} == {name for name in SHIPPED if task_of(name) == 'cls'}


@pytest.mark.parametrize('name', PUBLISHED)
def test_network(name):
    _, drop_path, params, _ = PUBLISHED[name]
    assert load(name).model.backbone.drop_path_rate == drop_path
    assert sum(p.numel() for p in on_meta(name).parameters()) == params


@pytest.mark.parametrize('name', PUBLISHED)
def test_warm_up_runs_inside_the_cosine(name):
    rate = PUBLISHED[name][0]
    cosine = [1e-5 + (rate - 1e-5) * (1 + math.cos(math.pi * t / 300)) / 2 for t in range(300)]
    warm = [1e-6 + (rate - 1e-6) * t / 5 for t in range(5)]
    np.testing.assert_allclose(rates(load(name), 1, 300), warm + cosine[5:], rtol=1e-3)


@pytest.mark.parametrize('name', PUBLISHED)
def test_flat_parameters_have_no_decay(name):
    shapes = {key: p.ndim for key, p in on_meta(name).named_parameters()}
    assert decays(name) == {key: 0.05 if ndim > 1 else 0 for key, ndim in shapes.items()}


def test_a_step_mixes_the_batch_with_its_reverse():
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    config = load(NAME.format('small'), 'model.backbone.arch=nano', 'model.head.in_channels=128')
    init_default_scope('mmpretrain')
    model = MODELS.build(config.model).train()
    samples = [DataSample().set_gt_label(label) for label in (1, 2)]
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8) + shade for shade in (0, 200)]
    data = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=True)
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    torch.testing.assert_close(scores[0, 1:3], scores[1, 1:3].flip(0))
    assert model(**data, mode='loss')['loss'].item() > 1
