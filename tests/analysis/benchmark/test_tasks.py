"""`mmuniformer benchmark backbone|det|seg|pose|cls|video` on the toys, and baselines."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from mmengine import Config
from new_style import write_new_style

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.baselines import (
    BASELINES,
    CLIP_BASELINES,
    baseline_cases,
    in_place,
)
from mmuniformer.analysis.benchmark.cases import OBJECTS, Settings, annotate
from mmuniformer.analysis.benchmark.network import ARCHS, config_of
from mmuniformer.analysis.metafile import stated_accuracy
from mmuniformer.apis.config import TASKS, find_config, load_config
from mmuniformer.cli.benchmark import command
from mmuniformer.errors import UserError

pytestmark = pytest.mark.frameworks

TOYS = {
    'det': 'mask-rcnn_uniformer-nano_fpn_toy',
    'seg': 'fpn_uniformer-nano_toy-128x128',
    'pose': 'td-hm_uniformer-nano_toy-128x96',
    'cls': 'uniformer-nano_toy-64x64',
    'video': 'uniformer3d-nano_toy-u4-64x64',
}
SHIPPED = {
    'det': 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco',
    'seg': 'upernet_uniformer-small-global_8xb2-160k_ade20k-512x512',
    'pose': 'td-hm_uniformer-small_8xb128-210e_coco-256x192',
    'cls': 'uniformer-small_8xb128-300e_in1k',
    'video': 'uniformer-base_imagenet1k-pre_8xb5-16x4x1-110e_kinetics400-rgb',
}
SWIN, CONVNEXT, RESNET = BASELINES


@pytest.fixture
def in_process(monkeypatch):
    """Spare the fresh processes: what they would run is run here."""

    def run(prepare, *arguments):
        prepare(*arguments)()
        return 100 << 20, 400 << 20

    monkeypatch.setattr(measure, 'peak_memory_on_cpu', run)


def settings_of(config):
    return Settings('det', config, None, ((64, 64),), 1, 1, 'inference', 'cpu')


def benchmark(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def rows_of(tmp_path, *arguments):
    result = benchmark(*arguments, '--device', 'cpu', '--repeats', 1, '--out', tmp_path)
    assert result.exit_code == 0, result.exception or result.output
    return json.loads((tmp_path / 'benchmark.json').read_text())['rows']


def test_backbone_in_profiles_layouts_and_sizes(tmp_path, in_process):
    rows = rows_of(
        tmp_path, 'backbone', 'nano', '--layouts', 'global,w4', '--profiles', 'plain,deploy',
        '--shape', 64, 64, '--shape', 64, 96, '--batch-size', 2,
    )  # fmt: skip
    found = [(row['size'], row['layout'], row['profile']) for row in rows]
    assert found == [
        (size, layout, profile)
        for size in ('2 x 64 x 64', '2 x 64 x 96')
        for layout in ('global', 'w4')
        for profile in ('plain', 'deploy')
    ]
    for row in rows:
        assert row['of_plain'] == 1
        assert row['difference'] <= (1e-5 if row['profile'] == 'deploy' else 0)
        assert row['spread'] == 0 < row['ms']
    assert rows[0]['gflops'] < rows[4]['gflops']


def test_record_is_in_the_file_and_shown(tmp_path, in_process):
    result = benchmark(
        'backbone', 'light-nano', '--profiles', 'fused', '--shape', 64, 64, '--repeats', 0,
        '--out', tmp_path, '--device', 'cpu', '--operators',
    )  # fmt: skip
    record = json.loads((tmp_path / 'benchmark.json').read_text())
    assert record['settings']['mode'] == 'inference'
    assert record['rates'] == {}
    assert record['rows'][0]['dense_ms'] > 0
    assert 'depthwise' in result.stdout
    assert record['rows'][0]['ms'] is None
    assert record['rows'][0]['layout'] == 'hourglass'


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(('task', 'config'), TOYS.items())
@pytest.mark.parametrize('options', [[], ['--train']])
def test_outputs_of_whole_models_are_close_in_all_profiles(
    task, config, options, tmp_path, in_process
):
    pytest.importorskip(TASKS[task].scope)
    layouts = ['--layouts', 'w4'] if task == 'seg' else []
    rows = rows_of(
        tmp_path, task, config, '--shape', 64, 96, '--batch-size', 2,
        '--profiles', 'plain,fused,bf16', *layouts, *options,
    )  # fmt: skip
    assert [row['profile'] for row in rows][:3] == ['plain', 'fused', 'bf16']
    for row in rows:
        high = {'plain': 0, 'fused': 1e-4, 'bf16': 0.2}[row['profile']]
        assert row['difference'] <= high
        assert row['params_m'] == rows[0]['params_m']


@pytest.mark.integration
def test_clips_are_measured_by_the_view(tmp_path, in_process):
    pytest.importorskip('mmaction')
    rows = rows_of(
        tmp_path, 'video', TOYS['video'], '--profiles', 'plain,nhwc', '--batch-size', 2,
        '--shape', 64, 64, '--shape', 32, 64, '--operators',
        '--cfg-options', 'test_dataloader.dataset.pipeline.1.num_clips=3',
    )  # fmt: skip
    sizes = ['2 x 4 x 64 x 64'] * 2 + ['2 x 4 x 32 x 64'] * 2
    assert [row['size'] for row in rows] == sizes
    assert rows[0]['gflops'] == pytest.approx(0.01704, rel=1e-3)
    assert all(row['clips_per_second'] > 0 and row['images_per_second'] is None for row in rows)
    assert all(row['depthwise_ms'] > 0 for row in rows)
    assert 0 < rows[1]['difference'] < 1e-5


@pytest.mark.integration
def test_classifiers_train_whole_steps(tmp_path, in_process):
    pytest.importorskip('mmpretrain')
    rows = rows_of(
        tmp_path, 'cls', TOYS['cls'], '--profiles', 'plain,fused', '--shape', 64, 64,
        '--batch-size', 2, '--train', '--step',
    )  # fmt: skip
    assert all(row['of_rate'] > 0 for row in rows)
    assert [row['difference'] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ('task', 'classes', 'labels'), [('cls', 3, [0, 1, 2, 0]), ('video', 2, [0, 1, 0, 1])]
)
def test_labels_are_classes_of_the_model(task, classes, labels):
    pytest.importorskip(TASKS[task].scope)
    model = torch.nn.Module()
    model.head = model.cls_head = torch.nn.Module()
    model.head.num_classes = classes
    samples = annotate(task, model, 4, (64, 96))
    assert [sample.gt_label.item() for sample in samples] == labels


@pytest.mark.parametrize('options', [[], ['--train']])
def test_new_style_configs_are_measured(tmp_path, in_process, options):
    pytest.importorskip('mmseg')
    config = write_new_style(tmp_path, 'seg')
    rows = rows_of(tmp_path, 'seg', config, '--profiles', 'plain,bf16', '--shape', 64, 64, *options)
    assert [(row['profile'], row['layout']) for row in rows] == [('plain', 'h2'), ('bf16', 'h2')]
    # Of losses in training, which are closer to each other.
    assert (1e-5 if options else 1e-4) < rows[1]['difference'] < 0.1


def test_annotations_fit_a_detector_of_one_class():
    pytest.importorskip('mmdet')
    samples = annotate('det', torch.nn.Module(), 2, (64, 96))
    assert [sample.gt_instances.labels.tolist() for sample in samples] == [[0] * OBJECTS] * 2


@pytest.mark.parametrize(
    ('name', 'kind', 'arch'),
    [('small', 'UniFormer', 'small'), ('light-xxs', 'UniFormerLight', 'xxs')],
)
def test_an_arch_makes_a_config(name, kind, arch):
    cfg = config_of('backbone', name, {'model.backbone.drop_path_rate': 0.1})
    assert cfg.model == {
        'type': f'mmuniformer.{kind}', 'arch': arch, 'drop_path_rate': 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['backbone', 'nanoo'], 'nanoo: no such file, and no shipped config has that name'),
        (['backbone', 'nano', '--cfg-options', 'model.backbone.with_cp=True'], 'by --profiles'),
        (
            ['det', SHIPPED['det'], '--cfg-options', 'model.backbone.fused_attn=False'],
            'fused_attn:',
        ),
        (['backbone', 'nano', '--profiles', 'turbo'], "profile 'turbo' is unknown"),
        (['backbone', 'nano', '--train', '--profiles', 'deploy'], 'is not for training'),
        (['backbone', 'light-xs', '--layouts', 'h14'], 'leave the option out'),
        (
            ['backbone', 'nano', '--operators', '--profiles', 'compile'],
            'cannot see into compiled code',
        ),
        (['det', TOYS['pose']], 'is not a config of a detector'),
        (['pose', TOYS['det']], 'is not a config of a pose estimator'),
        (['backbone', 'nano', 'any.pth'], 'without CHECKPOINT'),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, tmp_path):
    result = benchmark(*arguments, '--out', tmp_path)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not any(tmp_path.iterdir())


def test_help_lists_the_archs():
    assert [arch for arch in ARCHS if arch not in benchmark('--help').output] == []


def test_a_failing_compilation_keeps_its_own_reason(tmp_path, monkeypatch):
    def compile(self, **options):
        self._compiled_call_impl = refuse

    def refuse(*arguments):
        raise TorchDynamoException('unsupported: context_fn')

    from torch._dynamo.exc import TorchDynamoException

    monkeypatch.setattr(torch.nn.Module, 'compile', compile)
    result = benchmark(
        'backbone', 'nano', '--profiles', 'compile', '--shape', 64, 64, '--device', 'cpu',
        '--out', tmp_path, '--repeats', 1,
    )  # fmt: skip
    assert isinstance(result.exception, TorchDynamoException)


@pytest.mark.parametrize(
    'content',
    [
        'a = 1',
        "model = dict(type='ResNet', depth=18)\ndefault_scope = 'mmdet'",
        "model = dict(backbone=dict(type='ResNet', depth=18))\ndefault_scope = 'mmdet'",
    ],
)
def test_a_config_without_a_backbone_of_ours_is_named(content, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'other.py').write_text(content)
    result = benchmark('backbone', tmp_path / 'other.py', '--shape', 64, 64)
    assert isinstance(result.exception, UserError)
    assert 'the config has no model with a UniFormer backbone' in str(result.exception)


def test_a_config_of_a_bare_backbone_is_measured(tmp_path, in_process):
    (tmp_path / 'bare.py').write_text("model = dict(type='mmuniformer.UniFormer', arch='nano')")
    rows = rows_of(
        tmp_path, 'backbone', tmp_path / 'bare.py', '--profiles', 'plain,deploy',
        '--layouts', 'w4', '--shape', 64, 64,
    )  # fmt: skip
    assert [row['layout'] for row in rows] == ['w4', 'w4']
    assert rows[0]['params_m'] == 473_824 / 1e6
    assert 0 < rows[1]['difference'] < 1e-5


def test_memory_that_does_not_grow_ends_no_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, 'peak_memory_on_cpu', lambda *_: (0, 400 << 20))
    rows = rows_of(tmp_path, 'backbone', 'nano', '--profiles', 'plain,fused', '--shape', 64, 64)
    assert [row['of_plain'] for row in rows] == [None, None]
    assert rows[1]['speedup'] > 0


def test_figures_of_an_earlier_run_need_force(tmp_path, in_process):
    (tmp_path / 'benchmark.json').write_text('precious')
    arguments = [
        'backbone', 'nano', '--profiles', 'fused', '--shape', 64, 64, '--repeats', 0,
        '--out', tmp_path, '--device', 'cpu',
    ]  # fmt: skip
    assert 'benchmark.json exists' in str(benchmark(*arguments).exception)
    assert (tmp_path / 'benchmark.json').read_text() == 'precious'
    assert benchmark(*arguments, '--force').exit_code == 0
    assert (tmp_path / 'benchmark.json').read_text() != 'precious'


def test_another_backbone_takes_the_place_at_equal_head():
    detector = in_place(load_config(SHIPPED['det']), SWIN).model
    assert detector.backbone == {'type': 'mmdet.SwinTransformer', 'out_indices': (0, 1, 2, 3)}
    assert detector.neck.in_channels == [96, 192, 384, 768]
    assert detector.rpn_head.in_channels == 256
    segmentor = in_place(load_config(SHIPPED['seg']), RESNET).model
    assert segmentor.backbone.type == 'mmseg.ResNet'
    assert segmentor.decode_head.in_channels == [256, 512, 1024, 2048]
    assert segmentor.auxiliary_head.in_channels == 1024
    estimator = in_place(load_config(SHIPPED['pose']), RESNET).model
    assert estimator.backbone.out_indices == (3,)
    assert estimator.head.in_channels == 2048
    classifier = in_place(load_config(SHIPPED['cls']), SWIN).model
    assert classifier.backbone == {
        'type': 'mmpretrain.SwinTransformer', 'out_indices': (3,), 'pad_small_map': True
    }  # fmt: skip
    assert classifier.head.in_channels == 768
    own, swin, slow = (in_place(load_config(SHIPPED['video']), b).model for b in CLIP_BASELINES)
    assert own.backbone == {
        'type': 'mmaction.UniFormer', 'depth': [5, 8, 20, 7], 'embed_dim': [64, 128, 320, 512],
        'head_dim': 64, 'pretrained2d': False,
    }  # fmt: skip
    assert (swin.backbone.type, swin.cls_head.in_channels) == ('mmaction.SwinTransformer3D', 768)
    assert (own.cls_head.in_channels, slow.cls_head.in_channels) == (512, 2048)
    cfg = in_place(Config({'model': {'backbone': {'type': 'mmuniformer.UniFormer'}}}), CONVNEXT)
    assert cfg.model.backbone.type == 'mmpretrain.ConvNeXt'
    assert cfg.custom_imports == {'imports': ['mmpretrain.models']}


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [
        (SHIPPED['det'], ['42.7 box AP, 39.3 mask AP (MMDetection)',
                          '38.2 box AP, 34.7 mask AP (MMDetection)']),
        (SHIPPED['seg'], ['44.41 mIoU (MMSegmentation)', '42.05 mIoU (MMSegmentation)']),
        (SHIPPED['pose'], ['72.4 AP (MMPose)', '71.8 AP (MMPose)']),
        ('td-hm_uniformer-small_8xb64-210e_coco-448x320', [None, None]),
        (TOYS['det'], [None, None]),
        (SHIPPED['cls'], ['81.18 Top 1 Accuracy (MMPretrain)',
                          '76.55 Top 1 Accuracy (MMPretrain)']),
        (SHIPPED['video'], [
            None, '78.90 Top 1 Accuracy at 32x2x1, 4 clips x 3 crops (MMAction2)',
            '74.82 Top 1 Accuracy at 8x8x1, 10 clips x 3 crops (MMAction2)',
        ]),
    ],
)  # fmt: skip
def test_published_accuracy_is_that_of_the_recipe(name, wanted):
    cases, _ = baseline_cases(load_config(name), settings_of(name))
    assert [case.published for case in cases if case.name != CONVNEXT.name] == wanted


def test_our_published_accuracy_is_that_of_the_layout():
    def stated(task, layout):
        return stated_accuracy(find_config(SHIPPED[task]), layout)

    assert stated('det', 'h14') == '45.6 box AP, 41.6 mask AP (published)'
    assert stated('pose', 'global') == '74.0 AP (published)'
    assert stated('seg', 'w32') == '46.6 mIoU (published)'
    assert stated('seg', 'w16') is None
    assert stated('cls', 'global') == '82.9 Top 1 Accuracy (published)'
    assert stated('video', 'global') == '82.0 Top 1 Accuracy (published)'


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    cases, absent = baseline_cases(load_config(TOYS['det']), settings_of(TOYS['det']))
    assert [case.name for case in cases] == ['Swin-T', 'ResNet-50']
    assert [(row.profile, row.published) for row in absent] == [
        ('ConvNeXt-T', 'not installed: mmpretrain')
    ]


@pytest.mark.slow
def test_baselines_are_measured(tmp_path, in_process):
    pytest.importorskip('mmdet')
    rows = rows_of(
        tmp_path, 'det', TOYS['det'], '--against', '--profiles', 'fused', '--shape', 64, 64
    )
    found = {row['profile']: row for row in rows}
    assert found['ResNet-50']['params_m'] > 23 > found['fused']['params_m']
    assert found['Swin-T']['gflops'] > found['fused']['gflops']
    assert found['Swin-T']['images_per_second'] > 0
    assert found['Swin-T']['speedup'] is None


@pytest.mark.slow
@pytest.mark.integration
def test_baselines_of_images_are_measured(tmp_path, in_process):
    pytest.importorskip('mmpretrain')
    rows = rows_of(
        tmp_path, 'cls', TOYS['cls'], '--against', '--profiles', 'fused', '--shape', 64, 64
    )
    found = {row['profile']: round(row['params_m'], 1) for row in rows}
    assert found == {'fused': 0.5, 'Swin-T': 27.5, 'ConvNeXt-T': 27.8, 'ResNet-50': 23.5}
    assert all(row['images_per_second'] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.integration
def test_baselines_of_clips_are_measured(tmp_path, in_process):
    pytest.importorskip('mmaction')
    rows = rows_of(
        tmp_path, 'video', TOYS['video'], '--against', '--profiles', 'fused', '--shape', 64, 64
    )
    found = {row['profile']: row for row in rows}
    own, ours = found['UniFormer of MMAction2'], found['fused']
    assert own['params_m'] == pytest.approx(ours['params_m'], rel=1e-3)
    assert own['gflops'] == pytest.approx(ours['gflops'], rel=1e-2)
    assert [round(found[name]['params_m']) for name in ('VideoSwin-T', 'SlowOnly-50')] == [28, 32]
    assert all(row['clips_per_second'] > 0 for row in rows)


@pytest.mark.gpu
def test_memory_on_a_gpu_is_the_allocators(tmp_path):
    result = benchmark('backbone', 'nano', '--shape', 64, 64, '--device', 'cuda', '--out', tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / 'benchmark.json').read_text())['rows']
    assert all(row['peak_mb'] > 0 for row in rows)
    assert all(row['whole_mb'] is None for row in rows)
