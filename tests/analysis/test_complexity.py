"""Parameters and FLOPs against a formula on paper and against every published figure."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from click.testing import CliRunner
from new_style import write_new_style, write_with_strings

from mmuniformer.analysis import complexity as complexity_module
from mmuniformer.analysis.complexity import (
    complexity,
    count_backbone,
    find_published,
    published_shape,
)
from mmuniformer.analysis.layouts import Layout
from mmuniformer.analysis.metafile import load_models, stated_accuracy
from mmuniformer.apis.config import TASKS, clip_views, load_config
from mmuniformer.cli.complexity import command
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight

pytestmark = pytest.mark.frameworks

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]


def build(backbone, *args, **kwargs):
    with torch.device('meta'):
        return backbone(*args, **kwargs).eval()


def count(model, height=224, width=224):
    return count_backbone(model, torch.empty(1, 3, height, width, device='meta'))[1]


def expected_flops(model, height, width, window_sizes=()):
    """Multiply-adds of each stage, from the equations of the papers alone."""
    stages, before, cls_width = [], 3, None
    for stage, (dim, depth) in enumerate(zip(model.embed_dims, model.depths, strict=True)):
        ratio = model.arch.mlp_ratios[stage]
        stride = 2 if stage else 4
        if model.arch.conv_stem[stage]:
            if stage == 0:
                half_h, half_w = (height + 1) // 2, (width + 1) // 2
                height, width = (half_h + 1) // 2, (half_w + 1) // 2
                flops = half_h * half_w * 9 * 3 * dim // 2 + height * width * 9 * dim // 2 * dim
            else:
                height, width = (height + 1) // 2, (width + 1) // 2
                flops = height * width * 9 * before * dim
        else:
            height, width = height // stride, width // stride
            flops = height * width * stride**2 * before * dim
        tokens = height * width
        light = isinstance(model, UniFormerLight)
        if light and stage == 3:
            flops += cls_width * dim
        cls_width = dim
        for block in range(depth):
            flops += 9 * dim * tokens  # DPE
            if stage < 2:
                flops += tokens * (2 * dim**2 + 25 * dim + 2 * ratio * dim**2)
            elif light:
                keep = model.arch.keep_ratios[stage - 2][block]
                taking_part = tokens + 1 if keep == 1 else int(tokens * keep) + 2
                flops += 0 if keep == 1 else (tokens - int(tokens * keep)) * dim  # representative
                flops += taking_part * ((4 + 2 * ratio) * dim**2 + dim)  # + dim: the score's row
                flops += 2 * taking_part**2 * dim
            else:
                size = window_sizes[block] if stage == 2 and window_sizes else None
                sets, of = (1, tokens)
                if size:
                    sets, of = -(-height // size) * -(-width // size), size**2
                flops += sets * of * 4 * dim**2 + 2 * sets * of**2 * dim
                flops += tokens * 2 * ratio * dim**2
        stages.append(int(flops))
        before = dim
    return stages


PRESETS = [
    (UniFormer, 'nano', 473_824, 103_682_432),
    (UniFormer, 'small', 21_033_280, 3_631_262_208),
    (UniFormer, 'small_plus', 23_520_576, 4_200_521_472),
    (UniFormer, 'base', 49_264_576, 8_248_507_904),
    (UniFormer, 'base_ls', 49_264_576 + 2 * (20 * 320 + 7 * 512), 8_248_507_904),
    (UniFormer, 'large', 98_823_424, 19_682_345_088),
    (UniFormerLight, 'nano', 578_880, 72_485_440),
    (UniFormerLight, 'xs', 15_483_136, 1_931_506_432),
    (UniFormerLight, 'xxs', 9_317_168, 1_298_805_984),
]


@pytest.mark.parametrize(('backbone', 'arch', 'params', 'flops'), PRESETS)
def test_presets(backbone, arch, params, flops):
    model = build(backbone, arch)
    part = count(model)
    assert (part.params, part.flops) == (params, flops)
    assert [stage.flops for stage in part.parts] == expected_flops(model, 224, 224)
    assert sum(stage.params for stage in part.parts) == params


@pytest.mark.parametrize(
    ('attn', 'size', 'sizes'),
    [
        ('global', 7, (None,) * 4),
        ('window', 7, (7,) * 4),
        ('hybrid', 5, (5, 5, 5, None)),
        (('global', 'window', 'window', 'global'), 3, (None, 3, 3, None)),
    ],
)
def test_layouts_count_padding_of_windows(attn, size, sizes):
    model = build(UniFormer, 'nano', stage3_attn=attn, window_size=size)
    stages = [stage.flops for stage in count(model, 250, 321).parts]
    assert stages == expected_flops(model, 250, 321, sizes)


@pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
def test_plain_attention_costs_the_same(backbone):
    fused, plain = (count(build(backbone, 'nano', fused_attn=fused)) for fused in (True, False))
    assert fused == plain


def test_odd_sizes_of_an_hourglass():
    model = build(UniFormerLight, 'nano')
    assert [stage.flops for stage in count(model, 101, 77).parts] == expected_flops(model, 101, 77)


def test_stages_are_split_into_their_parts():
    part = count(build(UniFormerLight, 'nano', out_indices=(2, 3)))
    assert [stage.name for stage in part.parts] == ['stage 1', 'stage 2', 'stage 3', 'stage 4']
    names = [[each.name for each in stage.parts] for stage in part.parts]
    assert names == [
        ['patch_embed1', 'blocks1'],
        ['patch_embed2', 'blocks2'],
        ['patch_embed3', 'cls_token', 'blocks3', 'norm3'],
        ['patch_embed4', 'cls_upsample', 'blocks4', 'norm4'],
    ]
    for stage in part.parts:
        assert stage.params == sum(each.params for each in stage.parts)
        assert stage.flops == sum(each.flops for each in stage.parts)
    assert part.parts[2].parts[1].params == 64


# Published figures. The spec's table names what does not follow from the count.


class Row(NamedTuple):
    config: str
    flops: float
    test_layout: str | None = None
    params: float | None = None


MASK, CASCADE = 'mask-rcnn_uniformer-', 'cascade-mask-rcnn_uniformer-'
FPN, UPER = '_8xb4-80k_ade20k-512x512', '_8xb2-160k_ade20k-512x512'
PUBLISHED = [
    Row(f'{MASK}small-h14_fpn_amp-1x_coco', 268.8, 'h14', 41.20),
    Row(f'{MASK}base-h14_fpn_amp-1x_coco', 399.6, 'h14', 69.43),
    Row(f'{CASCADE}small-h14_fpn_amp-ms-crop-3x_coco', 747, 'h14', 79),
    Row(f'{CASCADE}base-h14_fpn_amp-ms-crop-3x_coco', 878, 'h14', 107),
    Row(f'fpn_uniformer-small-global{FPN}', 183, 'w32', 25),
    Row(f'fpn_uniformer-small-global{FPN}', 199, 'h32', 25),
    Row(f'fpn_uniformer-small-global{FPN}', 247, 'global', 25),
    Row(f'fpn_uniformer-base-global{FPN}', 310, 'w32', 54),
    Row(f'fpn_uniformer-base-global{FPN}', 350, 'h32', 54),
    Row(f'fpn_uniformer-base-global{FPN}', 471, 'global', 54),
    Row(f'upernet_uniformer-small-h14{UPER}', 947, 'h14', 52),
    Row(f'upernet_uniformer-base-h14{UPER}', 1085, 'h14', 80),
    Row(f'upernet_uniformer-small-global{UPER}', 939, 'w32', 52),
    Row(f'upernet_uniformer-small-global{UPER}', 955, 'h32', 52),
    Row(f'upernet_uniformer-small-global{UPER}', 1004, 'global', 52),
    Row(f'upernet_uniformer-base-global{UPER}', 1066, 'w32', 80),
    Row(f'upernet_uniformer-base-global{UPER}', 1106, 'h32', 80),
    Row(f'upernet_uniformer-base-global{UPER}', 1227, 'global', 80),
    Row('td-hm_uniformer-small_8xb128-210e_coco-256x192', 4.67, 'global', 25.2),
    Row('td-hm_uniformer-small_8xb128-210e_coco-384x288', 11.07, 'global', 25.2),
    Row('td-hm_uniformer-small_8xb64-210e_coco-448x320', 14.73, 'global', 25.2),
    Row('td-hm_uniformer-base_8xb128-210e_coco-256x192', 9.19, 'global', 53.5),
    Row('td-hm_uniformer-base_8xb32-210e_coco-384x288', 22.05, 'global', 53.5),
    Row('td-hm_uniformer-base_8xb32-210e_coco-448x320', 29.54, 'global', 53.5),
]
NOT_REPRODUCED = {
    f'fpn_uniformer-small-h14{FPN}': (172, 190.9),
    f'fpn_uniformer-base-h14{FPN}': (328, 330.7),
}
FRAMEWORKS = {
    'det': 'mmdet',
    'seg': 'mmseg',
    'pose': 'mmpose',
    'cls': 'mmpretrain',
    'video': 'mmaction',
}


def layout_options(test_layout):
    """The options that switch a config to a layout, as written in the tables: w32, h14, global."""
    kinds = {'w': 'window', 'h': 'hybrid'}
    if test_layout in (None, 'hourglass'):
        return {}
    if test_layout == 'global':
        return {'model.backbone.stage3_attn': 'global'}
    return {
        'model.backbone.stage3_attn': kinds[test_layout[0]],
        'model.backbone.window_size': int(test_layout[1:]),
    }


COUNTED = {}
WITHOUT_COST = ('init_cfg', 'norm_eval', 'drop_path_rate')
"""Settings of a backbone that the variants of a recipe differ in, and no count depends on."""


def config_in(config, test_layout=None):
    (path,) = (path for path in CONFIGS if path.stem == config)
    pytest.importorskip(TASKS[path.relative_to(ROOT / 'configs').parts[0]].scope)
    return load_config(path, layout_options(test_layout))


def counted(config, test_layout=None):
    """The cost of a config as the task's figures are published; equal models are counted once."""
    cfg = config_in(config, test_layout)
    model = cfg.model.to_dict()
    for setting in WITHOUT_COST:
        model['backbone'].pop(setting, None)
    key = repr((model, published_shape(cfg), clip_views(cfg)))
    if key not in COUNTED:
        COUNTED[key] = complexity(cfg)
    return COUNTED[key]


