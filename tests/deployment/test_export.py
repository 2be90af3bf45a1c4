"""Exported files against PyTorch: layouts, sizes, batches; and what the command refuses."""

from __future__ import annotations

import errno
import os
import sys

import pytest
import torch
from click.testing import CliRunner
from mmengine import Config
from torch import nn

from mmuniformer import UniFormer, UniFormerLight
from mmuniformer.apis.config import load_config
from mmuniformer.cli.export import command
from mmuniformer.deployment import comparison, files
from mmuniformer.deployment.export import Options
from mmuniformer.deployment.export import export as export_model
from mmuniformer.deployment.networks import AdaptiveAverage, Target, make_exportable, make_target
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer3D, UniFormerLight3D

SIZES = {'embed_dims': (8, 16, 16, 16), 'head_dim': 8, 'mlp_ratios': 2}
EXAMPLE = (2, 96, 160)
UNLIKE_IT = [(1, 64, 64), (3, 117, 90), (1, 150, 331)]
"""Among them window counts and paddings other than the example's."""
CLIP = (2, 4, 64, 96)
UNLIKE_THE_CLIP = [(1, 3, 64, 64), (3, 7, 117, 90)]
LAYOUTS = {
    'global': {'stage3_attn': 'global'},
    'window': {'stage3_attn': 'window', 'window_size': 4},
    'hybrid': {'stage3_attn': 'hybrid', 'window_size': 3},
}


@pytest.fixture
def onnx():
    return pytest.importorskip('onnxruntime') and pytest.importorskip('onnx')


def make_backbone(layout, **options):
    """A backbone whose every parameter matters: nothing is left at 0 or 1."""
    torch.manual_seed(0)
    if 'light' in layout:
        keep = ((1, 0.5), (0.5,))
        kind = UniFormerLight3D if 'clip' in layout else UniFormerLight
        model = kind(
            {**SIZES, 'depths': (1, 1, 2, 1), 'keep_ratios': keep}, conv_stem=(True, *[False] * 3)
        )
    elif 'clip' in layout:
        model = UniFormer3D({**SIZES, 'depths': (1, 1, 1, 1)}, split='split' in layout)
    else:
        depths = (1, 1, 4 if layout == 'hybrid' else 1, 1)
        model = UniFormer({**SIZES, 'depths': depths}, **LAYOUTS[layout], **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, parameter.mean().item(), 0.2)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def export(model, file, dynamic=True, example=EXAMPLE):
    """Write a backbone to a file of the format of its suffix."""
    target = make_target(Config({}), model, backbone_only=False, shape=example[1:])
    form = next(each for each in files.FORMATS.values() if each.suffix == file.suffix)
    program = files.trace(target, example, dynamic)
    form.write(program, target.output_names, file, {'size': [96, 160]})
    return form.run(file)


def compare(run, expected, shapes=UNLIKE_IT, tolerance=1e-3):
    target = Target(nn.Identity(), expected, (), 3, len(shapes[0]) - 1)
    return comparison.compare_outputs(run, target, shapes, tolerance)


def differences(run, model, shapes=UNLIKE_IT):
    return [each['largest difference'] for each in compare(run, model, shapes)]


@pytest.mark.slow
@pytest.mark.parametrize('layout', [*LAYOUTS, 'light'])
def test_onnx_equals_pytorch_at_sizes_and_batches_unlike_the_example(onnx, tmp_path, layout):
    model = make_backbone(layout)
    assert max(differences(export(model, tmp_path / 'file.onnx'), model)) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    ['clip.onnx', 'split clip.pt2', pytest.param('light clip.onnx', marks=pytest.mark.minutes)],
)
def test_files_of_clips_equal_pytorch_at_lengths_unlike_the_example(onnx, tmp_path, name):
    model, file = make_backbone(name), tmp_path / name
    run = export(model, file, example=CLIP)
    assert max(differences(run, lambda x: (model(x),), UNLIKE_THE_CLIP)) < 2e-5
    if file.suffix == '.onnx':
        (clip,) = onnx.load(file).graph.input
        axes = [axis.dim_param or axis.dim_value for axis in clip.type.tensor_type.shape.dim]
        assert (clip.name, axes) == ('clip', ['batch', 3, 'frames', 'height', 'width'])


