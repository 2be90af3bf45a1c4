"""Pose configs: FLOPs, gradients, input sizes, own people and boxes by options, low precision."""

from __future__ import annotations

import json
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
from config_helpers import LOADERS, load, on_meta
from mmengine.dataset import pseudo_collate
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.compat import TORCH_HAS_ALLOW_LIST
from mmuniformer.engine.checkpoint import checked_state_dict

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmpose')

SMALL = 'td-hm_uniformer-small_8xb128-210e_coco-256x192'
TOY = 'td-hm_uniformer-nano_toy-128x96'
# Width, height, sigma; billions of multiply-adds of one crop without the flip test, counted to one
# digit more than published.
SIZES = {
    SMALL: (192, 256, 2, 4.67),
    'td-hm_uniformer-small_8xb128-210e_coco-384x288': (288, 384, 3, 11.07),
    'td-hm_uniformer-small_8xb64-210e_coco-448x320': (320, 448, 3, 14.73),
    'td-hm_uniformer-base_8xb128-210e_coco-256x192': (192, 256, 2, 9.19),
    'td-hm_uniformer-base_8xb32-210e_coco-384x288': (288, 384, 3, 22.05),
    'td-hm_uniformer-base_8xb32-210e_coco-448x320': (320, 448, 3, 29.54),
}


