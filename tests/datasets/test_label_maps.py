"""What stops a segmentation run that would fail or be spoiled: checks on label maps."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmuniformer.datasets.checks.label_maps import (
    check_batch,
    check_files,
    check_image_folder,
    check_label_file,
    check_labels,
    check_names,
    find_head,
)
from mmuniformer.engine.hooks import MaskGuardHook
from mmuniformer.errors import UserError

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return path


def write_mask(folder, array, name='mask.png', palette=None):
    picture = Image.fromarray(np.asarray(array))
    if palette is not None:
        picture = picture.convert('P')
        picture.putpalette(palette)
    picture.save(folder / name)
    return folder / name


@pytest.mark.parametrize('palette', [None, [0, 0, 0, 255, 0, 0, 0, 255, 0]])
def test_8_bit_label_maps_pass(tmp_path, image, palette):
    mask = write_mask(tmp_path, np.ones((HEIGHT, WIDTH), np.uint8), palette=palette)
    check_label_file(mask, image)


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.full((HEIGHT, WIDTH), 300, np.uint16), 'more than 8 bits'),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), r'colours \(RGB\)'),
        (np.zeros((HEIGHT, WIDTH, 4), np.uint8), r'colours \(RGBA\)'),
        (np.zeros((HEIGHT, WIDTH, 2), np.uint8), r'colours \(LA\)'),
        (np.zeros((HEIGHT, WIDTH + 1), np.uint8), '9 x 6, its image .*image.png 8 x 6'),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path, image, array, message):
    mask = write_mask(tmp_path, array)
    with pytest.raises(UserError, match=message) as error:
        check_label_file(mask, image)
    assert str(mask) in str(error.value)


def test_missing_and_broken_label_maps_are_named(tmp_path, image):
    with pytest.raises(UserError, match=r'gone.png is missing.*seg_map_suffix'):
        check_label_file(tmp_path / 'gone.png', image)
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG broken')
    with pytest.raises(UserError, match=r'broken.png.*cannot be read'):
        check_label_file(tmp_path / 'broken.png', image)


def test_size_is_compared_after_the_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    photo = tmp_path / 'photo.jpg'
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(photo, exif=exif)
    upright = write_mask(tmp_path, np.zeros((WIDTH, HEIGHT), np.uint8), 'upright.png')
    lying = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8), 'lying.png')
    check_label_file(upright, photo)
    with pytest.raises(UserError, match='EXIF'):
        check_label_file(lying, photo)


def test_folders_without_images_are_named(tmp_path):
    dataset = {'data_root': f'{tmp_path}/', 'data_prefix': {'img_path': 'images'}}
    folder = tmp_path / 'images'
    with pytest.raises(UserError, match=f'{folder}, which is no folder'):
        check_image_folder(dataset)
    folder.mkdir()
    (folder / 'a.png').touch()
    with pytest.raises(UserError, match=f'{folder} has no images that end in .jpg'):
        check_image_folder(dataset)
    check_image_folder({**dataset, 'img_suffix': '.png'})


def test_first_files_of_a_data_set_are_checked(tmp_path, image):
    good = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH), np.uint8))
    bad = write_mask(tmp_path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'bad.png')

    class Data:
        masks = (good, good, bad)

        def __len__(self):
            return len(self.masks)

        def get_data_info(self, index):
            return {'img_path': image, 'seg_map_path': self.masks[index]}

    with pytest.raises(UserError, match='bad.png'):
        check_files(Data())
    Data.masks = (good,)
    check_files(Data())
    Data.masks = (good,) * 30 + (bad,)
    check_files(Data())
    bad.write_bytes(b'')
    with pytest.raises(UserError, match=r'bad\.png is empty'):
        check_files(Data())
    bad.unlink()
    with pytest.raises(UserError, match=r'bad\.png is missing'):
        check_files(Data())
    Data.masks = ('s3://bucket/bad.png',)
    check_files(Data())


def segmentor(num_classes=3):
    head = nn.Module()
    head.num_classes, head.ignore_index = num_classes, 255
    model = nn.Module()
    model.decode_head = head
    return model


@pytest.mark.parametrize('values', [[0, 1, 2], [255, 255, 2], [0, 0, 0]])
def test_labels_of_the_model_pass(values):
    check_labels(torch.tensor([values]), 3, 255, 'a.png')


@pytest.mark.parametrize(
    ('values', 'named'), [([0, 3, 7], 'labels 3, 7'), ([-1, 0, 255], 'label -1'), ([254], '254')]
)
def test_labels_beyond_the_classes_are_named(values, named):
    with pytest.raises(UserError, match=named) as error:
        check_labels(torch.tensor([values]), 3, 255, 'a.png')
    assert 'a.png' in str(error.value)
    assert '0 to 2' in str(error.value)


@pytest.mark.parametrize('count', [2, 4])
def test_names_for_another_number_of_classes_stop_the_run(count):
    dataset = types.SimpleNamespace(metainfo={'classes': tuple('abcd'[:count])})
    with pytest.raises(UserError, match=rf'names {count} classes \(a, b.* tell 3 apart'):
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


@pytest.mark.parametrize('moment', ['before_train_iter', 'before_val_iter', 'before_test_iter'])
def test_each_batch_is_checked(moment):
    runner = types.SimpleNamespace(model=segmentor(), cfg={})
    call = getattr(MaskGuardHook(), moment)
    call(runner, 0, {'data_samples': [sample([0, 1]), sample([2, 255])]})
    with pytest.raises(UserError, match=r'b\.png holds the label 3'):
        call(runner, 0, {'data_samples': [sample([0, 1]), sample([3, 255])]})
    runner.cfg['check_data'] = False
    call(runner, 0, {'data_samples': [sample([3, 255])]})


def test_batches_of_test_time_augmentation_and_of_images_alone():
    with pytest.raises(UserError, match='label 9'):
        check_batch(segmentor(), {'data_samples': [[sample([0])], [sample([9])]]})
    check_batch(segmentor(), {'data_samples': [Sample()]})


def test_head_is_found_inside_wrappers():
    outer = nn.Module()
    outer.module = segmentor()
    assert find_head(outer) is outer.module.decode_head
    assert find_head(nn.Linear(1, 1)) is None