@pytest.mark.slow
def test_folded_file_equals_the_unfolded_model(onnx, tmp_path):
    model = make_backbone('window', layer_scale_init_value=0.5, conv_stem=True)
    run = export(model, tmp_path / 'file.onnx')
    assert max(differences(run, model)) < 5e-5
    assert model.deployed is None


@pytest.mark.slow
def test_a_perturbed_weight_fails_the_check_and_the_file_speaks_for_itself(onnx, tmp_path):
    model = make_backbone('global')
    file = tmp_path / 'file.onnx'
    run = export(model, file)
    model.blocks3[0].attn.qkv.weight.data[0, 0] += 0.5
    assert not any(each['result'] for each in compare(run, model, tolerance=Options.tolerance))

    graph = onnx.load(file)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [('', files.OPSET)]
    assert {entry.key: entry.value for entry in graph.metadata_props} == {'size': '[96, 160]'}
    (image,) = graph.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert (image.name, axes) == ('image', ['batch', 3, 'height', 'width'])
    assert [out.name for out in graph.graph.output] == ['stage1', 'stage2', 'stage3', 'stage4']
    assert not [node.op_type for node in graph.graph.node if node.domain]


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['hybrid', 'light'])
def test_torch_export_equals_pytorch_at_sizes_and_batches_unlike_the_example(tmp_path, layout):
    model = make_backbone(layout)
    assert max(differences(export(model, tmp_path / 'file.pt2'), model)) < 2e-5


@pytest.mark.slow
def test_static_file_takes_its_own_size_alone(onnx, tmp_path):
    model = make_backbone('global', out_indices=(0, 2))
    run = export(model, tmp_path / 'file.onnx', dynamic=False, example=(2, 64, 64))
    assert max(differences(run, model, [(2, 64, 64)])) < 2e-5
    with pytest.raises(Exception, match='Got: 1 Expected: 2'):
        differences(run, model, [(1, 64, 64)])


