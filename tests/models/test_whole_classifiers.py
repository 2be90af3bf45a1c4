"""The backbones and heads in mmpretrain's and mmaction2's own models."""

import importlib

import pytest
import torch

pytest.importorskip('mmpretrain', reason='needs mmpretrain: make install')
pytest.importorskip('mmaction', reason='needs mmaction2: make install')

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope='module', autouse=True)
def fixed():
    """mmaction's models import with the package's fixes only."""
    import mmuniformer  # noqa: F401


def classifier(backbone=None, head=None, **parts):
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS

    init_default_scope('mmpretrain')
    import mmpretrain.models  # noqa: F401

    backbone = dict(type='mmuniformer.UniFormer', arch='nano', out_indices=(3,), out_norm='BN') | (
        backbone or {}
    )
    head = dict(num_classes=5, in_channels=128) | (head or {})
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head, **parts))


def recognizer(backbone=None, head=None):
    from mmaction.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmaction')
    import mmaction.models  # noqa: F401

    backbone = dict(type='mmuniformer.UniFormer3D', arch='nano') | (backbone or {})
    head = dict(num_classes=5, in_channels=128) | (head or {})
    return MODELS.build(dict(type='Recognizer3D', backbone=backbone, cls_head=head))


def images_and_samples(count=4):
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(i % 5) for i in range(count)]
    return torch.rand(count, 3, 64, 64), samples


def clips_and_samples(count=2, views=1):
    from mmaction.structures import ActionDataSample

    samples = [ActionDataSample().set_gt_label(i) for i in range(count)]
    return torch.rand(count, views, 3, 4, 64, 64), samples


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def assert_all_trained(model, losses):
    total(losses).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(('heading', 'scope'), [('Images', 'mmpretrain'), ('Clips', 'mmaction')])
def test_models_of_the_guide_run(repository, heading, scope):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    page = (repository / 'docs' / 'classification.md').read_text()
    code = page.partition(f'## {heading}\n')[2].partition('```python\n')[2].partition('```')[0]
    cfg = Config.fromstring(code, '.py').model
    init_default_scope(scope)
    importlib.import_module(f'{scope}.models')
    model = MODELS.build(cfg).eval()
    inputs = torch.rand((1, 3, 64, 64) if scope == 'mmpretrain' else (1, 1, 3, 2, 64, 64))
    options = {} if scope == 'mmpretrain' else dict(stage='head')
    with torch.no_grad():
        out = model(inputs, mode='tensor', **options)
    assert (out[0] if isinstance(out, tuple) else out).shape[-1] == cfg.get(
        'head', cfg.get('cls_head')
    ).num_classes


def test_stock_classifier_trains_and_predicts():
    model = classifier(head=dict(type='LinearClsHead'), neck=dict(type='GlobalAveragePooling'))
    images, samples = images_and_samples()
    assert_all_trained(model, model(images, samples, mode='loss'))
    found = model.eval()(images, samples, mode='predict')
    assert found[0].pred_score.sum().item() == pytest.approx(1)


def test_token_label_head_trains_with_and_without_token_labels():
    model = classifier(dict(mix_token=True), dict(type='mmuniformer.TokenLabelHead'))
    images, samples = images_and_samples()
    assert_all_trained(model, model(images, samples, mode='loss'))
    for sample in samples:
        sample.set_field(torch.rand(5, 2 + 4).softmax(0), 'token_labels')
    losses = model(images, samples, mode='loss')
    assert losses.keys() == {'loss_cls', 'loss_dense'}
    with torch.no_grad():
        found = model.eval()(images, samples, mode='predict')
        logits = model(images)
    assert [int(sample.pred_label) for sample in found] == logits.argmax(1).tolist()
    torch.testing.assert_close(found[1].pred_score, logits[1].softmax(0))
    from mmuniformer.errors import UserError

    for sample in samples:
        sample.set_field(torch.rand(5, 2 + 9), 'token_labels')
    with pytest.raises(UserError, match='samples have 9 token labels of 5 classes, the network 4'):
        model.train()(images, samples, mode='loss')