def with_slow_ones(rows, name):
    """Mark the big networks as slow."""
    return [
        pytest.param(row, marks=[pytest.mark.slow] if '-base' in name(row) else [], id=name(row))
        for row in rows
    ]


@pytest.mark.parametrize(
    'row', with_slow_ones(PUBLISHED, lambda row: f'{row.config}-{row.test_layout}')
)
def test_published(row):
    result = counted(row.config, row.test_layout)
    assert result.flops / 1e9 == pytest.approx(row.flops, rel=0.01)
    assert result.params / 1e6 == pytest.approx(row.params, rel=0.02)


@pytest.mark.parametrize('config', with_slow_ones(NOT_REPRODUCED, str))
def test_figures_that_do_not_follow_from_the_count(config):
    published, value = NOT_REPRODUCED[config]
    result = counted(config, 'h14')
    assert result.flops / 1e9 == pytest.approx(value, abs=0.1)
    found = find_published(config_in(config, 'h14'), (512, 2048), result.flops)
    assert (found['flops'], found['follows']) == (published, False)
    assert found['verdict'].startswith('published, not reproduced')


def test_last_published_digits_of_mask_rcnn():
    result = counted(f'{MASK}small-h14_fpn_amp-1x_coco')
    assert published_shape(config_in(f'{MASK}small-h14_fpn_amp-1x_coco')) == (800, 1280)
    flops = {part.name: round(part.flops / 1e9, 1) for part in result.parts}
    assert flops == {
        'backbone': 98.8,
        'neck': 52.2,
        'rpn_head': 50.6,
        'roi_head.bbox_head': 14.3,
        'roi_head.mask_head': 53.0,
    }
    assert (round(result.flops / 1e9, 1), round(result.params / 1e6, 2)) == (268.8, 41.20)


