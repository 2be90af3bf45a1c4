"""Whole classifiers' files: released layouts, inflation, heads, the order of classes."""

import pytest
import torch
from torch import nn

from mmuniformer.apis.convert import convert
from mmuniformer.engine.checkpoint import checked_state_dict
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import (
    LightClsHead,
    TokenLabelHead,
    UniFormer,
    UniFormer3D,
    UniFormerLight,
    UniFormerLight3D,
)
from mmuniformer.models.heads import ClsHead
from mmuniformer.models.weights import load
from mmuniformer.models.weights.class_names import CLASS_LISTS, permute_classes, read_labels
from mmuniformer.models.weights.load import load_pretrained
from mmuniformer.models.weights.released import CLASSIFIER_LAYERS, name_classifier

LAST = dict(out_indices=(3,), out_norm='BN')


class ImageModel(nn.Module):
    """As mmpretrain's ImageClassifier names its parts."""

    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head


class I3D(nn.Module):
    """As mmaction2's I3DHead names its layer."""

    def __init__(self, classes):
        super().__init__()
        self.fc_cls = nn.Linear(128, classes)


class VideoModel(nn.Module):
    """As mmaction2's Recognizer3D names its parts."""

    def __init__(self, backbone, cls_head):
        super().__init__()
        self.backbone, self.cls_head = backbone, cls_head


MODELS = {
    'plain': lambda: ImageModel(UniFormer('nano', **LAST), ClsHead(6, 128)),
    'token label': lambda: ImageModel(UniFormer('nano', **LAST), TokenLabelHead(6, 128)),
    'light': lambda: ImageModel(UniFormerLight('nano', **LAST), LightClsHead(6, 128)),
    'video': lambda: VideoModel(UniFormer3D('nano'), I3D(6)),
    'light video': lambda: VideoModel(UniFormerLight3D('nano'), LightClsHead(6, 128)),
}
WRAPPERS = {'model': 'model', 'model_state': 'model_state', 'bare': None}


def randomized(model):
    torch.manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return model


def released(model):
    """The model's state dict as the authors' files have it."""
    return name_classifier(model.state_dict(), CLASSIFIER_LAYERS.__contains__, '')


def save(state, path, wrapper='model'):
    torch.save({wrapper: state} if wrapper else state, path)
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('name', MODELS)
def test_released_file_loads_whole_and_by_init_cfg(name, wrapper, tmp_path):
    source = randomized(MODELS[name]())
    raw = {WRAPPERS[wrapper]: released(source)} if WRAPPERS[wrapper] else released(source)
    model = MODELS[name]()
    assert_same(checked_state_dict(model, raw, 'released.pth'), source.state_dict())
    path = save(released(source), tmp_path / 'released.pth', WRAPPERS[wrapper])
    backbone = model.backbone
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone.init_weights()
    assert_same(backbone.state_dict(), source.backbone.state_dict())


def test_head_of_another_count_of_classes_is_refused_and_starts_anew_in_fine_tuning():
    raw = released(randomized(MODELS['video']()))
    model = VideoModel(UniFormer3D('nano'), I3D(9))
    with pytest.raises(CheckpointError, match=r'6 classes in the file, 9 in the model'):
        checked_state_dict(model, raw, 'k400.pth')
    assert 'backbone.norm.weight' in checked_state_dict(model, raw, 'k400.pth', fine_tune=True)


def test_token_labeled_file_serves_a_plain_classifier():
    source = randomized(MODELS['token label']())
    found = checked_state_dict(MODELS['plain'](), released(source), 'labeled.pth')
    expected = source.state_dict()
    assert found.keys() == {key for key in expected if not key.startswith('head.aux_fc')}
    torch.testing.assert_close(found['head.fc.weight'], expected['head.fc.weight'])


@pytest.mark.parametrize(
    ('image', 'clip'), [(UniFormer, UniFormer3D), (UniFormerLight, UniFormerLight3D)]
)
def test_image_weights_in_the_center_see_one_frame_as_its_image(image, clip, tmp_path):
    source = image('nano', **LAST)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    path = save(source.state_dict(), tmp_path / 'in1k.pth')
    model = clip('nano')
    match = load_pretrained(model, path, inflation='center')
    assert not match.missing
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = source.eval()(x)[0]
        torch.testing.assert_close(model.eval()(x.unsqueeze(2)).squeeze(2), expected)


def test_average_gives_an_image_where_all_frames_alike_are_seen(tmp_path):
    source = UniFormer('nano', out_indices=(1,))
    path = save(source.state_dict(), tmp_path / 'in1k.pth')
    model = UniFormer3D('nano', out_indices=(1,), out_norm='LN')
    model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model.init_weights()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        clip = model.eval()(x.unsqueeze(2).expand(-1, -1, 40, -1, -1))
        torch.testing.assert_close(clip[:, :, 10], source.eval()(x)[0])
    # The first frames see the padding of zeros.
    assert not torch.allclose(clip[:, :, 0], source(x)[0])


def test_split_blocks_start_from_image_weights_as_if_they_did_not_relate_frames(tmp_path):
    path = save(UniFormer('nano', **LAST).state_dict(), tmp_path / 'in1k.pth')
    match = load_pretrained(UniFormer3D('nano', split=True), path)
    assert {name.split('.')[2] for name in match.missing} == {'t_norm', 't_attn'}


