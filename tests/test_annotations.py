"""Annotation files that can't be used are named, with the way out, before anything runs."""

import json

import pytest
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from PIL import Image

from mmuniformer.checked_runner import CheckedRunner
from mmuniformer.datasets.annotations import check_dataset
from mmuniformer.errors import UserError


@pytest.fixture
def data(tmp_path):
    """A folder with one image and its annotations, and the config of a data set on it."""
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (40, 30)).save(tmp_path / 'images' / 'a.png')
    content = {
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 30}],
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 8, 'name': 'dog'}],
        'annotations': [{'id': 5, 'image_id': 1, 'category_id': 7, 'bbox': [0, 0, 9, 9]}],
    }
    cfg = dict(data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img='images/'))
    return tmp_path, content, cfg


def write(folder, content):
    (folder / 'a.json').write_text(content if isinstance(content, str) else json.dumps(content))


def test_sound_data_passes(data):
    folder, content, cfg = data
    write(folder, content)
    check_dataset(cfg)
    check_dataset(cfg | dict(metainfo=dict(classes=('cat',))))
    (folder / 'names.txt').write_text('dog\ncat\n')
    check_dataset(cfg | dict(metainfo=dict(classes=str(folder / 'names.txt'))))
    check_dataset(dict(type='RepeatDataset', dataset=dict(datasets=[cfg])))
    check_dataset(dict(data_root='nowhere', img_suffix='.jpg'))


def without(content, key):
    return {k: v for k, v in content.items() if k != key}


BAD_FILES = {
    'empty file': (lambda c: '', r'a\.json is empty: give a COCO annotation file'),
    'no JSON': (lambda c: '{"images": [', r'a\.json is no JSON'),
    'list': (lambda c: '[]', 'has no images, annotations, categories'),
    'no categories': (lambda c: without(c, 'categories'), 'has no categories'),
    'no images in it': (lambda c: c | dict(images=[]), 'empty list of images'),
    'category': (
        lambda c: c | dict(annotations=[c['annotations'][0] | dict(category_id=9)]),
        'annotation 5 has category_id 9, which is not in its categories'),
    'image': (
        lambda c: c | dict(annotations=[c['annotations'][0] | dict(image_id=2)]),
        'annotation 5 has image_id 2, which is not in its images'),
    'file': (
        lambda c: c | dict(images=[c['images'][0] | dict(file_name='b.png')]),
        r'b\.png, named in .*a\.json, does not exist'),
}  # fmt: skip


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('kind', BAD_FILES)
def test_bad_file_is_named(data, kind, wrapped):
    folder, content, cfg = data
    change, message = BAD_FILES[kind]
    write(folder, change(content))
    with pytest.raises(UserError, match=message):
        check_dataset(dict(dataset=dict(datasets=[cfg])) if wrapped else cfg)


def test_missing_file_is_named(data):
    folder, _, cfg = data
    with pytest.raises(UserError, match=r'a\.json: No such file .* dataset\.data_root'):
        check_dataset(cfg)


def test_unknown_class_is_named_with_those_there_are(data):
    folder, content, cfg = data
    write(folder, content)
    with pytest.raises(UserError, match=r"no category 'bird'; it has 'cat', 'dog'"):
        check_dataset(cfg | dict(metainfo=dict(classes=('cat', 'bird'))))
    with pytest.raises(UserError, match=r"metainfo\.classes='names\.txt': No such file"):
        check_dataset(cfg | dict(metainfo=dict(classes='names.txt')))


def test_category_that_the_framework_does_not_know_is_named(data):
    pytest.importorskip('mmdet.datasets')
    folder, content, cfg = data
    cfg = cfg | dict(type='mmdet.CocoDataset')
    write(folder, content)
    check_dataset(cfg)
    content['categories'][0]['name'] = 'unicorn'
    write(folder, content)
    with pytest.raises(UserError, match=r"a\.json annotates 'unicorn'.*metainfo\.classes"):
        check_dataset(cfg)
    check_dataset(cfg | dict(metainfo=dict(classes=('dog',))))


@pytest.mark.parametrize('content', [b'', b'not an image', 'truncated'])
def test_image_that_cannot_be_decoded_is_named(data, content):
    folder, annotations, cfg = data
    write(folder, annotations)
    image = folder / 'images' / 'a.png'
    image.write_bytes(image.read_bytes()[:60] if content == 'truncated' else content)
    with pytest.raises(UserError, match=r'a\.png can not be decoded'):
        check_dataset(cfg)


@pytest.mark.parametrize('step', ['train', 'val', 'test'])
def test_runner_checks_before_it_builds(data, step, monkeypatch):
    folder, content, cfg = data
    write(folder, '')
    assert RUNNERS.get('mmuniformer.CheckedRunner') is CheckedRunner
    runner = object.__new__(CheckedRunner)
    built = []
    monkeypatch.setattr(Runner, step, lambda self: built.append(step))
    runner._train_dataloader = dict(dataset=cfg) if step == 'train' else None
    runner._val_dataloader = dict(dataset=cfg) if step == 'val' else None
    runner._test_dataloader = dict(dataset=cfg) if step == 'test' else None
    with pytest.raises(UserError, match='is empty'):
        getattr(runner, step)()
    assert not built
    write(folder, content)
    getattr(runner, step)()
    assert built == [step]