@pytest.mark.parametrize('dims', [2, 3])
def test_light_head_trains_both_classifiers(dims):
    head = dict(type='mmuniformer.LightClsHead')
    if dims == 2:
        model = classifier(dict(type='mmuniformer.UniFormerLight', out_cls_token=True), head)
        inputs, samples = images_and_samples()
    else:
        model = recognizer(dict(type='mmuniformer.UniFormerLight3D', out_cls_token=True), head)
        inputs, samples = clips_and_samples()
    losses = model(inputs, samples, mode='loss')
    assert losses.keys() == {'loss_cls', 'loss_token'}
    assert_all_trained(model, losses)
    found = model.eval()(inputs, samples, mode='predict')
    assert found[1].pred_score.shape == (5,)


def test_stock_recognizer_trains_and_sums_logits_of_views():
    model = recognizer(head=dict(type='I3DHead', dropout_ratio=0.0, average_clips='score'))
    inputs, samples = clips_and_samples()
    assert_all_trained(model, model(inputs, samples, mode='loss'))
    inputs, samples = clips_and_samples(views=3)
    with torch.no_grad():
        found = model.eval()(inputs, samples, mode='predict')
        logits = model.cls_head(model.backbone(inputs.flatten(0, 1))).view(2, 3, 5)
    torch.testing.assert_close(found[0].pred_score, logits[0].mean(0))


def test_our_head_sums_logits_of_views():
    model = recognizer(
        dict(type='mmuniformer.UniFormerLight3D', out_cls_token=True),
        dict(type='mmuniformer.LightClsHead'),
    )
    inputs, samples = clips_and_samples(views=3)
    with torch.no_grad():
        found = model.eval()(inputs, samples, mode='predict')
        logits = model.cls_head(model.backbone(inputs.flatten(0, 1))).view(2, 3, 5)
    torch.testing.assert_close(found[1].pred_score, logits[1].mean(0).softmax(0))


def test_soft_labels_of_both_frameworks_mean_the_same():
    from mmaction.structures import ActionDataSample
    from mmpretrain.structures import DataSample

    from mmuniformer.models import LightClsHead

    mixed = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0])
    head = LightClsHead(5, 8, label_smooth=0.1)
    image = head.targets([DataSample().set_gt_label(1).set_gt_score(mixed)])
    clip = head.targets([ActionDataSample().set_gt_label(mixed)])
    torch.testing.assert_close(image, clip)
    assert image[0].tolist() == pytest.approx([0.47, 0.02, 0.47, 0.02, 0.02])
    hard = head.targets([ActionDataSample().set_gt_label(1)])
    assert hard[0].tolist() == pytest.approx([0.02, 0.92, 0.02, 0.02, 0.02])


@pytest.mark.parametrize('eps', [1e-5, 1e-6])
def test_agrees_with_uniformer_of_mmaction2(eps):
    """Their weights fit by name and, with their epsilon, give what they give there."""
    from mmaction.models.backbones.uniformer import UniFormer as Theirs

    from mmuniformer.models import UniFormer3D

    shape = dict(depths=[1, 2, 4, 1], embed_dims=[16, 32, 64, 128], head_dim=16)
    torch.manual_seed(0)
    theirs = Theirs(depth=shape.pop('depths'), embed_dim=shape.pop('embed_dims'), **shape,
                    pretrained2d=False).double().eval()  # fmt: skip
    for name, value in theirs.state_dict().items():
        if name.endswith(('running_mean', 'bias')):
            value.normal_(0, 0.1)
    for p in theirs.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, 0, p[0].numel() ** -0.5)
    ours = UniFormer3D('nano', layer_norm_eps=eps).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 8, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        error = (ours(x) - theirs(x)).abs().max() / ours(x).abs().max()
    assert error < 1e-12 if eps == 1e-5 else error > 1e-9