def test_last_published_digits_of_segmentation_and_pose():
    shapes = {
        (f'fpn_uniformer-small-global{FPN}', 'global'): ((512, 2048), 246.5),
        (f'fpn_uniformer-small-global{FPN}', 'h32'): ((512, 2048), 198.2),
        (f'fpn_uniformer-small-global{FPN}', 'w32'): ((512, 2048), 182.1),
        ('td-hm_uniformer-small_8xb128-210e_coco-384x288', 'global'): ((384, 288), 11.1),
    }
    for key, (shape, flops) in shapes.items():
        assert published_shape(config_in(*key)) == shape
        assert round(counted(*key).flops / 1e9, 1) == flops


def test_a_cascade_counts_each_of_its_heads():
    parts = counted(f'{CASCADE}small-h14_fpn_amp-ms-crop-3x_coco').parts
    assert [part.name for part in parts[3:]] == [
        *(f'roi_head.bbox_head.{stage}' for stage in range(3)),
        *(f'roi_head.mask_head.{stage}' for stage in range(3)),
    ]


def test_auxiliary_heads_count():
    names = [part.name for part in counted(f'upernet_uniformer-small-global{UPER}', 'w32').parts]
    assert names == ['backbone', 'decode_head', 'auxiliary_head']


METAFILES = sorted((ROOT / 'configs').glob('*/metafile.yml'))
ROWS = [model for metafile in METAFILES for model in load_models(metafile)]


