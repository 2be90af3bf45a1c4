"""Folding for deployment changes no output, and its weights are not mistaken for plain ones."""

import pytest
import reference
import torch
from torch import nn

from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.layers import DynamicPositionEmbedding

CASES = {
    'global': (UniFormer, {}),
    'hybrid with padding': (UniFormer, dict(stage3_attn='hybrid', window_size=3)),
    'conv stem, no qkv bias': (UniFormer, dict(conv_stem=True, qkv_bias=False)),
    'LayerScale': (UniFormer, dict(layer_scale_init_value=1e-6, stage3_attn='window')),
    'hourglass': (UniFormerLight, {}),
    'hourglass with LayerScale': (UniFormerLight, dict(layer_scale_init_value=1e-6)),
    'first stages only': (UniFormer, dict(out_indices=(0, 1))),
}


def filled(backbone, **kwargs):
    model = backbone('nano', **kwargs)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(reference.formula_state(shapes))
    return model.eval()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('name', CASES)
@torch.no_grad()
def test_outputs_stay_equal(name, dtype):
    backbone, kwargs = CASES[name]
    model = filled(backbone, **kwargs).to(dtype)
    x = reference.formula_image((2, 3, 75, 112)).to(dtype)
    expected = model(x)
    model.switch_to_deploy()
    tolerance = 1e-11 if dtype is torch.float64 else 1e-5
    for out, ref in zip(model(x), expected, strict=True):
        assert (out - ref).abs().max() <= tolerance * ref.abs().max()


def test_folds_everything_but_the_norm_before_windows():
    model = filled(UniFormer, layer_scale_init_value=1, conv_stem=True)
    model.switch_to_deploy()
    kinds = [type(module) for module in model.modules()]
    assert nn.BatchNorm2d not in kinds
    assert DynamicPositionEmbedding not in kinds
    assert not [name for name, module in model.named_modules() if module.training]
    affine = {name for name, m in model.named_modules()
              if isinstance(m, nn.LayerNorm) and m.elementwise_affine}  # fmt: skip
    assert affine == {f'blocks3.{i}.norm1' for i in range(4)} | {f'norm{i}' for i in range(1, 5)}
    assert not [name for name, _ in model.named_parameters() if 'gamma' in name]


@torch.no_grad()
def test_layouts_still_switch():
    plain, model = filled(UniFormer), filled(UniFormer)
    model.switch_to_deploy()
    x = reference.formula_image((1, 3, 64, 96)).float()
    for model_or_plain in (plain, model):
        model_or_plain.set_stage3_attn('window', 3)
    for out, ref in zip(model(x), plain(x), strict=True):
        assert (out - ref).abs().max() <= 1e-5 * ref.abs().max()


def test_refuses_to_fold_or_train_in_the_wrong_mode():
    model = UniFormer('nano').train()
    with pytest.raises(RuntimeError, match=r'call eval\(\) first'):
        model.switch_to_deploy()
    model.eval().switch_to_deploy()
    model.switch_to_deploy()
    with pytest.raises(RuntimeError, match='deployed model cannot train'):
        model.train()


@pytest.mark.parametrize('whole', [False, True], ids=['backbone', 'whole model'])
def test_weights_say_what_they_are(whole):
    def build(deploy):
        model = filled(UniFormer)
        if deploy:
            model.switch_to_deploy()
        return nn.ModuleDict({'backbone': model}) if whole else model

    deployed, plain = build(True), build(False)
    with pytest.raises(CheckpointError, match='deployed weights do not go into a plain model'):
        plain.load_state_dict(deployed.state_dict(), strict=False)
    with pytest.raises(CheckpointError, match='plain weights do not go into a deployed model'):
        deployed.load_state_dict(plain.state_dict(), strict=False)
    build(True).load_state_dict(deployed.state_dict())