def test_what_cannot_be_inflated_is_refused_with_the_reason(tmp_path):
    scaled = UniFormerLight('nano', layer_scale_init_value=0.1, **LAST).state_dict()
    path = save(scaled, tmp_path / 'light_ls.pth')
    with pytest.raises(CheckpointError, match='gamma_3, the LayerScale of dropped patches'):
        load_pretrained(UniFormerLight3D('nano', layer_scale_init_value=0.1), path)
    path = save(UniFormer('nano', **LAST).state_dict(), tmp_path / 'in1k.pth')
    with pytest.raises(CheckpointError, match="inflation='linear' is unknown: choose average or"):
        load_pretrained(UniFormer3D('nano'), path, inflation='linear')
    with pytest.raises(CheckpointError, match=r'embed_dims=\(16, 32, 64, 128\)'):
        load_pretrained(UniFormer3D('nano', embed_dims=(16, 32, 64, 64)), path)


def test_images_and_clips_are_told_apart():
    image, clip = UniFormer('nano', **LAST), UniFormer3D('nano')
    with pytest.raises(CheckpointError, match='a network for images and the backbone one for clip'):
        clip.load_state_dict(image.state_dict())
    with pytest.raises(CheckpointError, match='a video network .*backbone one for images: take a'):
        image.load_state_dict(clip.state_dict())


def test_loading_reports_inflation(tmp_path, monkeypatch):
    log = []
    monkeypatch.setattr(load, 'print_log', lambda text, **_: log.append(text))
    path = save(UniFormer('nano', **LAST).state_dict(), tmp_path / 'in1k.pth')
    match = load_pretrained(UniFormer3D('nano'), path)
    kernels = [value for value in UniFormer3D('nano').state_dict().values() if value.ndim == 5]
    assert f'; inflated {len(kernels)} kernels along time by average' in log[-1]
    assert not match.missing


@pytest.mark.parametrize(('name', 'to'), [
    ('plain', 'mmpretrain'), ('token label', 'mmpretrain'), ('light', 'mmpretrain'),
    ('video', 'mmaction'),
])  # fmt: skip
def test_convert_names_whole_classifiers_and_back(name, to, tmp_path):
    source = randomized(MODELS[name]())
    wrapper = 'model_state' if name == 'video' else 'model'
    path = save(released(source), tmp_path / 'released.pth', wrapper)
    facts = convert(str(path), tmp_path / 'whole.pth', to)
    assert facts['left out'] == 'nothing'
    whole = torch.load(tmp_path / 'whole.pth')
    assert_same(whole['state_dict'], source.state_dict())
    convert(str(tmp_path / 'whole.pth'), tmp_path / 'again.pth', 'released')
    assert_same(torch.load(tmp_path / 'again.pth')[wrapper], released(source))


def test_convert_names_layers_that_a_framework_lacks(tmp_path):
    path = save(released(randomized(MODELS['token label']())), tmp_path / 'labeled.pth')
    facts = convert(str(path), tmp_path / 'new.pth', 'mmaction')
    assert facts['left out'] == 'aux_head'


def test_convert_permutes_classes_by_name(tmp_path):
    old, new = tmp_path / 'old.txt', tmp_path / 'new.txt'
    old.write_text(
        'riding a bike\t0\nyoga\t1\nabseiling\t2\nhurling (sport)\t3\nzumba\t4\nvault\t5'
    )
    new.write_text('abseiling\nhurling_sport\nriding a bike\nvault\nyoga\nzumba\n')
    source = released(randomized(MODELS['video']()))
    path = save(source, tmp_path / 'k6.pth', 'model_state')
    facts = convert(str(path), tmp_path / 'new.pth', 'mmaction', labels=(str(old), str(new)))
    assert 'permuted by name' in facts['classes']
    found = torch.load(tmp_path / 'new.pth')['state_dict']
    order = [2, 3, 0, 5, 1, 4]
    torch.testing.assert_close(found['cls_head.fc_cls.weight'], source['head.weight'][order])
    torch.testing.assert_close(found['cls_head.fc_cls.bias'], source['head.bias'][order])
    torch.testing.assert_close(found['backbone.norm.weight'], source['norm.weight'])


def test_kinetics_lists_have_the_same_classes_in_no_common_place():
    authors, alphabet = CLASS_LISTS['k400-authors'], CLASS_LISTS['k400']
    assert len(set(authors)) == 400
    assert set(authors) == set(alphabet)
    assert authors[0] == 'riding a bike'
    assert alphabet[0] == 'abseiling'
    assert not any(a == b for a, b in zip(authors, alphabet, strict=True))
    head = torch.arange(400)
    moved = permute_classes({'head.bias': head}, authors, alphabet)['head.bias']
    assert authors[moved[0]] == 'abseiling'
    back = permute_classes({'head.bias': moved}, alphabet, authors)['head.bias']
    assert torch.equal(back, head)


def test_wrong_lists_of_classes_are_refused(tmp_path):
    twice = tmp_path / 'twice.txt'
    twice.write_text('yoga\nyoga\n')
    for source, text in (('k700', 'is no file, nor one of'), (str(twice), "'yoga' twice")):
        with pytest.raises(UserError, match=text):
            read_labels(source)
    head = {'head.bias': torch.zeros(3)}
    for lists, text in (
        ((('a', 'b'), ('a', 'c')), "1 of the second are not in the first, such as 'c'"),
        ((('a', 'b'), ('b', 'a')), 'has 3 classes and the lists 2'),
    ):
        with pytest.raises(UserError, match=text):
            permute_classes(head, *lists)
    with pytest.raises(UserError, match='no classifier'):
        permute_classes({}, ('a',), ('a',))
