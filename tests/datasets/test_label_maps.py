"""What stops a segmentation run that would fail or be spoiled: checks on label maps."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, RepeatDataset
from mmengine.model import BaseTTAModel
from PIL import Image
from torch import nn

from mmuniformer.datasets.checks.label_maps import (
    check_batch,
    check_files,
    check_label_map,
    check_names,
)
from mmuniformer.engine.hooks import MaskGuardHook
from mmuniformer.errors import DataError

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return path


def write_mask(folder, array, name='mask.png', palette=None):
    mask = Image.fromarray(np.asarray(array))
    if palette is not None:
        mask = mask.convert('P')
        mask.putpalette(palette)
    mask.save(folder / name)
    return folder / name


@pytest.mark.parametrize('palette', [None, [0, 0, 0, 255, 0, 0, 0, 255, 0]])
def test_8_bit_label_maps_pass(tmp_path, image, palette):
    mask = write_mask(tmp_path, np.ones((HEIGHT, WIDTH), np.uint8), palette=palette)
    check_label_map(mask, image)


def test_highest_number_of_16_bits_is_no_class(tmp_path, image):
    labels = np.full((HEIGHT, WIDTH), 65535, np.uint16)
    assert (labels.astype(np.uint8) == 255).all()  # as mmsegmentation reads it
    check_label_map(write_mask(tmp_path, labels), image)


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.full((HEIGHT, WIDTH), 300, np.uint16), 'holds the label 300, and mmsegmentation'),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), r'colors \(RGB\)'),
        (np.zeros((HEIGHT, WIDTH, 4), np.uint8), r'colors \(RGBA\)'),
        (np.zeros((HEIGHT, WIDTH, 2), np.uint8), r'colors \(LA\)'),
        (np.zeros((HEIGHT, WIDTH + 1), np.uint8), '9 x 6, its image .*image.png 8 x 6'),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path, image, array, message):
    mask = write_mask(tmp_path, array)
    with pytest.raises(DataError, match=message) as error:
        check_label_map(mask, image)
    assert str(mask) in str(error.value)


def test_size_is_compared_after_the_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    photo = tmp_path / 'photo.jpg'
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(photo, exif=exif)
    upright = write_mask(tmp_path, np.zeros((WIDTH, HEIGHT), np.uint8), 'upright.png')
    lying = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8), 'lying.png')
    check_label_map(upright, photo)
    with pytest.raises(DataError, match='EXIF'):
        check_label_map(lying, photo)


LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


@pytest.mark.frameworks
@pytest.mark.parametrize('kind', [np.uint8, np.uint16, 'palette'])
def test_label_maps_that_mmsegmentation_reads_right_pass(kind, tmp_path, image):
    datasets = pytest.importorskip('mmseg.datasets')
    labels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    palette = list(range(256)) * 3 if kind == 'palette' else None
    write_mask(tmp_path, labels.astype(np.uint8 if palette else kind), 'image.png.png', palette)
    dataset = datasets.BaseSegDataset(
        data_prefix=dict(img_path=str(tmp_path), seg_map_path=str(tmp_path)),
        img_suffix='image.png',
        seg_map_suffix='image.png.png',
        metainfo=dict(classes=tuple('ab')),
        pipeline=[],
    )
    from mmengine.dataset import Compose
    from mmseg.registry import TRANSFORMS

    dataset.pipeline = Compose([TRANSFORMS.build(step) for step in LOAD])
    np.testing.assert_array_equal(dataset[0]['gt_seg_map'], labels)
    check_files(dataset)


class Data:
    """A dataset of one image, with a label map each time."""

    def __init__(self, image, *masks, backend='pillow', names=('LoadImageFromFile',)):
        steps = [*names, 'LoadAnnotations'] if backend else names
        own = dict(imdecode_backend=backend, __call__=lambda self, sample: sample)
        made = [type(name, (), own)() for name in steps]
        self.image, self.masks = image, masks
        self.pipeline = Compose(made)

    def __len__(self):
        return len(self.masks)

    def get_data_info(self, index):
        return {'img_path': self.image, 'seg_map_path': self.masks[index]}


def test_first_files_of_a_dataset_are_checked(tmp_path, image):
    good = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8))
    bad = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bad.png')
    check_files(Data(image, good))
    with pytest.raises(DataError, match=r'bad\.png holds colors'):
        check_files(Data(image, good, good, bad))
    bad.write_bytes(b'')
    with pytest.raises(DataError, match=r'bad\.png .*cannot be read'):
        check_files(Data(image, good, bad))
    bad.unlink()
    with pytest.raises(DataError, match=r'bad\.png is missing'):
        check_files(Data(image, good, bad))
    check_files(Data(image, *[good] * 16, bad))  # when its turn comes
    check_files(Data(image, 's3://bucket/bad.png'))


def test_files_that_pillow_does_not_load_are_left_to_their_loader(tmp_path, image):
    labels = tmp_path / 'labels.nii.gz'
    labels.write_bytes(b'no format of Pillow')
    check_files(Data(image, labels, backend='tifffile'))
    check_files(Data(image, labels, names=('LoadBiomedicalImageFromFile',)))
    check_files(Data(image, tmp_path / 'gone.png', backend=None))  # test images have none


@pytest.mark.frameworks
def test_datasets_inside_wrappers_are_checked(tmp_path, image):
    pytest.importorskip('mmseg.datasets')
    folders = dict(img_path=str(tmp_path), seg_map_path=str(tmp_path / 'masks'))
    load = [dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    inner = dict(type='mmseg.BaseSegDataset', data_prefix=folders, img_suffix='.png', pipeline=load)
    mixed = dict(type='mmseg.MultiImageMixDataset', dataset=inner, pipeline=[])
    wrapped = RepeatDataset(dataset=dict(type='mmseg.ConcatDataset', datasets=[mixed]), times=2)
    with pytest.raises(DataError, match=r'image\.png is missing'):
        check_files(wrapped)
    (tmp_path / 'masks').mkdir()
    write_mask(tmp_path / 'masks', np.zeros((HEIGHT, WIDTH), np.uint8), 'image.png')
    check_files(wrapped)


def test_datasets_that_say_nothing_pass():
    data = torch.utils.data.TensorDataset(torch.zeros(3))
    check_files(data)
    check_names(data, segmentor().decode_head)


def test_remote_label_maps_pass(tmp_path):
    data = Data(tmp_path / 'gone.png', tmp_path / 'gone.png')
    data.pipeline.transforms[0].backend_args = dict(backend='petrel')
    check_files(data)


def segmentor(num_classes=3):
    head = nn.Module()
    head.num_classes, head.ignore_index = num_classes, 255
    model = nn.Module()
    model.decode_head = head
    return model


@pytest.mark.parametrize('count', [2, 4])
def test_names_for_another_number_of_classes_stop_the_run(count):
    dataset = types.SimpleNamespace(metainfo={'classes': tuple('abcd'[:count])})
    with pytest.raises(DataError, match=rf'names {count} classes \(a, b.* have 3'):
        check_names(dataset, segmentor().decode_head)
    dataset.metainfo['classes'] = tuple('abc')
    check_names(dataset, segmentor().decode_head)
    dataset.metainfo.pop('classes')
    check_names(dataset, segmentor().decode_head)


class Sample(dict):
    def __getattr__(self, name):
        return self[name]


def sample(labels, file='b.png'):
    return Sample(gt_sem_seg=types.SimpleNamespace(data=torch.tensor([labels])), seg_map_path=file)


@pytest.mark.parametrize('values', [[0, 1, 2], [255, 255, 2], [0, 0, 0]])
def test_labels_of_the_model_pass(values):
    check_batch(segmentor().decode_head, {'data_samples': [sample(values), Sample()]})


@pytest.mark.parametrize(('values', 'named'), [([0, 7, 3], '3, 7'), ([-1, 0, 255], '-1')])
@pytest.mark.parametrize('augmented', [False, True])
def test_labels_beyond_the_classes_are_named(values, named, augmented):
    samples = [sample([0]), sample(values)]
    batch = {'data_samples': [[each] for each in samples] if augmented else samples}
    with pytest.raises(DataError, match=rf'b\.png holds labels .* 0 to 2 of the model: {named} as'):
        check_batch(segmentor().decode_head, batch)


@pytest.mark.parametrize('moment', ['before_train_iter', 'before_val_iter', 'before_test_iter'])
def test_each_batch_is_checked(moment):
    runner = types.SimpleNamespace(model=segmentor(), cfg={})
    call = getattr(MaskGuardHook(), moment)
    call(runner, 0, {'data_samples': [sample([0, 1]), sample([2, 255])]})
    with pytest.raises(DataError, match=r'b\.png holds labels .*: 3 as'):
        call(runner, 0, {'data_samples': [sample([0, 1]), sample([3, 255])]})
    runner.cfg['check_data'] = False
    call(runner, 0, {'data_samples': [sample([3, 255])]})


def test_head_is_found_inside_wrappers_and_other_models_pass():
    class Merging(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    batch, model = {'data_samples': [[sample([9])]]}, segmentor()
    model.test_step = None  # asked for
    runner = types.SimpleNamespace(model=Merging(module=model), cfg={})
    with pytest.raises(DataError, match=': 9 as'):
        MaskGuardHook().before_test_iter(runner, 0, batch)
    runner.model = nn.Linear(1, 1)
    MaskGuardHook().before_test_iter(runner, 0, batch)