@pytest.mark.parametrize('model', with_slow_ones(ROWS, lambda model: model['Name']))
def test_metafiles_hold_what_is_counted(model):
    figures, config = model['Metadata'], Path(model['Config']).stem
    result = counted(config, figures.get('Test Layout'))
    assert figures['Parameters (M)'] == pytest.approx(result.params / 1e6, abs=0.006)
    if 'FLOPs (G)' in figures and figures.get('FLOPs Reproduced', True):
        last_digit = 0.5 * 10.0 ** -len(str(figures['FLOPs (G)']).partition('.')[2])
        found = pytest.approx(result.flops / 1e9, rel=0.01, abs=last_digit)
        assert figures['FLOPs (G)'] == found


def test_figures_of_clips_that_do_not_follow_from_the_count():
    config = 'uniformer-light-xxs_imagenet1k-pre_8xb32-u8-110e_kinetics400-rgb-160x160'
    cfg = config_in(config)
    assert (published_shape(cfg), clip_views(cfg)) == ((160, 160), (8, 1))
    found = find_published(cfg, (160, 160), counted(config).flops)
    assert found['verdict'] == 'published, not reproduced (-2.3%)'
    rounded = config.replace('160', '128')
    assert find_published(config_in(rounded), (128, 128), 2.022e9)['verdict'].startswith('reprod')


# The command.


@pytest.fixture
def own(tmp_path):
    """Two configs with a metafile beside them."""
    (tmp_path / 'head.py').write_text(
        "default_scope = 'mmseg'\n"
        "norm_cfg = dict(type='SyncBN')\n"
        "model = dict(type='EncoderDecoder',\n"
        "    backbone=dict(type='mmuniformer.UniFormer', arch='nano', window_size=7),\n"
        "    decode_head=dict(type='FCNHead', in_channels=128, channels=8, num_convs=1,\n"
        '        num_classes=2, norm_cfg=norm_cfg, concat_input=False))\n'
    )
    row = {'Provenance': 'published', 'Test Layout': 'global', 'FLOPs (G)': 10.6}
    rows = [row, row | {'Test Layout': 'w7', 'FLOPs (G)': 9}]
    models = [{'Name': str(i), 'Config': 'x/head.py', 'Metadata': r} for i, r in enumerate(rows)]
    (tmp_path / 'metafile.yml').write_text(json.dumps({'Models': models}))
    pytest.importorskip('mmseg')
    return str(tmp_path / 'head.py')


def run(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=False)


def test_command_prints_a_table_and_the_published_figure(own):
    lines = run(own).output.splitlines()
    assert lines[0] == 'head at 512 x 2048'
    (total,) = (line for line in lines if 'total' in line)
    assert total.split()[-2] == '100.0%'
    assert lines[-1].startswith('FLOPs: 10.6 G published: reproduced (+0.')
    assert not any('decode_head' in line and ' 0.000' in line for line in lines)


def test_command_prints_json(own):
    result = json.loads(run(own, '--json').output)
    assert (result['config'], result['shape']) == ('head', [512, 2048])
    assert result['flops'] == sum(part['flops'] for part in result['parts'])
    assert result['params'] == sum(part['params'] for part in result['parts'])
    assert [part['name'] for part in result['parts']] == ['backbone', 'decode_head']
    assert result['published']['flops'] == 10.6
    # 3 x 3 convolution of 128 to 8 channels and the classifier of 8 to 2, on stage 4's grid.
    assert result['parts'][1]['flops'] == 16 * 64 * (9 * 128 * 8 + 8 * 2)


def test_options_choose_the_row_of_the_layout(own):
    options = ['--cfg-options', 'model.backbone.stage3_attn=window', 'model.backbone.window_size=7']
    result = json.loads(run(own, '--json', *options).output)
    assert result['published']['flops'] == 9
    assert result['flops'] < json.loads(run(own, '--json').output)['flops']
    options[-1] = 'model.backbone.window_size=8'
    assert 'published' not in json.loads(run(own, '--json', *options).output)


