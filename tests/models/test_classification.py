"""Classifiers of images and clips agree with the released networks' figures, in float64."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmuniformer.models import (
    LightClsHead,
    TokenLabelHead,
    UniFormer,
    UniFormer3D,
    UniFormerLight,
    UniFormerLight3D,
)
from mmuniformer.models import uniformer as uniformer_module
from mmuniformer.models.heads import ClsHead, soft_cross_entropy, token_label_losses
from mmuniformer.models.mix_token import TokenBox
from mmuniformer.models.weights.inflation import inflate
from mmuniformer.models.weights.released import CLASSIFIER_LAYERS, name_classifier

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'classification.json').read_text())
LIGHT_NETS = ('light', 'light_ls')


class Whole(nn.Module):
    """A backbone and a head, as the frameworks put them together."""

    def __init__(self, net, arch, num_classes=1000, dims=2, **kwargs):
        super().__init__()
        kinds = {2: (UniFormer, UniFormerLight), 3: (UniFormer3D, UniFormerLight3D)}[dims]
        kwargs |= dict(out_indices=(3,), out_norm='BN')
        if net == 'token_label':
            kwargs |= dict(mix_token=True) | ({} if arch == 'large_ls' else dict(head_dim=32))
        if net in LIGHT_NETS:
            kwargs |= dict(out_cls_token=True)
        if net == 'light_ls':
            kwargs |= dict(layer_scale_init_value=0.1)
        arch = {'large_ls': 'large', 'nano_light': 'nano'}.get(arch, arch)
        self.backbone = kinds[net in LIGHT_NETS](arch, **kwargs)
        head = {'token_label': TokenLabelHead}.get(net, ClsHead)
        head = LightClsHead if net in LIGHT_NETS else head
        self.head = head(num_classes, self.backbone.embed_dims[-1])

    def forward(self, x):
        """What training returns in training, else the logits of inference."""
        feats = self.backbone(x)
        if self.training and type(self.head) is not ClsHead:
            return self.head.train_logits(feats)
        return (self.head(feats),)


def build(case):
    options = {k: case[k] for k in ('num_classes', 'dims', 'split', 'norm_eval') if k in case}
    if case.get('std'):
        options['time_kernels'] = (3, 3, 3, 3)
    return Whole(case['net'], case['arch'], **options)


def released_keys(model):
    state = {key: torch.empty(0) for key in model.state_dict()}
    return dict(zip(state, name_classifier(state, CLASSIFIER_LAYERS.__contains__, ''), strict=True))


def fill(model):
    names = released_keys(model)
    shapes = {names[key]: value.shape for key, value in model.state_dict().items()}
    weights = reference.formula_state(shapes)
    model.load_state_dict({key: weights[name] for key, name in names.items()})
    return model.double()


def run(case, model):
    """The outputs of a case, by their names in the reference."""
    model.train(case['train'])
    seen = {}
    for name, module in (('stage4', model.backbone.blocks4[-1]), ('norm', model.backbone.norm)):
        module.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(
                name, out[0] if isinstance(out, tuple) else out
            )
        )
    with torch.set_grad_enabled(case['train']):
        returned = model(reference.formula_image(case['input']))
    names = {2: ('cls', 'aux') if case['net'] == 'token_label' else ('logits', 'logits_cls_token')}
    seen |= zip(names.get(len(returned), ('logits',)), returned, strict=True)
    return seen, returned


def worst_error(outs, outputs):
    errors = []
    for expected in outputs:
        if expected['name'] in outs:
            out = outs[expected['name']]
            assert list(out.shape) == expected['shape']
            got = out.detach().flatten()[expected['index']].numpy()
            errors.append(np.abs(got - expected['value']).max() / expected['absmax'])
    assert len(errors) >= 2
    return max(errors)


def case_id(case):
    flags = [flag for flag in ('train', 'norm_eval', 'split', 'std', 'inflated') if case.get(flag)]
    return '-'.join(map(str, (case['net'], case['arch'], *case['input'][1:], *flags)))


def params(chosen):
    return [
        pytest.param(case, id=case_id(case), marks=[pytest.mark.slow] * (case['params'] > 2e7))
        for case in GOLDEN['cases']
        if chosen(case)
    ]


@pytest.mark.parametrize('case', params(lambda c: not c['train'] and not c.get('inflated')))
def test_inference_agrees_with_released_network(case):
    model = fill(build(case))
    counted = sum(p.numel() for p in model.parameters())
    assert counted == case['params']
    assert worst_error(run(case, model)[0], case['outputs']) < 1e-9


def set_box(case, monkeypatch):
    if 'box' in case:
        monkeypatch.setattr(uniformer_module, 'random_box', lambda *_: TokenBox(*case['box']))


@pytest.mark.parametrize('case', params(lambda c: c['train']))
def test_training_agrees_with_released_network(case, monkeypatch):
    set_box(case, monkeypatch)
    model = fill(build(case))
    outs, returned = run(case, model)
    assert worst_error(outs, case['outputs']) < 1e-9
    weights = [np.random.RandomState(100 + p).standard_normal(o.shape) for p, o in
               enumerate(returned)]  # fmt: skip
    loss = sum((o * torch.tensor(w)).mean() for o, w in zip(returned, weights, strict=True))
    assert loss.item() == pytest.approx(case['loss'], rel=1e-9)
    loss.backward()
    names = released_keys(model)
    norms = {names[key]: p.grad.norm().item() for key, p in model.named_parameters()}
    expected = {key: value or 0 for key, value in case['grad_norm'].items()}
    got = {key: norms[key] for key in expected}
    assert got == pytest.approx(expected, abs=1e-9 * case['grad_scale'])
    state = {names[key]: value for key, value in model.state_dict().items()}
    for buffer in case.get('running', ()):
        got = state[buffer['name']].flatten()[buffer['index']]
        assert got.tolist() == pytest.approx(buffer['value'], rel=1e-9)


@pytest.mark.parametrize(
    'case', params(lambda c: 'token_label_loss' in c or 'official_loss' in c)
)  # fmt: skip
def test_losses_agree_with_released_training(case, monkeypatch):
    set_box(case, monkeypatch)
    model = fill(build(case))
    _, returned = run(case, model)
    if case['net'] in LIGHT_NETS:
        target = softmax_target(returned[0].shape)
        loss = sum(0.5 * soft_cross_entropy(out, target) for out in returned)
        assert loss.item() == pytest.approx(case['official_loss'], rel=1e-9)
        return
    cls, aux = returned
    target = softmax_target((*cls.shape, 2 + aux.shape[1]))
    box = TokenBox(*(edge // 8 for edge in case['box']))
    for setting in case['token_label_loss']:
        losses = token_label_losses(cls, aux, target, box, setting['ground_truth'])
        total = setting['cls_weight'] * losses[0] + setting['dense_weight'] * losses[1]
        assert total.item() == pytest.approx(setting['value'], rel=1e-9)


def softmax_target(shape):
    return torch.tensor(np.random.RandomState(200).standard_normal(shape)).softmax(1)


@pytest.mark.parametrize('case', params(lambda c: c.get('inflated')))
def test_inflated_weights_agree_with_released_loader(case):
    model = fill(build(case))
    image = fill(Whole(case['net'], case['arch']))
    ours = model.backbone.state_dict()
    state, kernels = inflate(image.backbone.state_dict(), ours, 'small.pth')
    assert set(kernels) == {key for key, value in ours.items() if value.ndim == 5}
    for expected in case['weights']:
        tensor = state[expected['name']]
        assert list(tensor.shape) == expected['shape']
        got = tensor.flatten()[expected['index']]
        assert got.tolist() == pytest.approx(expected['value'], rel=1e-6)
    # The released loader divides in float32.
    model.backbone.load_state_dict({key: value.float() for key, value in state.items()})
    assert worst_error(run(case, model)[0], case['outputs']) < 1e-7


@pytest.mark.parametrize('name', GOLDEN['keys'])
def test_state_dict_has_released_names_and_shapes(name):
    suite, net, arch = name.split('/')
    arch, _, split = arch.partition('-')
    options = dict(dims=3) if suite == 'video' else {}
    if split:
        options['split'] = True
    classes = 400 if suite == 'video' else 1000
    with torch.device('meta'):
        model = Whole(net, arch, classes, **options)
    keys = released_keys(model)
    shapes = {keys[key]: tuple(value.shape) for key, value in model.state_dict().items()}
    text = '\n'.join(f'{key} {shape}' for key, shape in sorted(shapes.items()))
    assert len(shapes) == GOLDEN['keys'][name]['count']
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN['keys'][name]['sha256']


@pytest.mark.parametrize(
    'key',
    ['blocks1.0.pos_embed.weight', 'patch_embed1.proj.weight', 'norm.running_var',
     'blocks3.0.t_attn.qkv.bias', 'blocks4.0.t_norm.weight'],
)  # fmt: skip
def test_one_perturbed_weight_breaks_parity(key):
    (case,) = (c for c in GOLDEN['cases'] if c.get('split'))
    model = fill(build(case))
    model.backbone.state_dict()[key].flatten()[:1] += 1e-3
    assert worst_error(run(case, model)[0], case['outputs']) > 1e-8


@pytest.mark.parametrize(
    ('label', 'target'), [(torch.tensor([0]), 1.0), (torch.tensor([0.3]), 0.3)]
)
def test_one_class_has_indices_and_scores(label, target):
    sample = BaseDataElement(gt_label=label)
    assert TokenLabelHead(1, 8, label_smooth=0).targets([sample]).tolist() == [
        [pytest.approx(target)]
    ]