@pytest.mark.parametrize('sides', [1, 3, (2, 6), (None, 2)])
@pytest.mark.parametrize('size', [(4, 7), (6, 6), (2, 13)])
def test_pooling_by_products_is_adaptive_pooling(sides, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted = nn.AdaptiveAvgPool2d(sides)(x)
    torch.testing.assert_close(AdaptiveAverage(sides)(x), wanted, rtol=0, atol=1e-14)


@pytest.mark.frameworks
def test_layers_with_fixed_sizes_are_replaced():
    wrappers = pytest.importorskip('mmseg.models.utils.wrappers')
    upsample = wrappers.Upsample(scale_factor=2, mode='bilinear', align_corners=False)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Sequential(upsample))
    x = torch.randn(1, 2, 8, 9)
    wanted = network(x)
    make_exportable(network)
    assert [type(network[0]), type(network[1][0])] == [AdaptiveAverage, nn.Upsample]
    torch.testing.assert_close(network(x), wanted, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.frameworks
def test_head_with_aligned_corners_takes_all_sizes(tmp_path):
    pytest.importorskip('mmseg')
    head = {
        '_delete_': True, 'type': 'FCNHead', 'in_channels': 128, 'in_index': 3, 'channels': 8,
        'num_classes': 4, 'num_convs': 1, 'concat_input': False, 'align_corners': True,
    }  # fmt: skip
    cfg = load_config(SEGMENTOR, {'model.decode_head': head, 'model.neck': None})
    options = Options(format='torch-export', out=tmp_path / 'net.pt2', shape=(64, 96))
    assert export_model(cfg, None, options) == tmp_path / 'net.pt2'


def test_compared_shapes_are_unlike_the_example():
    assert comparison.shapes_to_compare((4, 64, 96), dynamic=False) == [(4, 64, 96)]
    first, *others = comparison.shapes_to_compare((2, 512, 2048), dynamic=True)
    assert first == (1, 512, 2048)
    assert len({batch for batch, _, _ in [first, *others]}) == 3
    assert all(height % 16 and width % 16 for _, height, width in others)
    smallest = comparison.shapes_to_compare((1, 64, 64), dynamic=True)
    assert min(side for _, *sides in smallest for side in sides) >= files.MIN_DYNAMIC_SIDE
    clips = comparison.shapes_to_compare((1, 16, 224, 224), dynamic=True)
    assert clips == [(1, 16, 224, 224), (3, 8, 117, 177), (2, 17, 103, 71)]
    assert comparison.shapes_to_compare((1, 4, 64, 64), dynamic=True)[1][1] == 3


@pytest.mark.parametrize(
    ('difference', 'largest', 'passes'),
    [(0.9e-3, 0.1, True), (1.1e-3, 0.1, False), (9e-3, 10.0, True), (1.1e-2, 10.0, False)],
)
def test_tolerance_is_a_share_of_the_largest_value(difference, largest, passes):
    def expected(image):
        return (torch.full_like(image, -largest),)

    def run(image):
        return (torch.full_like(image, -largest + difference),)

    (found,) = compare(run, expected, [(1, 64, 64)])
    assert found['largest difference'] == pytest.approx(difference, rel=1e-4)
    assert found['largest value'] == pytest.approx(largest)
    assert found['result'] is passes


def test_nan_never_passes():
    def run(image):
        return image, image

    def broken(image):
        return image * torch.nan, image

    for pair in ((run, broken), (broken, run)):
        (found,) = compare(*pair, [(1, 64, 64)], tolerance=1)
        assert not found['result']


SEGMENTOR = 'fpn_uniformer-nano_toy-128x128'
CONFIG = """
default_scope = 'mmseg'
model = dict(type='mmuniformer.UniFormer', arch='nano')
"""


@pytest.fixture
def refusal(tmp_path):
    """Call the command with options and return the message of its error."""
    (tmp_path / 'net.py').write_text(CONFIG)

    def call(*arguments):
        arguments = [tmp_path / 'net.py', '--out', tmp_path / 'net.onnx', *arguments]
        result = CliRunner().invoke(command, list(map(str, arguments)))
        assert isinstance(result.exception, UserError), result.output
        assert list(tmp_path.glob('*unchecked*')) == []
        return str(result.exception)

    return call


def test_file_that_is_there_is_kept(refusal, tmp_path):
    (tmp_path / 'net.onnx').write_text('mine')
    assert 'net.onnx exists' in refusal()
    assert (tmp_path / 'net.onnx').read_text() == 'mine'


def test_full_disk_is_named(refusal, tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, 'trace', lambda *_: None)
    monkeypatch.setitem(files.FORMATS, 'torch-export', files.Format('.pt2', write, None))
    out = tmp_path / 'net.pt2'
    options = ['--format', 'torch-export', '--out', out, '--shape', 64, 64]
    text = refusal(*options, '--no-check')
    assert text == f'{out} could not be written: [Errno 28] No space left on device'
    assert list(tmp_path.iterdir()) == [tmp_path / 'net.py']


@pytest.mark.parametrize('name', files.FORMATS['onnx'].libraries)
def test_missing_library_is_named_with_the_fix(refusal, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    message = refusal()
    assert name in message
    assert 'pip install "mmuniformer[export]"' in message


def test_sizes_that_do_not_fit_are_refused(refusal, onnx):
    assert 'sides from 64 up' in refusal('--shape', 48, 64)
    auto = ('--shape', 64, 64, '--cfg-options', 'model.stage3_attn=auto')
    assert 'model.backbone.stage3_attn=hybrid' in refusal(*auto)


def test_length_of_clips_that_does_not_fit_is_refused(refusal, onnx, tmp_path):
    size = ('--shape', 64, 64)
    assert '--frames 8: the network takes images' in refusal(*size, '--frames', 8)
    (tmp_path / 'net.py').write_text("model = dict(type='mmuniformer.UniFormer3D', arch='nano')")
    assert 'does not state the length of clips: give --frames T' in refusal(*size)
    assert 'clips of 3 frames and more; add --static 1' in refusal(*size, '--frames', 2)


@pytest.mark.frameworks
def test_config_without_a_model_is_refused(refusal, onnx, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'net.py').write_text("default_scope = 'mmdet'")
    assert 'no `model`' in refusal('--shape', 64, 64)


@pytest.mark.frameworks
def test_detectors_take_one_size(tmp_path):
    pytest.importorskip('mmdet')
    for options in (['--static', '2'], ['--format', 'torch-export']):
        arguments = ['mask-rcnn_uniformer-nano_fpn_toy', *options, '--out', str(tmp_path / 'x')]
        result = CliRunner().invoke(command, arguments)
        assert 'for one image of one size' in str(result.exception)


@pytest.mark.frameworks
def test_data_that_a_detector_cannot_be_compared_on_are_refused_before_the_work(
    onnx, tmp_path, toy_root
):
    pytest.importorskip('mmdet')

    def refusal(*options):
        arguments = ['mask-rcnn_uniformer-nano_fpn_toy', '--out', tmp_path / 'net.onnx', *options]
        result = CliRunner().invoke(command, list(map(str, arguments)))
        assert isinstance(result.exception, UserError), result.output
        assert list(tmp_path.iterdir()) == []
        return str(result.exception)

    root = 'test_dataloader.dataset.data_root='
    assert 'or --no-check' in refusal('--cfg-options', f'{root}{tmp_path}/none/')
    data = ('--cfg-options', f'{root}{toy_root}/coco/')
    assert 'no image of the test data fits into 64 x 64' in refusal('--shape', 64, 64, *data)


def test_format_of_the_table_writes_and_runs_its_own_files(tmp_path, monkeypatch):
    """Also one that is neither ONNX nor torch.export."""

    def write(program, output_names, file, metadata):
        file.write_text(f'{output_names[-1]}, {metadata["size"]}')

    monkeypatch.setitem(files.FORMATS, 'third', files.Format('.third', write, run=None))
    monkeypatch.setattr(files, 'trace', lambda target, example, dynamic: None)
    (tmp_path / 'net.py').write_text(CONFIG)
    cfg = load_config(tmp_path / 'net.py')
    options = Options(format='third', shape=(64, 64), out=tmp_path / 'net.third', check=False)
    assert export_model(cfg, None, options) == tmp_path / 'net.third'
    assert (tmp_path / 'net.third').read_text() == 'stage4, [64, 64]'


def test_file_of_another_format_is_refused(refusal):
    assert 'torch-export is .pt2' in refusal('--format', 'torch-export')


def test_models_that_cannot_be_exported_are_refused():
    with pytest.raises(UserError, match='no backbone of mmuniformer'):
        make_target(Config({}), nn.Identity(), backbone_only=True, shape=(64, 64))
    model = nn.Sequential(make_backbone('global'))
    with pytest.raises(UserError, match='Sequential: .* --backbone-only'):
        make_target(Config({}), model, backbone_only=False, shape=(64, 64))
    model.head = nn.Linear(1, 1)  # as of a pose estimator without heatmaps
    with pytest.raises(UserError, match='Sequential: .* --backbone-only'):
        make_target(Config({'default_scope': 'mmpose'}), model, False, shape=(64, 64))


@pytest.mark.slow
def test_command_writes_a_checked_file_or_none(tmp_path):
    (tmp_path / 'net.py').write_text(CONFIG.replace("'nano'", repr(dict(SIZES, depths=[1] * 4))))
    file = tmp_path / 'made' / 'net.pt2'
    options = ['--shape', '64', '96', '--format', 'torch-export', '--out', str(file)]
    arguments = [str(tmp_path / 'net.py'), *options]
    result = CliRunner().invoke(command, [*arguments, '--tolerance', '0'])
    assert 'was not written' in str(result.exception)
    assert list(file.parent.iterdir()) == []

    result = CliRunner().invoke(command, arguments)
    assert result.exception is None, result.output
    assert 'the weights are random' in result.output
    assert result.output.count('passes') == 3
    assert list(file.parent.iterdir()) == [file]
