"""Rewriting released files for the current frameworks, and back."""

import hashlib
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mmuniformer.apis.convert import convert
from mmuniformer.cli.convert import command
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import UniFormer
from mmuniformer.models.weights.load import load_pretrained

HEADS = {
    'detector': {'neck.lateral_convs.0.conv.weight': 4, 'roi_head.bbox_head.fc_cls.weight': 81},
    'segmentor': {'decode_head.conv_seg.weight': 150, 'auxiliary_head.conv_seg.bias': 150},
    'pose estimator': {
        'keypoint_head.deconv_layers.0.weight': 5,
        'keypoint_head.final_layer.weight': 17,
    },
}


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return OrderedDict(UniFormer('nano').state_dict())


@pytest.fixture(scope='module')
def imagenet(backbone):
    state = OrderedDict((k, v) for k, v in backbone.items() if not k.startswith('norm'))
    for name in ('norm.weight', 'norm.running_mean', 'head.weight', 'aux_head.weight'):
        state[name] = torch.rand(4)
    return state


@pytest.fixture
def released(tmp_path, backbone, imagenet):
    """Write a released file of a kind."""

    def make(kind, name='released.pth'):
        if kind in HEADS:
            state = OrderedDict((f'backbone.{k}', v) for k, v in backbone.items())
            state |= {k: torch.rand(n, 2) for k, n in HEADS[kind].items()}
            meta = {'CLASSES': ('a', 'b'), 'PALETTE': [[1, 2, 3]], 'mmdet_version': '2.11'}
            raw = {'meta': meta, 'state_dict': state, 'optimizer': {'lr': 1.0}}
        else:
            prefix = 'module.' if 'module' in kind else ''
            state = OrderedDict((prefix + k, v) for k, v in imagenet.items())
            raw = state if 'bare' in kind else {'model': state, 'epoch': 299}
        torch.save(raw, tmp_path / name)
        return str(tmp_path / name), state

    return make


def load(path):
    return torch.load(path, weights_only=True)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert torch.equal(found[name], expected[name]), name


KINDS = [*HEADS, 'ImageNet', 'ImageNet bare', 'ImageNet module', 'ImageNet bare module']


@pytest.mark.parametrize('kind', KINDS)
def test_there_and_back_is_identity(released, tmp_path, kind):
    source, state = released(kind)
    current, back = tmp_path / 'current.pth', tmp_path / 'back.pth'
    convert(source, current)
    convert(str(current), back, to='released')
    found = load(back)
    wrappers = {'state_dict': kind in HEADS, 'model': kind in ('ImageNet', 'ImageNet module')}
    for wrapper, there in wrappers.items():
        assert (wrapper in found) == there
        found = found[wrapper] if there else found
    assert_same(found, state)


@pytest.mark.parametrize('kind', KINDS)
def test_current_form(released, tmp_path, kind):
    source, state = released(kind)
    rows = convert(source, tmp_path / 'current.pth')
    found = load(tmp_path / 'current.pth')
    assert list(found) == ['meta', 'state_dict']
    names = [k.removeprefix('module.').replace('keypoint_head.', 'head.') for k in state]
    assert_same(found['state_dict'], dict(zip(names, state.values(), strict=True)))
    facts = found['meta']['mmuniformer']
    assert facts['kind'] == (kind if kind in HEADS else 'ImageNet classifier')
    assert facts['network'] == 'UniFormer nano'
    assert facts['source'] == 'released.pth'
    assert facts['sha256'] == hashlib.sha256(Path(source).read_bytes()).hexdigest()
    assert 'head_dim' not in facts
    if kind in HEADS:
        assert found['meta']['dataset_meta'] == {'classes': ('a', 'b'), 'palette': [[1, 2, 3]]}
        assert rows['left out'] == 'optimizer'
    else:
        assert rows['left out'] == ('nothing' if 'bare' in kind else 'epoch')
    if kind == 'pose estimator':
        assert rows['layout'] == 'state_dict/keypoint_head.* to state_dict/*'


def test_converting_again_changes_nothing(released, tmp_path):
    source, state = released('pose estimator')
    convert(source, tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), tmp_path / 'b.pth')
    assert_same(load(tmp_path / 'b.pth')['state_dict'], load(tmp_path / 'a.pth')['state_dict'])
    convert(str(tmp_path / 'b.pth'), tmp_path / 'c.pth', to='released')
    assert_same(load(tmp_path / 'c.pth')['state_dict'], state)


