"""Segmentation configs: heads, layouts, own data by options, sizes of images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from config_helpers import FPN, OWN_SIZE, UPERNET, load, on_meta, own_data_options, write_own_data
from torch import nn

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.models import build_model

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmseg')

FPN_SMALL, UPERNET_SMALL = FPN.format('small-global'), UPERNET.format('small-global')
LAYOUTS = {'global': ('global', None), 'w32': ('window', 32), 'h32': ('hybrid', 32)}


def test_heads():
    fpn, upernet = on_meta(FPN_SMALL), on_meta(UPERNET_SMALL)
    assert not fpn.with_auxiliary_head
    auxiliary = upernet.auxiliary_head
    assert (auxiliary.in_index, auxiliary.loss_decode.loss_weight) == (2, 0.4)
    for head in (fpn.decode_head, upernet.decode_head, auxiliary):
        assert head.conv_seg.out_channels == 150
        assert any(isinstance(module, nn.SyncBatchNorm) for module in head.modules())


@pytest.mark.parametrize('layout', LAYOUTS)
def test_test_layout_is_one_option_on_the_same_weights(layout):
    """As "Layouts" in docs/segmentation.md has it."""
    kind, window = LAYOUTS[layout]
    options = ['model.backbone.arch=nano', 'model.neck.in_channels=[16,32,64,128]']
    chosen = [f'model.backbone.stage3_attn={kind}']
    chosen += [f'model.backbone.window_size={window}'] * bool(window)
    trained = build_model(load(FPN_SMALL, *options))
    tested = build_model(load(FPN_SMALL, *options, *chosen))
    assert tested.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, 96, 640, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = trained(image)
        trained.backbone.set_stage3_attn(kind, window)
        assert torch.equal(trained(image), tested(image))
        assert torch.equal(before, tested(image)) == (layout == 'global')


@pytest.fixture
def own_data(tmp_path):
    return write_own_data(tmp_path)


def dataset(config, split):
    from mmseg.registry import DATASETS

    with scope_of(config):
        return DATASETS.build(config[f'{split}_dataloader'].dataset)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_own_label_maps_by_options_alone(own_data, split):
    config = load(UPERNET_SMALL, *own_data_options(own_data))
    data = dataset(config, split)
    assert len(data) == 3
    assert data.metainfo['classes'] == ('road', 'sky', 'tree')
    assert data.metainfo['palette'] == [[128, 64, 128], [70, 130, 180], [107, 142, 35]]
    sample = data[0]
    labels = sample['data_samples'].gt_sem_seg.data
    if split == 'train':
        assert labels.shape[-2:] == sample['inputs'].shape[-2:]
        assert max(sample['inputs'].shape) <= 512
    else:
        assert sample['inputs'].shape == (3, 512, 640)
        assert labels.shape == (1, *OWN_SIZE)
        assert torch.unique(labels).tolist() == [0, 1, 2, 255]
    assert build_model(config, device='meta').decode_head.conv_seg.out_channels == 3


def test_class_names_may_come_from_a_file(own_data):
    names = own_data / 'classes.txt'
    names.write_text('wet road\nsky\ntree\n')
    option = f'test_dataloader.dataset.metainfo.classes={names}'
    config = load(UPERNET_SMALL, *own_data_options(own_data), option)
    assert list(dataset(config, 'test').metainfo['classes']) == ['wet road', 'sky', 'tree']


@pytest.mark.parametrize(('name', 'side'), [(FPN_SMALL, 640), (UPERNET_SMALL, 621)])
def test_semantic_fpn_sees_multiples_of_32(own_data, name, side):
    cv2.imwrite(str(own_data / 'val' / 'images' / '0.png'), np.zeros((80, 97, 3), np.uint8))
    cv2.imwrite(str(own_data / 'val/masks/0_label.png'), np.zeros((80, 97), np.uint8))
    config = load(name, *own_data_options(own_data, auxiliary=name == UPERNET_SMALL))
    sample = dataset(config, 'test')[0]
    assert sample['inputs'].shape == (3, 512, side)
    assert sample['data_samples'].gt_sem_seg.shape == (80, 97)
    # Six scales and flip, as published.
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    heights = [image.shape[1] for image in dataset(config, 'test')[0]['inputs']]
    assert heights == [height for height in (256, 384, 512, 640, 768, 896) for _ in range(2)]