@pytest.mark.parametrize(
    'args', [('--shape', 64, 96), ('--cfg-options', 'model.decode_head.channels=16')]
)
def test_no_published_figure_for_another_size_or_network(own, args):
    result = json.loads(run(own, '--json', *args).output)
    assert 'published' not in result
    assert result['flops'] > 0


@pytest.mark.parametrize(
    ('flops', 'follows', 'text'),
    [
        (100, True, 'reproduced (+0.9%)'),
        (100, False, 'published, not reproduced (+0.9%)'),
        (90, True, 'published, not reproduced (+12.1%)'),
    ],
)
def test_verdict(own, flops, follows, text):
    figures = {'FLOPs (G)': flops, 'FLOPs Reproduced': follows}
    row = {'Name': 'head', 'Config': 'x/head.py', 'Metadata': figures}
    Path(own).with_name('metafile.yml').write_text(json.dumps({'Models': [row]}))
    found = find_published(load_config(own), (512, 2048), 100_900_000_000)
    assert found == {'flops': flops, 'follows': follows, 'verdict': text}


def test_layouts_by_their_short_names(own):
    names = {
        'window': 'w7', 'hybrid': 'h7', 'global': 'global', 'auto': 'auto',
    }  # fmt: skip
    for attn, name in names.items():
        assert Layout.of(load_config(own, {'model.backbone.stage3_attn': attn})).name == name
    light = {'model.backbone.type': 'mmuniformer.UniFormerLight'}
    assert Layout.of(load_config(own, light)).name == 'hourglass'


def test_no_metafile_no_published_figure(own):
    Path(own).with_name('metafile.yml').unlink()
    assert find_published(load_config(own), (512, 2048), 10**10) is None


def test_bad_input(own, tmp_path):
    with pytest.raises(UserError, match='nothing.py: no such file'):
        run('nothing.py')
    with pytest.raises(UserError, match='32, resize or pad'):
        run(own, '--shape', 31, 64)
    (tmp_path / 'bare.py').write_text("model = dict(type='mmuniformer.UniFormer', arch='nano')\n")
    with pytest.raises(UserError, match='--shape'):
        run(tmp_path / 'bare.py')
    result = json.loads(run(tmp_path / 'bare.py', '--shape', 64, 64, '--json').output)
    assert result['params'] == 473_824
    (tmp_path / 'empty.py').write_text('a = 1\n')
    with pytest.raises(UserError, match='no `model`'):
        run(tmp_path / 'empty.py', '--shape', 64, 64)


@pytest.mark.parametrize('task', ['det', 'seg', 'pose'])
def test_new_style_configs_cost_what_those_with_strings_do(task, tmp_path):
    pytest.importorskip(FRAMEWORKS[task])
    new, old = write_new_style(tmp_path, task), write_with_strings(tmp_path, task)
    assert load_config(new).get('default_scope') is None
    found, wanted = (json.loads(run(path, '--json').output) for path in (new, old))
    assert found['config'] == 'new'
    assert found | {'config': 'strings'} == wanted
    assert found['shape'] == {'det': [800, 1280], 'seg': [512, 2048], 'pose': [96, 64]}[task]
    assert Layout.of(load_config(new)).name == Layout.of(load_config(old)).name == 'h2'


@pytest.mark.parametrize('figures', [{'Epochs': 12}, None])
def test_a_metafile_of_another_project_is_no_obstacle(own, figures):
    row = {'Name': 'head', 'Config': 'x/head.py', 'Metadata': figures}
    row['Results'] = [{'Metrics': {'mIoU': 40.5}}]
    Path(own).with_name('metafile.yml').write_text(json.dumps({'Models': [row]}))
    assert 'published' not in json.loads(run(own, '--json').output)
    assert stated_accuracy(own, 'global') == '40.5 mIoU (published)'


def test_stages_are_counted_where_the_counter_knows_no_modules(monkeypatch):
    class Old(complexity_module.FlopCounterMode):
        """Like that of PyTorch 2.1 and 2.2, which knows no modules."""

        def get_flop_counts(self):
            return {'Global': dict(super().get_flop_counts()['Global'])}

    model = build(UniFormer, 'nano')
    wanted = count(model)
    monkeypatch.setattr(complexity_module, 'FlopCounterMode', Old)
    assert count(model) == wanted
    assert [stage.flops for stage in wanted.parts] == expected_flops(model, 224, 224)
