"""Arguments, layouts, freezing and initial weights of the backbones."""

import copy
import inspect
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch_versions import compiles

from mmuniformer.models import UniFormer, UniFormer3D, UniFormerLight, UniFormerLight3D
from mmuniformer.models.layers import DropPath

BOTH = pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
# Of the four-stage backbone with output norms, as published.
PARAMETERS = {
    (UniFormer, 'small'): 21_033_280,
    (UniFormer, 'small_plus'): 23_520_576,
    (UniFormer, 'base'): 49_264_576,
    (UniFormer, 'base_ls'): 49_264_576 + 2 * (20 * 320 + 7 * 512),
    (UniFormer, 'large'): 98_823_424,
    (UniFormerLight, 'xs'): 15_483_136,
    (UniFormerLight, 'xxs'): 9_317_168,
}


def images(height=64, width=96, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(('backbone', 'arch'), PARAMETERS)
def test_parameter_counts(backbone, arch):
    with torch.device('meta'):
        model = backbone(arch)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[backbone, arch]


@BOTH
@pytest.mark.parametrize(('height', 'width'), [(32, 32), (33, 47), (63, 64), (65, 129), (100, 32)])
def test_any_size_from_32_up_gives_floored_strides(backbone, height, width):
    outs = backbone('nano').eval()(images(height, width, batch=2))
    if backbone is UniFormer:  # patch embeddings floor; the convolutional stem rounds up
        sizes = [(height // s, width // s) for s in (4, 8, 16, 32)]
        assert [tuple(out.shape[2:]) for out in outs] == sizes
    assert [out.shape[1] for out in outs] == [16, 32, 64, 128]
    assert all(out.is_contiguous() and out.isfinite().all() for out in outs)


@BOTH
def test_registered_under_scope_and_plain_name(backbone):
    for name in (f'mmuniformer.{backbone.__name__}', backbone.__name__):
        assert type(MODELS.build(dict(type=name, arch='nano'))) is backbone


def test_preset_fields_can_be_overridden():
    model = UniFormer('nano', depths=[1, 1, 2, 1], head_dim=32, mlp_ratios=2, conv_stem=True)
    assert model.depths == (1, 1, 2, 1)
    assert model.blocks(2)[0].attn.num_heads == 2
    assert model.blocks(0)[0].mlp.fc1.out_channels == 32
    assert type(model.patch_embed4).__name__ == 'ConvEmbed'


def test_arch_can_be_a_mapping():
    arch = dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], head_dim=8)
    assert [out.shape[1] for out in UniFormer(arch)(images())] == [8, 8, 16, 16]


BAD_ARGUMENTS = {
    'arch': (dict(arch='tiny'), "arch='tiny' is unknown: choose one of nano, small"),
    'arch key': (
        dict(arch=dict(embed_dims=[8] * 4, depths=[1] * 4, dims=3)), r"unknown keys \['dims'\]"),
    'arch lacks': (dict(arch=dict(depths=[1] * 4)), r"arch lacks \['embed_dims'\]"),
    'depths': (dict(depths=(1, 1, 1)), r'depths=\(1, 1, 1\) should have 4 entries'),
    'zero depth': (dict(depths=(1, 1, 0, 1)), 'integers from 1 up'),
    'head_dim': (dict(head_dim=48), 'head_dim=48 does not divide the 64 channels of stage 3'),
    'head_dim zero': (dict(head_dim=0), 'head_dim=0 should be an integer'),
    'mlp_ratios': (dict(mlp_ratios=0), 'mlp_ratios'),
    'layer scale': (dict(layer_scale_init_value=-1), 'layer_scale_init_value'),
    'in_channels': (dict(in_channels=0), 'in_channels=0'),
    'window': (dict(window_size=0), 'window_size=0 should be an integer from 1 up'),
    'window kind': (dict(window_size=7.5), 'window_size=7.5 should be an integer'),
    'layout': (dict(stage3_attn='local'), "stage3_attn='local' is unknown"),
    'layout length': (dict(stage3_attn=['global']), 'should have 4 entries, one a block'),
    'layout entry': (dict(stage3_attn=['global'] * 3 + ['hybrid']), "each 'global' or 'window'"),
    'out_indices': (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\)'),
    'out_indices order': (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\)'),
    'out_indices twice': (dict(out_indices=(1, 1)), r'out_indices=\(1, 1\)'),
    'no out_indices': (dict(out_indices=()), r'out_indices=\(\)'),
    'frozen_stages': (dict(frozen_stages=5), 'frozen_stages=5'),
    'with_cp': (dict(with_cp=(1, 1)), r'with_cp=\(1, 1\)'),
    'with_cp word': (dict(with_cp='all'), "with_cp='all'"),
    'with_cp count': (dict(with_cp=(1, 9, 0, 0)), r'with_cp=\(1, 9, 0, 0\)'),
    'drop_path_rate': (dict(drop_path_rate=1.0), r'drop_path_rate=1.0 should lie in \[0, 1\)'),
    'attn_drop_rate': (dict(attn_drop_rate=-0.1), 'attn_drop_rate=-0.1'),
    'token_budget': (dict(token_budget=0), 'token_budget=0'),
    'arch kind': (dict(arch=5), 'arch=5 should be a dict, or one of nano, small'),
    'mlp_ratios text': (dict(mlp_ratios='abc'), "mlp_ratios='abc' should have 4 entries"),
    'mlp_ratios NaN': (dict(mlp_ratios=float('nan')), r'mlp_ratios=\(nan, .* a finite number'),
    'layout number': (dict(stage3_attn=7), 'stage3_attn=7 should have 4 entries'),
    'layout lists': (dict(stage3_attn=[[]] * 4), r'stage3_attn=\[\[\], .* 4 entries'),
    'switch': (dict(fused_attn='no'), "fused_attn='no' should be True or False"),
    'conv_stem': (dict(conv_stem=[0, 1, 2, 0]), r'conv_stem=\(0, 1, 2, 0\) should be True or'),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD_ARGUMENTS)
def test_bad_argument_is_named_with_its_value(name):
    kwargs, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        UniFormer(**{'arch': 'nano'} | kwargs)


BAD_LIGHT_ARGUMENTS = {
    'depth': (dict(keep_ratios=((1, 0.5), (0.5, 0.5))), 'one entry a block'),
    'flat': (dict(keep_ratios=[0.5] * 4), 'one entry a block'),
    'texts': (dict(keep_ratios=(['a'] * 4, ['a'] * 2)), 'keep_ratios=.* numbers alone'),
    'range': (dict(keep_ratios=((1, 0.5, 0.5, 0), (0.5, 0.5))), r'lie in \(0, 1\]'),
    'first': (dict(keep_ratios=((0.5,) * 4, (0.5, 0.5))), 'should start with 1'),
    'trade_offs': (dict(trade_offs=((2,) * 4, (0.5, 0.5))), r'lie in \[0, 1\]'),
    'conv_stem': (dict(conv_stem=True), 'conv_stem'),
}


@pytest.mark.parametrize('name', BAD_LIGHT_ARGUMENTS)
def test_bad_light_argument_is_named_with_its_value(name):
    kwargs, message = BAD_LIGHT_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        UniFormerLight('nano', **kwargs)


BAD_INPUTS = {
    'integers': (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, 'torch.uint8'),
    'no tensor': ([1], TypeError, 'not list'),
    'no batch': (torch.zeros(3, 64, 64), ValueError, r'not \(3, 64, 64\)'),
    'channels': (torch.zeros(1, 1, 64, 64), ValueError, r'takes \(B, 3, H, W\)'),
    'small': (torch.zeros(1, 3, 31, 64), ValueError, '31 x 64 .* too small'),
}


@BOTH
@pytest.mark.parametrize('name', BAD_INPUTS)
def test_bad_input_is_refused(backbone, name):
    x, error, message = BAD_INPUTS[name]
    with pytest.raises(error, match=message):
        backbone('nano')(x)


def test_hybrid_is_global_in_every_fourth_block():
    with torch.device('meta'):
        model = UniFormer('small', stage3_attn='hybrid', window_size=14)
    assert model.window_sizes(4000) == (14, 14, 14, None) * 2


def test_auto_is_global_up_to_the_token_budget_and_hybrid_above():
    model = UniFormer('nano', stage3_attn='auto', window_size=2, token_budget=24)
    assert model.window_sizes(24) == (None,) * 4
    assert model.window_sizes(25) == (2, 2, 2, None)


def test_switching_the_layout_equals_building_it():
    torch.manual_seed(0)
    model = UniFormer('nano', stage3_attn='global').eval()
    outs = {}
    for layout, window in (('window', 2), ('hybrid', 3), ('global', 3)):
        built = UniFormer('nano', stage3_attn=layout, window_size=window).eval()
        built.load_state_dict(model.state_dict())
        model.set_stage3_attn(layout, window)
        outs[layout] = model(images())
        for a, b in zip(outs[layout], built(images()), strict=True):
            assert torch.equal(a, b)
    assert not torch.allclose(outs['window'][2], outs['global'][2])
    assert torch.equal(outs['window'][1], outs['global'][1])


def test_switching_keeps_the_window_unless_told():
    model = UniFormer('nano', window_size=5)
    model.set_stage3_attn('window')
    assert model.window_size == 5
    with pytest.raises(ValueError, match="stage3_attn='swin'"):
        model.set_stage3_attn('swin')


@BOTH
@pytest.mark.parametrize('out_indices', [(3,), (1, 2), (0, 1), (0,)])
def test_only_needed_stages_and_norms_are_built(backbone, out_indices):
    torch.manual_seed(0)
    full, part = backbone('nano').eval(), backbone('nano', out_indices=out_indices).eval()
    part.load_state_dict({k: v for k, v in full.state_dict().items() if k in part.state_dict()})
    with torch.no_grad():
        outs = full(images())
        for out, index in zip(part(images()), out_indices, strict=True):
            assert torch.equal(out, outs[index])
    part.train()
    sum(out.sum() for out in part(images(64, 64, 2))).backward()
    assert all(p.grad is not None for p in part.parameters())


@BOTH
@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages(backbone, frozen_stages):
    model = backbone('nano', frozen_stages=frozen_stages).train()
    free = {name.partition('.')[0] for name, p in model.named_parameters() if p.requires_grad}
    frozen = {f'{part}{i + 1}' for i in range(frozen_stages) for part in ('patch_embed', 'blocks')}
    frozen |= {'patch_embed1'} if frozen_stages >= 0 else set()
    stem = {f'{part}{i + 1}' for i in range(4) for part in ('patch_embed', 'blocks', 'norm')}
    extra = {'cls_token', 'cls_upsample'} if backbone is UniFormerLight else set()
    assert free == (stem | extra) - frozen
    training = {name for name, module in model.named_children() if module.training}
    assert not training & frozen


@BOTH
def test_norm_eval_keeps_running_statistics(backbone):
    model = backbone('nano', norm_eval=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items() if 'running' in k}
    model(images(batch=2))
    assert before
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert model.blocks1[0].drop_path.training


def test_batch_norm_learns_without_norm_eval():
    model = UniFormer('nano').train()
    before = model.blocks1[0].norm1.running_mean.clone()
    model(images(batch=2))
    assert not torch.equal(model.blocks1[0].norm1.running_mean, before)


@BOTH
def test_drop_path_rises_linearly_over_all_blocks(backbone):
    model = backbone('nano', drop_path_rate=0.35)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    step = 0.35 / (len(rates) - 1)
    assert len(rates) == sum(model.depths)
    assert rates == pytest.approx([i * step for i in range(len(rates))])


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(torch.ones(2, 2)), torch.ones(2, 2))


