"""What a config says of itself, with types as strings and as classes."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmuniformer.apis.config import channel_order, framework_of, load_config, test_image_size
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer
from mmuniformer.registry import type_name

test_image_size.__test__ = False  # not tests of pytest


class RandomResize:
    """A transform of a new-style config, given as a class."""


@pytest.mark.parametrize(
    ('kind', 'name'),
    [('Resize', 'Resize'), ('mmdet.Resize', 'Resize'), (RandomResize, 'RandomResize')],
)
def test_type_names(kind, name):
    assert type_name({'type': kind}) == name


@pytest.mark.parametrize('kind', ['Resize', 'mmseg.Resize', RandomResize])
def test_image_size_is_that_of_the_test_pipeline(kind):
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': kind, 'scale': (1333, 800)}]
    data = {'dataset': {'pipeline': pipeline}}
    assert test_image_size(Config({'test_dataloader': {'dataset': data}})) == (800, 1344)
    pipeline[1]['scale'] = 640  # mmcv takes one number for both sides
    assert test_image_size(Config({'test_dataloader': {'dataset': data}})) == (640, 640)
    data['dataset']['pipeline'] = pipeline[:1]
    with pytest.raises(UserError, match='give --shape'):
        test_image_size(Config({'test_dataloader': {'dataset': data}}))
    with pytest.raises(UserError, match='give --shape'):
        test_image_size(Config({'test_dataloader': None}))


@pytest.mark.parametrize(
    ('name', 'order'),
    [
        ('td-hm_uniformer-nano_toy-128x96', 'RGB'),
        ('uniformer-small_8xb128-300e_in1k', 'RGB'),
        ('uniformer-small_imagenet1k-pre_8xb4-16x4x1-110e_kinetics400-rgb', 'RGB'),
        ('uniformer-small_kinetics400-pre_8xb4-u16-60e_sthv1-rgb', 'BGR'),
    ],
)
def test_channels_are_in_the_order_that_the_network_takes(name, order):
    assert channel_order(load_config(name)) == order
    swapped = load_config(name, {'model.data_preprocessor.bgr_to_rgb': None})
    swapped.model.data_preprocessor.to_rgb = not swapped.model.data_preprocessor.get('to_rgb')
    pose = 'td-hm' in name
    assert channel_order(swapped) == (order if pose else order[::-1])


def test_image_size_of_a_pose_estimator_is_its_codecs():
    assert test_image_size(Config({'codec': {'input_size': (90, 128)}})) == (128, 90)


@pytest.mark.parametrize(
    ('cfg', 'wanted'),
    [
        ({'default_scope': 'mmseg'}, 'mmseg'),
        ({'default_scope': None, 'model': {'type': 'mmdet.MaskRCNN'}}, 'mmdet'),
        ({'model': {'type': UniFormer}}, None),
        ({}, None),
    ],
)
def test_framework_of_a_config(cfg, wanted):
    assert framework_of(Config(cfg)) == wanted


@pytest.mark.parametrize(
    ('model', 'wanted'), [('dict()', 7), ('dict(data_preprocessor=dict(mean=[3]))', 3)]
)
def test_data_preprocessor_beside_the_model_is_the_models_as_for_the_runner(
    tmp_path, model, wanted
):
    file = tmp_path / 'config.py'
    file.write_text(f'data_preprocessor = dict(mean=[1])\nmodel = {model}\n')
    cfg = load_config(file, {'data_preprocessor.mean': [7]})
    assert cfg.model.data_preprocessor.mean == [wanted]


def test_configs_without_a_model_or_data_preprocessor_stay_as_they_are(tmp_path):
    file = tmp_path / 'config.py'
    for text, wanted in [
        ('data_preprocessor = dict(mean=[1])', {'data_preprocessor': {'mean': [1]}}),
        ('data_preprocessor = None\nmodel = dict()', {'data_preprocessor': None, 'model': {}}),
    ]:
        file.write_text(text)
        assert load_config(file).to_dict() == wanted


def test_list_in_the_place_of_a_tuple_becomes_one(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text("steps = [dict(type='Resize', scale=(9, 8), factors=[1, 2])]\n")
    cfg = load_config(path, {'steps.0.scale': [4, 3], 'steps.0.factors': [5], 'steps.0.new': [6]})
    assert cfg.steps[0] == dict(type='Resize', scale=(4, 3), factors=[5], new=[6])
