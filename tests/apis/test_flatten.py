"""Configs written as one file: the same settings, named once where they are shared."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmuniformer.apis.config import load_config
from mmuniformer.apis.flatten import SETTINGS, flatten
from mmuniformer.compat import CONFIGS, find_shipped_bases
from mmuniformer.errors import UserError

SHIPPED = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)


def run(text):
    """The variables of a config's source."""
    space = {}
    exec(text, space)
    del space['__builtins__']
    return space


def by_name(content):
    return {name: repr(content[name]) for name in sorted(content)}


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_stay_what_they_are(path):
    cfg = load_config(path)
    text = flatten(cfg)
    assert by_name(run(text)) == by_name(cfg.to_dict())
    assert '_base_ =' not in text


def test_folder_of_the_data_and_codec_are_changed_in_one_place():
    text = flatten(load_config('td-hm_uniformer-small_8xb128-210e_coco-384x288'))
    assert text.count("'data/coco/") == 1
    assert text.count('(288, 384)') == 1
    text = text.replace("'data/coco/'", "'own/'").replace('(288, 384)', '(96, 128)')
    changed = Config(run(text))
    for split in ('train', 'val', 'test'):
        dataset = changed[f'{split}_dataloader'].dataset
        assert dataset.data_root == 'own/'
        crop = next(step for step in dataset.pipeline if step.type == 'TopdownAffine')
        assert crop.input_size == changed.model.head.decoder.input_size == (96, 128)
    assert changed.test_evaluator.ann_file.startswith('own/annotations/')


def test_variables_are_what_options_have_made_of_them():
    loaders = [f'{split}_dataloader.dataset' for split in ('train', 'val', 'test')]
    options = {
        **{f'{loader}.data_root': '/mine/' for loader in loaders},
        **{f'{loader}.type': 'AP10KDataset' for loader in loaders},
        'train_dataloader.dataset.pipeline.2.direction': 'vertical',
        'val_evaluator.ann_file': '/mine/val.json',
    }
    cfg = load_config('td-hm_uniformer-small_8xb128-210e_coco-256x192', options)
    text = flatten(cfg)
    changed = run(text)
    assert (changed['data_root'], changed['dataset_type']) == ('/mine/', 'AP10KDataset')
    assert changed['train_pipeline'][2]['direction'] == 'vertical'
    assert text.count("'/mine/") == text.count('AP10KDataset') == text.count('vertical') == 1
    settings = {name: value for name, value in cfg.to_dict().items() if name in SETTINGS}
    assert by_name({name: changed[name] for name in settings}) == by_name(settings)


def test_values_are_written_as_they_are():
    content = {
        'one': (1,),
        'empty': {'list': [], 'tuple': (), 'dict': {}},
        'numbers': [1, 1.0, True, -0.5, 1e-8, float('inf')],
        'keys': {'a-b': 1, 3: 2, 'lambda': 'x\n"y"'},
        'model': {'list': [1, 1.0, True, -0.5, 1e-8, float('inf')], 'other': [True, 1]},
    }
    text = flatten(Config(content))
    assert by_name(run(text)) == by_name(content)
    assert 'list=numbers' in text
    assert 'other=[True, 1]' in text


def test_types_that_are_classes_become_their_names(tmp_path):
    file = tmp_path / 'new.py'
    file.write_text(
        'from mmuniformer import UniFormer\n'
        'from torch.optim import AdamW\n'
        'model = dict(backbone=dict(type=UniFormer))\n'
        'optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3))\n'
    )
    assert run(flatten(load_config(file))) == {
        'model': {'backbone': {'type': 'mmuniformer.UniFormer'}},
        'optim_wrapper': {'optimizer': {'type': 'torch.optim.AdamW', 'lr': 1e-3}},
    }


def test_what_cannot_be_written_is_named():
    with pytest.raises(UserError, match=r'model\.backbone\.depths is a set'):
        flatten(Config({'model': {'backbone': {'depths': {1, 2}}}}))


# --- bases of ours ------------------------------------------------------------------------------

NANO = 'mask-rcnn_uniformer-nano_fpn_toy'


@pytest.mark.parametrize('base', [f'det/toy/{NANO}.py', f'det/{NANO}.py', NANO])
def test_configs_inherit_from_ours_by_prefix(tmp_path, base):
    file = tmp_path / 'own.py'
    file.write_text(
        f"_base_ = 'mmuniformer::{base}'\n"
        'model = dict(backbone=dict(window_size=5))\n'
        'pipeline = _base_.train_pipeline\n'
    )
    cfg = Config.fromfile(file)
    expected = load_config(NANO, {'model.backbone.window_size': 5})
    assert cfg.pop('pipeline') == expected.train_pipeline
    assert cfg.to_dict() == expected.to_dict()  # no `_scope_`, in which FPN would not be found


def test_missing_base_of_ours_is_named(tmp_path):
    file = tmp_path / 'own.py'
    file.write_text("_base_ = 'mmuniformer::det/nothing.py'\n")
    with pytest.raises(UserError, match=r'own\.py cannot be read: .*nothing\.py'):
        load_config(file)


def test_bases_of_others_are_found_as_before(tmp_path):
    before = Config._get_cfg_path
    find_shipped_bases()
    assert Config._get_cfg_path is before
    assert before('other.py', str(tmp_path / 'own.py')) == (str(tmp_path / 'other.py'), None)
    with pytest.raises(AssertionError, match='does not support to load unknown config'):
        before('unknown::det/x.py', 'own.py')
