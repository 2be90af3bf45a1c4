"""Bad and unusual data in training: what the frameworks read, and what stops a run by name."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import RUNNERS
from PIL import Image

from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.errors import CheckpointError, UserError

CONFIGS = {
    'det': ('mask-rcnn_uniformer-nano_fpn_toy', 'mmdet'),
    'seg': ('upernet_uniformer-nano_toy-128x128', 'mmseg'),
    'pose': ('td-hm_uniformer-nano_toy-128x96', 'mmpose'),
}
ANNOTATIONS = {'det': 'instances_{}2017.json', 'pose': 'person_keypoints_{}2017.json'}
SPLITS = ('train', 'val', 'test')
pytestmark = pytest.mark.integration
each_task = pytest.mark.parametrize('task', CONFIGS)


@pytest.fixture
def data(toy_root, tmp_path):
    """A copy of the toy data that may be damaged."""
    shutil.copytree(toy_root, tmp_path / 'toy')
    return tmp_path / 'toy'


@pytest.fixture
def run(data, tmp_path):
    """Train, or test, a toy config on the copy; one step."""

    def work(task, step='train', **options):
        config, framework = CONFIGS[task]
        pytest.importorskip(framework)
        root = data / ('ade' if task == 'seg' else 'coco')
        changes = {f'{split}_dataloader.dataset.data_root': f'{root}/' for split in SPLITS}
        changes |= {f'{split}_dataloader.batch_size': 2 for split in SPLITS}
        if task != 'seg':
            file = str(root / 'annotations' / ANNOTATIONS[task].format('val'))
            changes |= {f'{split}_evaluator.ann_file': file for split in SPLITS[1:]}
        length = {'train_cfg.max_iters': 1} if task == 'seg' else {'train_cfg.max_epochs': 1}
        cfg = load_config(config, {**changes, **length, 'log_level': 'ERROR', **options})
        cfg.work_dir = cfg.experiment_name = cfg.visualizer.name = str(tmp_path / 'work')
        return getattr(RUNNERS.build(cfg), step)()

    return work


def rewrite(path, change):
    """Change every annotation of a COCO file."""
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        annotation |= change
    path.write_text(json.dumps(content))


# --- images that training reads -----------------------------------------------------------------

COLORS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
EIGHT_BITS = {
    'gray': (COLORS[..., 0], COLORS[..., :1].repeat(3, -1)),
    'alpha': (np.dstack([COLORS, np.zeros((6, 8), np.uint8)]), COLORS),
    '16-bit': (COLORS.astype(np.uint16) << 8 | 0x7F, COLORS),
    'gray 16-bit': (COLORS[..., 0].astype(np.uint16) << 8, COLORS[..., :1].repeat(3, -1)),
}


def first_step(task):
    """The step of a training pipeline that loads an image."""
    from mmengine.registry import TRANSFORMS

    config, framework = CONFIGS[task]
    pytest.importorskip(framework)
    cfg = load_config(config)
    with scope_of(cfg):
        return TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[0])


@each_task
@pytest.mark.parametrize('kind', EIGHT_BITS)
def test_training_reads_eight_bits_of_three_colors(task, kind, tmp_path):
    stored, expected = EIGHT_BITS[kind]
    cv2.imwrite(str(tmp_path / 'a.png'), stored)
    found = first_step(task)({'img_path': str(tmp_path / 'a.png')})['img']
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@each_task
def test_training_reads_photos_as_people_see_them(task, tmp_path):
    photo = Image.fromarray(np.repeat(np.uint8([[0, 250]]), 16, 0).repeat(20, 1))
    photo.getexif()[0x0112] = 6  # to be turned by a quarter, clockwise
    photo.save(tmp_path / 'a.jpg', exif=photo.getexif())
    found = first_step(task)({'img_path': str(tmp_path / 'a.jpg')})['img']
    assert found.shape == (40, 16, 3)
    assert found[:16].max() < 50
    assert found[-16:].min() > 200


@each_task
def test_later_image_that_cannot_be_decoded_is_named(task, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(AssertionError, match=f'{tmp_path}/a.jpg'):
        first_step(task)({'img_path': str(tmp_path / 'a.jpg')})


# --- data that stop a run -----------------------------------------------------------------------


@each_task
def test_missing_data_are_named_with_the_option(task, run, tmp_path):
    nowhere = {'train_dataloader.dataset.data_root': f'{tmp_path}/nowhere/'}
    with pytest.raises(UserError, match=r'nowhere/.*data_root'):
        run(task, **nowhere)


@each_task
@pytest.mark.parametrize('kind', ['no image', 'truncated'])
def test_image_that_cannot_be_decoded_is_named(task, kind, run, data):
    folder = data / ('ade/images/training' if task == 'seg' else 'coco/train2017')
    image = sorted(folder.iterdir())[0]
    image.write_bytes(image.read_bytes()[:900] if kind == 'truncated' else b'no image')
    with pytest.raises(UserError, match=rf'{image}.* cannot be (decoded|read)'):
        run(task)


@pytest.mark.parametrize('task', ANNOTATIONS)
def test_empty_annotation_file_is_named(task, run, data):
    file = data / 'coco' / 'annotations' / ANNOTATIONS[task].format('val')
    file.write_text('')
    with pytest.raises(UserError, match=rf'{file} cannot be read as JSON'):
        run(task)


BAD_SCORES = {
    'an object': ({}, 'has no list of image objects'),
    'a list': ([], 'has no list of image objects'),
    'no id': (
        {'images': [{}], 'categories': [{'id': 1, 'name': 'x'}]},
        'image number 0: id is missing',
    ),
}


@pytest.mark.parametrize('task', ANNOTATIONS)
@pytest.mark.parametrize('kind', BAD_SCORES)
def test_file_to_score_by_is_named_before_the_first_step(task, kind, run, tmp_path):
    content, message = BAD_SCORES[kind]
    (tmp_path / 'scores.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf'{tmp_path}/scores.json(:)? {message}'):
        run(task, **{'val_evaluator.ann_file': str(tmp_path / 'scores.json')})
    assert not list(tmp_path.glob('work/*.pth'))


def test_zero_area_boxes_are_left_out_and_nothing_else(run, data):
    from mmdet.registry import DATASETS

    file = data / 'coco' / 'annotations' / 'instances_train2017.json'
    content = json.loads(file.read_text())
    first, *others = [a for a in content['annotations'] if a['image_id'] == 1]
    first['bbox'][2] = 0
    file.write_text(json.dumps(content))
    cfg = load_config(CONFIGS['det'][0])
    cfg.train_dataloader.dataset.data_root = f'{data}/coco/'
    with scope_of(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    infos = map(dataset.get_data_info, range(len(dataset)))
    (info,) = [info for info in infos if info['img_id'] == 1]
    assert len(info['instances']) == len(others) > 0
    rewrite(file, {'area': 0})
    with pytest.raises(UserError, match='has nothing to learn'):
        run('det')


def test_people_without_a_visible_keypoint_stop_a_run(run, data):
    file = data / 'coco' / 'annotations' / 'person_keypoints_train2017.json'
    rewrite(file, {'keypoints': [0] * 51, 'num_keypoints': 0})
    with pytest.raises(UserError, match=rf'{file} has no person to crop'):
        run('pose')


# --- classes ------------------------------------------------------------------------------------

OTHER_CLASSES = {
    'det': ('model.roi_head.bbox_head.num_classes', r'num_classes.*\(5\).*classes.* 3\)'),
    'seg': ('model.decode_head.num_classes', 'names 4 classes .* heads have 5'),
    'pose': ('model.head.out_channels', '17 keypoints.*out_channels has to be 17; it is 5'),
}


@each_task
def test_heads_of_another_size_than_the_data_stop_a_run(task, run):
    option, message = OTHER_CLASSES[task]
    with pytest.raises((UserError, AssertionError), match=message):
        run(task, **{option: 5})


CHECKPOINT = {
    'det': (('roi_head.bbox_head', 'roi_head.mask_head'), 'num_classes', '5 classes .* 3 in'),
    'seg': (('decode_head', 'auxiliary_head'), 'num_classes', '5 classes .* 4 in'),
    'pose': (('head',), 'out_channels', '5 keypoints .* 17 in'),
}


@each_task
def test_checkpoint_of_other_classes_is_refused_in_testing_only(task, run, tmp_path):
    heads, key, message = CHECKPOINT[task]
    other = load_config(CONFIGS[task][0], {f'model.{head}.{key}': 5 for head in heads})
    weights = tmp_path / 'five.pth'
    torch.save({'state_dict': build_model(other).state_dict()}, weights)
    with pytest.raises(CheckpointError, match=f'five.pth(?s:.*){message}'):
        run(task, 'test', load_from=str(weights))
    # Training takes the rest and trains these layers anew.
    run(task, load_from=str(weights))