@BOTH
def test_initial_weights(backbone):
    torch.manual_seed(0)
    model = backbone('nano', layer_scale_init_value=1e-6)
    linear = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert linear.std().item() == pytest.approx(0.02, rel=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert (model.blocks3[0].gamma_1 == 1e-6).all()
    assert model.blocks1[0].gamma_2.shape == (1, 16, 1, 1)


def test_layer_scale_per_stage():
    names = {n for n, _ in UniFormer('base_ls', depths=(1, 1, 1, 1)).named_parameters()}
    gammas = {n for n in names if 'gamma' in n}
    assert gammas == {f'blocks{s}.0.gamma_{i}' for s in (3, 4) for i in (1, 2)}


def test_qkv_bias_can_be_left_out():
    assert UniFormer('nano', qkv_bias=False).blocks3[0].attn.qkv.bias is None


DEPTHS = {  # nano: 1 + 2 + 4 + 1 blocks
    'backbone.patch_embed1.proj.weight': 0,
    'backbone.blocks1.0.norm1.weight': 1,
    'backbone.patch_embed2.proj.weight': 2,
    'backbone.blocks2.1.conv1.weight': 3,
    'backbone.blocks3.3.attn.qkv.weight': 7,
    'backbone.patch_embed4.norm.bias': 8,
    'backbone.blocks4.0.mlp.fc2.bias': 8,
    'backbone.norm1.weight': 9,
    'neck.lateral_convs.0.conv.weight': 9,
}


@pytest.mark.parametrize('name', DEPTHS)
def test_layer_depth(name):
    assert UniFormer('nano').get_layer_depth(name, 'backbone.') == (DEPTHS[name], 10)


def test_layer_depth_of_the_class_token():
    model = UniFormerLight('nano')  # 1 + 2 + 4 + 2 blocks
    assert model.get_layer_depth('cls_token') == (4, 11)
    assert model.get_layer_depth('cls_upsample.weight') == (8, 11)
    assert model.get_layer_depth('norm4.weight') == (10, 11)


@BOTH
def test_channels_last_changes_the_layout_only(backbone):
    torch.manual_seed(0)
    fast, plain = backbone('nano').eval(), backbone('nano', channels_last=False).eval()
    plain.load_state_dict(fast.state_dict())
    for a, b in zip(fast(images()), plain(images()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@BOTH
def test_framework_batch_norm_folding_does_no_harm(backbone):
    fuse_conv_bn = pytest.importorskip('mmcv.cnn').fuse_conv_bn

    torch.manual_seed(0)
    model = backbone('nano', conv_stem=(True, True, False, False))
    for _ in range(3):
        model(images(batch=2))
    model.eval()
    expected = model(images())
    for a, b in zip(fuse_conv_bn(model)(images()), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@BOTH
@pytest.mark.parametrize('checkpoint', [None, 'none'])
def test_no_checkpoint_means_from_scratch(backbone, checkpoint):
    torch.manual_seed(0)
    model = backbone('nano', init_cfg=dict(type='Pretrained', checkpoint=checkpoint))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@BOTH
@compiles
@pytest.mark.slow
@torch.no_grad()
def test_further_sizes_are_compiled_no_more(backbone):
    """The second size makes the graph one of any size; PyTorch tells tiny maps on a CPU apart."""
    torch.compiler.reset()
    graphs = []
    model = backbone('nano').eval()
    model.compile(backend=lambda graph, inputs: graphs.append(graph) or graph)
    counts = []
    for height, width in ((416, 448), (480, 512), (544, 416), (448, 640)):
        expected = model.forward(images(height=height, width=width))
        for out, ref in zip(model(images(height=height, width=width)), expected, strict=True):
            torch.testing.assert_close(out, ref, rtol=0, atol=2e-5)
        counts.append(len(graphs))
    torch.compiler.reset()
    assert counts == [1, 2, 2, 2]


@BOTH
def test_an_empty_batch_is_refused(backbone):
    with pytest.raises(ValueError, match='a batch of at least one image'):
        backbone('nano')(torch.zeros(0, 3, 64, 64))


@BOTH
def test_signature_shows_the_shared_arguments(backbone):
    parameters = inspect.signature(backbone).parameters
    own = {
        UniFormer: ['stage3_attn', 'window_size', 'token_budget'],
        UniFormerLight: ['keep_ratios', 'trade_offs'],
    }[backbone]
    assert list(parameters)[: len(own) + 1] == ['arch', *own]
    assert parameters['with_cp'].default == 'parts'
    assert parameters['out_indices'].default == (0, 1, 2, 3)
    assert {p.kind for p in parameters.values()} == {
        inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('backbone', 'name', 'hint'),
    [
        (UniFormer, 'stage3_atn', "did you mean 'stage3_attn'"),
        (UniFormer, 'keep_ratios', "no argument 'keep_ratios'"),
        (UniFormerLight, 'stage3_attn', "no argument 'stage3_attn'"),
        (UniFormerLight, 'keep_ratio', "did you mean 'keep_ratios'"),
    ],
)
def test_unknown_arguments_are_refused_with_the_closest(backbone, name, hint):
    with pytest.raises(TypeError, match=hint):
        backbone('nano', **{name: 'global'})


def test_deep_copies_and_pickles_run_alike():
    model = UniFormer('nano').eval()
    x = images()
    with torch.no_grad():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            for out, ref in zip(other(x), expected, strict=True):
                assert torch.equal(out, ref)


@pytest.mark.frameworks
def test_a_pose_estimator_deploys_its_backbone():
    from mmpose.registry import MODELS

    from mmuniformer.apis.config import load_config, scope_of

    cfg = load_config('td-hm_uniformer-nano_toy-128x96')
    with scope_of(cfg):
        model = MODELS.build(cfg.model).eval()
    x = images(128, 96)
    with torch.no_grad():
        (expected,) = model.backbone(x)
        model.switch_to_deploy()
        (out,) = model.backbone(x)
    assert model.backbone.deployed
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


NAN = float('nan')
ODD = ('abc', '', None, [], {}, {'a': 1}, 1.5, -1, NAN, 10**30, [1, 2], ['a'] * 4, [None] * 4,
       [NAN] * 4, [[1]] * 4, (0,), [0.5] * 4)  # fmt: skip


@pytest.mark.parametrize('kind', [UniFormer, UniFormerLight, UniFormer3D, UniFormerLight3D])
def test_values_of_odd_kinds_are_taken_or_named(kind):
    known = {key for base in (kind, UniFormer) for key in inspect.signature(base).parameters}
    known |= {'keep_ratios', 'trade_offs'} if kind.hourglass else set()
    reasons = {}
    for name in sorted(known - {'init_cfg', 'kwargs', 'fields'}):
        for value in ODD:
            if (name, value) == ('in_channels', 10**30):
                continue  # there is no memory for it
            try:
                kind(**{'arch': 'nano'} | {name: value})
            except (ValueError, TypeError) as error:
                reasons[name, repr(value)] = str(error)
    assert not {key: reason for key, reason in reasons.items() if key[0] not in reason}
    assert len(reasons) > 300


@pytest.mark.parametrize(('network', 'shape'), [(UniFormer, (64, 64)), (UniFormer3D, (4, 64, 64))])
def test_gradients_have_the_strides_of_the_weights(network, shape):
    """Else DDP copies them in every step."""
    model = network(arch='nano').train()
    out = model(torch.randn(2, 3, *shape))
    sum(each.square().sum() for each in (out if isinstance(out, tuple) else [out])).backward()
    depthwise = [m for m in model.modules() if getattr(m, 'groups', 1) > 1]
    assert len(depthwise) == sum(model.depths) + sum(model.depths[:2])
    for layer in depthwise:
        assert layer.weight.grad.stride() == layer.weight.stride()
