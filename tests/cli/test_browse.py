"""Pictures of augmented data: the labels that are drawn lie where the pipeline put them."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.structures import InstanceData, PixelData

from mmuniformer.apis.config import load_config
from mmuniformer.cli.browse import Sample, command, draw_sample, draw_samples, load_samples
from mmuniformer.errors import UserError

pytestmark = pytest.mark.frameworks

CONFIGS = {
    'det': ('mask-rcnn_uniformer-nano_fpn_toy', 'mmdet', 'coco'),
    'seg': ('upernet_uniformer-nano_toy-128x128', 'mmseg', 'ade'),
    'pose': ('td-hm_uniformer-nano_toy-128x96', 'mmpose', 'coco'),
}
RED, GREEN = (200, 10, 10), (10, 200, 10)
META = {'classes': ('a', 'b'), 'palette': [RED, GREEN]}


def load(task, root, split='train', **options):
    name, framework, folder = CONFIGS[task]
    pytest.importorskip(framework)
    data_root = {f'{split}_dataloader.dataset.data_root': f'{root / folder}/'}
    return load_config(name, {**data_root, **options})


def sample(size=(40, 60), image_size=(40, 60), **labels):
    from mmengine.structures import BaseDataElement

    element = BaseDataElement()
    for name, value in labels.items():
        element.set_data({name: value})
    return Sample(np.zeros((*image_size, 3), np.uint8), element, size, 'title')


@pytest.mark.parametrize('task', CONFIGS)
def test_training_samples_of_each_task(task, toy_root):
    samples, meta = load_samples(load(task, toy_root), number=5)
    assert len(samples) == 5
    pictures = [draw_sample(sample, meta) for sample in samples]
    for picture, (image, _, _, title) in zip(pictures, samples, strict=True):
        assert max(picture.shape[:2]) == 384
        assert title.endswith(f'.jpg  {image.shape[1]} x {image.shape[0]}')
        plain = cv2.resize(image, picture.shape[1::-1])
        changed = (picture != plain).any(-1).mean()
        assert changed > 0.01
    figure = draw_samples(samples, meta)
    assert sum(bool(axis.images) for axis in figure.axes) == 5


@pytest.mark.parametrize('task', CONFIGS)
def test_evaluation_samples_of_each_task(task, toy_root):
    samples, meta = load_samples(load(task, toy_root, 'val'), 'val', number=2)
    assert len(samples) == 2
    draw_samples(samples, meta)


def test_the_seed_decides_the_augmentation(toy_root):
    cfg = load('pose', toy_root)
    first, same, other = (load_samples(cfg, number=2, seed=seed)[0] for seed in (0, 0, 1))
    assert (first[0].image == same[0].image).all()
    assert (first[0].image != other[0].image).any()


def test_colours_are_those_of_the_file(toy_root):
    off = {'train_dataloader.dataset.pipeline.3.prob': 0.0}
    found, _ = load_samples(load('det', toy_root, **off), number=1)
    picture = cv2.imread(found[0].labels.img_path)
    np.testing.assert_array_equal(found[0].image, picture)


def test_key_points_are_the_augmented_ones(toy_root):
    found, _ = load_samples(load('pose', toy_root), number=1)
    instances = found[0].labels.gt_instances
    points, visible = instances.transformed_keypoints[0], instances.keypoints_visible[0] > 0
    weights = found[0].labels.gt_fields.heatmaps.flatten(1)
    peaks = weights.argmax(1).numpy()
    width = found[0].labels.gt_fields.heatmaps.shape[2]
    drawn = weights.max(1).values.numpy() > 0.5
    places = np.stack([peaks % width, peaks // width], -1) * 4
    assert (visible & drawn).any()
    assert np.abs(points - places)[visible & drawn].max() <= 4


def test_boxes_and_masks_of_evaluation_are_in_the_coordinates_of_the_file(toy_root):
    resize = {'val_dataloader.dataset.pipeline.1.scale': (64, 64)}
    found, meta = load_samples(load('det', toy_root, 'val', **resize), 'val', number=1)
    assert found[0].image.shape == (64, 64, 3)
    assert found[0].size == (128, 128)
    full, _ = load_samples(load('det', toy_root, 'val'), 'val', number=1)
    small, large = draw_sample(found[0], meta), draw_sample(full[0], meta)
    # Both are enlarged to the same size, and so the labels come to lie on the same places.
    assert np.abs(small.astype(int) - large).mean() < 12


class Masks:
    def __init__(self, array):
        self.array = array

    def to_ndarray(self):
        return self.array


def test_instances_are_drawn_in_their_colours_at_their_places():
    masks = np.zeros((2, 40, 60), np.uint8)
    masks[0, 10:20, 10:20] = 1
    masks[1, 22:38, 40:58] = 1
    boxes = torch.tensor([[10.0, 10, 20, 20], [40, 22, 58, 38]])
    instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    instances.set_field(Masks(masks), 'masks', dtype=None)
    picture = draw_sample(sample(gt_instances=instances), META)
    assert picture.shape == (256, 384, 3)
    zoom = 384 / 60
    blue, green, red = picture[int(16 * zoom), int(16 * zoom)]
    assert red > 50 > max(blue, green)
    blue, green, red = picture[int(33 * zoom), int(50 * zoom)]
    assert green > 50 > max(blue, red)
    assert (picture[int(36 * zoom), int(20 * zoom)] == 0).all()
    assert (picture[int(10 * zoom), int(15 * zoom)] == RED[::-1]).any()


def test_boxes_without_masks_and_images_without_instances():
    boxes = torch.tensor([[10.0, 10, 20, 20]])
    instances = InstanceData(bboxes=boxes, labels=torch.tensor([1]))
    assert draw_sample(sample(gt_instances=instances), META).any()
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    assert not draw_sample(sample(gt_instances=none), META).any()
    assert not draw_sample(sample(), META).any()


def test_label_maps_are_tinted_and_ignored_pixels_dark():
    labels = torch.zeros(1, 40, 60, dtype=torch.long)
    labels[:, :20] = 1
    labels[:, :, 40:] = 255
    white = sample(gt_sem_seg=PixelData(data=labels))
    white.image.fill(255)
    picture = draw_sample(white, META).astype(int)
    np.testing.assert_allclose(picture[4, 4], [132, 228, 132], atol=2)
    np.testing.assert_allclose(picture[250, 4], [132, 132, 228], atol=2)
    np.testing.assert_allclose(picture[4, 380], [128, 128, 128], atol=2)


def test_points_that_are_not_labelled_are_left_out():
    points = np.array([[[10.0, 10], [50, 30], [30, 20]]])
    instances = InstanceData(
        transformed_keypoints=points, keypoints_visible=np.array([[1.0, 0, 1]])
    )
    meta = {
        'skeleton_links': [(0, 1), (0, 2)],
        'skeleton_link_colors': np.array([RED, GREEN]),
        'keypoint_colors': np.array([RED, RED, GREEN]),
    }
    picture = draw_sample(sample(gt_instances=instances), meta)
    zoom = 384 / 60
    assert (picture[int(15 * zoom), int(20 * zoom)] == GREEN[::-1]).all()
    assert (picture[int(30 * zoom), int(50 * zoom)] == 0).all()
    assert (picture[int(25 * zoom), int(40 * zoom)] == 0).all()


def run(task, out, *args):
    arguments = [CONFIGS[task][0], str(out), *(str(arg) for arg in args)]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_command(toy_root, tmp_path):
    pytest.importorskip('mmdet')
    out = tmp_path / 'new' / 'sheet.png'
    options = [
        '--cfg-options',
        f'train_dataloader.dataset.data_root={toy_root}/coco/',
        'train_dataloader.dataset.filter_cfg.min_size=1',
    ]
    result = run('det', out, '--number', 3, *options)
    assert result.output.endswith(f'{out}: 3 samples of the train data\n')
    assert cv2.imread(str(out)).shape[1] > 1000
    out.write_bytes(b'mine')
    with pytest.raises(UserError, match='--force'):
        run('det', out, *options)
    assert out.read_bytes() == b'mine'
    # More than there are.
    assert '8 samples' in run('det', out, '--number', 50, '--force', *options).output


@pytest.mark.parametrize('task', CONFIGS)
def test_missing_data_are_named(task, tmp_path):
    pytest.importorskip(CONFIGS[task][1])
    options = ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/nowhere/']
    with pytest.raises(UserError, match=r'nowhere/.*data_root='):
        run(task, tmp_path / 'out.png', *options)
    assert not (tmp_path / 'out.png').exists()


def test_a_missing_image_is_named(toy_root, tmp_path):
    pytest.importorskip('mmdet')
    shutil.copytree(toy_root / 'coco' / 'annotations', tmp_path / 'annotations')
    options = ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/']
    with pytest.raises(UserError, match='train2017/000000000001.jpg'):
        run('det', tmp_path / 'out.png', *options)


def test_empty_data_and_missing_loaders(toy_root):
    empty = load('det', toy_root, **{'train_dataloader.dataset.filter_cfg.min_size': 1000})
    with pytest.raises(UserError, match='no sample'):
        load_samples(empty)
    cfg = load('det', toy_root)
    cfg.pop('val_dataloader')
    with pytest.raises(UserError, match='no val_dataloader'):
        load_samples(cfg, 'val')