def test_file_trained_here_gets_the_released_names(tmp_path, backbone):
    state = {f'backbone.{k}': v for k, v in backbone.items()}
    state['head.final_layer.bias'] = torch.rand(17)
    torch.save({'state_dict': state}, tmp_path / 'epoch_1.pth')
    convert(str(tmp_path / 'epoch_1.pth'), tmp_path / 'old.pth', to='released')
    assert 'keypoint_head.final_layer.bias' in load(tmp_path / 'old.pth')['state_dict']


def test_result_loads_into_the_backbone(released, tmp_path):
    source, state = released('ImageNet module')
    convert(source, tmp_path / 'current.pth')
    model = UniFormer('nano')
    load_pretrained(model, tmp_path / 'current.pth')
    assert torch.equal(model.blocks3[0].attn.qkv.weight, state['module.blocks3.0.attn.qkv.weight'])


def test_head_dim_survives_another_name(released, tmp_path):
    source, _ = released('ImageNet', 'uniformer_small_tl_224.pth')
    convert(source, tmp_path / 'mine.pth')
    assert load(tmp_path / 'mine.pth')['meta']['mmuniformer']['head_dim'] == 32
    with pytest.raises(CheckpointError, match=r'head_dim 32 \(as recorded'):
        load_pretrained(UniFormer('nano', head_dim=64), tmp_path / 'mine.pth')
    convert(source, tmp_path / 'stated.pth', head_dim=64)
    load_pretrained(UniFormer('nano', head_dim=64), tmp_path / 'stated.pth')


def test_existing_file_stays(released, tmp_path):
    source, _ = released('ImageNet')
    target = tmp_path / 'target.pth'
    target.write_text('precious')
    with pytest.raises(UserError, match='target.pth exists.*--force'):
        convert(source, target)
    assert target.read_text() == 'precious'
    convert(source, target, force=True)
    assert 'state_dict' in load(target)


def test_in_place(released):
    source, state = released('pose estimator')
    convert(source, source, force=True)
    convert(source, source, to='released', force=True)
    assert_same(load(source)['state_dict'], state)


def test_failure_leaves_nothing(released, tmp_path, monkeypatch):
    source, _ = released('ImageNet')
    before = sorted(os.listdir(tmp_path))

    def fail(data, file):
        file.write(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(UserError, match='target.pth could not be written: no space left'):
        convert(source, tmp_path / 'target.pth')
    assert sorted(os.listdir(tmp_path)) == before


def test_target_in_new_folder(released, tmp_path):
    source, _ = released('ImageNet')
    convert(source, tmp_path / 'new' / 'folder' / 'x.pth')
    assert os.listdir(tmp_path / 'new' / 'folder') == ['x.pth']


def test_target_is_a_folder_or_below_a_file(released, tmp_path):
    source, _ = released('ImageNet')
    with pytest.raises(UserError, match='is a folder'):
        convert(source, tmp_path, force=True)
    with pytest.raises(UserError, match='could not be written'):
        convert(source, f'{source}/x.pth')


def test_other_network_is_refused(tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.rand(2)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match='holds no UniFormer: keys start with layer1'):
        convert(str(tmp_path / 'resnet.pth'), tmp_path / 'x.pth')
    assert not (tmp_path / 'x.pth').exists()


class TestCommand:
    def test_prints_what_was_done(self, released, tmp_path):
        source, state = released('pose estimator')
        result = CliRunner().invoke(command, [source, str(tmp_path / 'x.pth')])
        assert result.exit_code == 0, result.output
        for word in (
            'pose estimator',
            'UniFormer nano',
            'keypoint_head.* to state_dict/*',
            'optimizer',
        ):
            assert word in result.output
        assert f'{len(state)} tensors' in result.output

    def test_prints_names_as_they_are(self, imagenet, tmp_path):
        torch.save({'model': imagenet, '[/b]': 1}, tmp_path / 'x.pth')
        result = CliRunner().invoke(command, [str(tmp_path / 'x.pth'), str(tmp_path / 'y.pth')])
        assert result.exit_code == 0, result.output
        assert '[/b]' in result.output

    @pytest.mark.integration
    def test_exit_status_of_a_refusal(self, released, tmp_path, run_python):
        source, _ = released('ImageNet')
        target = tmp_path / 'x.pth'
        target.write_text('precious')
        main = 'import sys; from mmuniformer.cli import main; main(["convert", *sys.argv[1:]])'
        run = run_python('-c', main, source, target)
        assert run.returncode == 1
        assert 'exists' in run.stderr
        assert 'Traceback' not in run.stderr
        assert target.read_text() == 'precious'