@pytest.mark.parametrize('name', SIZES)
def test_flops_as_published(name):
    model = on_meta(name).eval()
    width, height, _, flops = SIZES[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(model.backbone(torch.empty(1, 3, height, width, device='meta')))
    assert counter.get_total_flops() / 2e9 == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize('name', [SMALL, TOY])
def test_every_parameter_gets_a_gradient(name):
    model = build_model(load(name)).train()
    model.head(model.backbone(torch.rand(2, 3, 64, 64))).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_layer_wise_decay_by_options():
    from mmengine.optim import build_optim_wrapper

    config = load(
        SMALL,
        'optim_wrapper.type=OptimWrapper',
        'optim_wrapper.constructor=mmuniformer.LayerDecayOptimWrapperConstructor',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=0.75',
    )
    model = on_meta(SMALL)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {
        names[parameter]: group['lr']
        for group in build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
        for parameter in group['params']
    }
    assert set(rates) == set(names.values())
    assert rates['head.final_layer.weight'] == rates['backbone.norm4.weight'] == 2e-3
    assert rates['backbone.blocks4.2.attn.qkv.weight'] == pytest.approx(2e-3 * 0.75)
    assert rates['backbone.patch_embed1.proj.weight'] == pytest.approx(2e-3 * 0.75**19)


# --- data ---------------------------------------------------------------------------------------


def dataset(config, split):
    from mmpose.registry import DATASETS

    with scope_of(config):
        return DATASETS.build(config[f'{split}_dataloader'].dataset)


def fields(data, key):
    """A field of every person that a dataset found."""
    return [data.get_data_info(index)[key] for index in range(len(data))]


def data_options(root, boxes=None):
    """The options of "Your own data" in configs/pose/README.md."""
    return [
        *(f'{loader}.data_root={root}/' for loader in LOADERS),
        *(f'{loader}.data_prefix.img=' for loader in LOADERS),
        *(f'{loader}.ann_file=own.json' for loader in LOADERS),
        *(f'{loader}.bbox_file={boxes}' for loader in LOADERS[1:]),
        *(f'{split}_evaluator.ann_file={root}/own.json' for split in ('val', 'test')),
    ]


@pytest.fixture
def own_data(tmp_path):
    """Two images of 64 x 48 with the given people; returns the folder."""
    noise = np.random.default_rng(0)
    images = []
    for number in (1, 2):
        image = noise.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
        images.append({'id': number, 'file_name': f'{number}.png', 'width': 64, 'height': 48})

    def write(people):
        entries = [
            {'id': number, 'image_id': 1 + number % 2, 'category_id': 1, 'iscrowd': 0, **person}
            for number, person in enumerate(people, 1)
        ]
        categories = [{'id': 1, 'name': 'person'}]
        content = {'images': images, 'annotations': entries, 'categories': categories}
        (tmp_path / 'own.json').write_text(json.dumps(content))
        return tmp_path

    return write


def person(box=(8, 8, 24, 32), points=17, visibility=2):
    """A person whose first keypoints are annotated, on the diagonal of the box."""
    left, top, width, height = box
    keypoints = []
    for index in range(17):
        place = [left + width * index / 17, top + height * index / 17, visibility]
        keypoints += place if index < points else [0, 0, 0]
    return {
        'bbox': list(box),
        'area': max(width, 0) * max(height, 0),
        'num_keypoints': points,
        'keypoints': keypoints,
    }


@pytest.mark.parametrize('name', SIZES)
def test_pipelines_give_crops_and_heatmaps_of_the_recipe(name, own_data):
    width, height, sigma, _ = SIZES[name]
    config = load(name, *data_options(own_data([person()])))
    for split in ('val', 'test'):
        assert dataset(config, split)[0]['inputs'].shape == (3, height, width)
    item = dataset(config, 'train')[0]
    assert item['inputs'].shape == (3, height, width)
    heatmaps = item['data_samples'].gt_fields.heatmaps
    assert heatmaps.shape == (17, height // 4, width // 4)
    assert heatmaps.isfinite().all()
    # A point in the middle of the crop: a Gaussian of the recipe's width, decoded to itself.
    middle = np.array([[[width / 2, height / 2]] * 17], np.float32)
    with scope_of(config):
        codec = build_model(config, device='meta').head.decoder
    encoded = codec.encode(middle, np.ones((1, 17), np.float32))['heatmaps']
    row = encoded[0][height // 8]
    assert row[width // 8 + 1] / row[width // 8] == pytest.approx(np.exp(-1 / (2 * sigma**2)))
    np.testing.assert_allclose(codec.decode(encoded)[0][0], middle[0], atol=1)


def test_detected_boxes_by_default_and_annotated_ones_by_one_option(own_data):
    root = own_data([person(), person()])
    detections = root / 'boxes.json'
    boxes = [
        {'image_id': 1, 'category_id': 1, 'bbox': [4, 4, 30, 40], 'score': 0.5},
        {'image_id': 1, 'category_id': 1, 'bbox': [8, 8, 24, 32], 'score': 0.75},
        {'image_id': 2, 'category_id': 3, 'bbox': [8, 8, 24, 32], 'score': 1.0},
    ]
    detections.write_text(json.dumps(boxes))
    published = 'data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json'
    for split in ('val', 'test'):
        assert load(SMALL)[f'{split}_dataloader'].dataset.bbox_file == published
    config = load(SMALL, *data_options(root, detections))
    assert fields(dataset(config, 'test'), 'bbox_score') == [0.5, 0.75]  # people only
    config = load(SMALL, *data_options(root, detections), f'{LOADERS[2]}.bbox_file=None')
    assert config.val_dataloader.dataset.bbox_file == str(detections)
    assert fields(dataset(config, 'test'), 'id') == [2, 1]


def test_people_without_keypoints_or_without_a_box_are_left_out(own_data):
    nowhere = person()
    del nowhere['bbox']
    root = own_data(
        [
            person(),
            person(points=0),
            person(box=(8, 8, 0, 32)),
            person(box=(8, 8, 24, 0)),
            person(box=(8, 8, -5, 32)),
            person(box=(90, 8, 24, 32)),  # beside the image
            {**person(), 'iscrowd': 1},
            {'bbox': [8, 8, 24, 32], 'area': 768},
            nowhere,
            person(points=1),
            person(visibility=1),  # occluded points are annotated points
        ]
    )
    config = load(SMALL, *data_options(root))
    for split in ('train', 'val', 'test'):
        assert sorted(fields(dataset(config, split), 'id')) == [1, 10, 11]


def test_checkpoints_of_the_older_framework_have_another_name_for_the_head():
    model, other = build_model(load(TOY)), build_model(load(TOY))
    old = {key.replace('head.', 'keypoint_head.', 1) if key.startswith('head.') else key: value
           for key, value in model.state_dict().items()}  # fmt: skip
    checked_state_dict(model, {'state_dict': old}, 'old.pth')
    other.load_state_dict(old)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


# Before 2.6, torch has no float16 on CPUs.
@pytest.mark.parametrize('dtype', [torch.bfloat16] + [torch.float16] * TORCH_HAS_ALLOW_LIST)
def test_loss_in_low_precision_is_close_to_fp32(own_data, dtype):
    # mmpose's accuracy in training goes through NumPy, which has no bfloat16.
    options = [*data_options(own_data([person(), person()])), 'model.train_cfg.compute_acc=False']
    config = load(TOY, *options)
    batch = pseudo_collate(list(dataset(config, 'train')))
    torch.manual_seed(0)
    model = build_model(config).train()
    batch = model.data_preprocessor(batch, training=True)
    losses = {}
    for kind in (torch.float32, dtype):
        with nullcontext() if kind == torch.float32 else torch.autocast('cpu', kind):
            losses[kind] = model.loss(**batch)['loss_kpt']
        losses[kind].backward()
    assert losses[dtype].item() == pytest.approx(losses[torch.float32].item(), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
