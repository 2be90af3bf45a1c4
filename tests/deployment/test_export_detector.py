"""Mask R-CNN in fixed shapes against MMDetection, and how detections are matched."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine import Config

from mmuniformer.apis.config import load_config
from mmuniformer.apis.models import build_model
from mmuniformer.errors import UserError

pytest.importorskip('mmdet')
comparison = pytest.importorskip('mmuniformer.deployment.comparison')
detector = pytest.importorskip('mmuniformer.deployment.detector')

pytestmark = pytest.mark.frameworks
SHAPE = (96, 128)
TOY = 'mask-rcnn_uniformer-nano_fpn_toy'


@pytest.fixture(scope='module')
def model():
    """A toy detector with weights under which it is sure of some boxes."""
    torch.manual_seed(0)
    model = build_model(load_config(TOY))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return model


@pytest.fixture
def image():
    return torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_detections_are_those_of_MMDetection(model, image):
    boxes, scores, labels, masks = detector.Detections(model, SHAPE).eval()(image)
    wanted = detector.detect(model, image)
    count = len(wanted[1])
    assert 5 < count <= len(scores) == model.roi_head.test_cfg.max_per_img
    torch.testing.assert_close(boxes[:count], wanted[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores[:count], wanted[1], rtol=0, atol=1e-6)
    assert labels[:count].tolist() == wanted[2].tolist()
    torch.testing.assert_close(masks[:count], wanted[3], rtol=0, atol=1e-4)
    assert masks.shape == (len(scores), 28, 28)
    assert scores[count:].tolist() == [0.0] * (len(scores) - count)
    assert labels[count:].tolist() == [-1] * (len(scores) - count)


@torch.no_grad()
def test_settings_that_MMDetection_does_not_need_may_be_absent(model, image):
    other = copy.deepcopy(model)
    for name in ('nms_pre', 'min_bbox_size'):
        del other.rpn_head.test_cfg[name]
    boxes, scores, *_ = detector.Detections(other, SHAPE).eval()(image)
    wanted = detector.detect(other, image)
    torch.testing.assert_close(boxes[: len(wanted[0])], wanted[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(scores[: len(wanted[1])], wanted[1], rtol=0, atol=1e-6)


def test_model_equals_itself_and_differs_from_a_perturbed_one(model, image):
    network = detector.Detections(model, SHAPE).eval()

    def expected(image):
        return detector.detect(model, image)

    (found,) = comparison.compare_detections(network, expected, [image, image.flip(3)], 1e-3)
    assert (found['images'], found['surplus']) == (2, 0)
    count = found['detections']
    assert count == found['equal'] > 10
    assert found['result']

    other = copy.deepcopy(model)
    other.roi_head.mask_head.conv_logits.bias.data += 0.5
    (found,) = comparison.compare_detections(
        detector.Detections(other, SHAPE), expected, [image], 1e-3
    )
    assert found['equal'] < found['detections']
    assert not found['result']

    other = copy.deepcopy(model)
    other.backbone.blocks3[0].attn.proj.weight.data *= 1.1
    (found,) = comparison.compare_detections(
        detector.Detections(other, SHAPE), expected, [image], 1e-3
    )
    assert found['equal'] < found['detections']
    assert not found['result']


def detections(box=(8.0, 8.0, 40.0, 40.0), score=0.9, label=1, surplus=0):
    """One detection and padding entries, as a file returns them."""
    boxes = torch.tensor([box] + [[60.0, 60.0, 90.0, 90.0]] * (surplus + 1))
    scores = torch.tensor([score] + [0.4] * surplus + [0.0])
    labels = torch.tensor([label] + [0] * surplus + [-1])
    return boxes, scores, labels, torch.ones(surplus + 2, 28, 28)


@pytest.mark.parametrize(
    ('changes', 'matched', 'passes'),
    [
        ({}, 1, True),
        ({'score': 0.9005}, 1, True),
        ({'score': 0.902}, 0, False),
        ({'label': 2}, 0, False),
        ({'box': (8.0, 8.0, 41.0, 40.0)}, 0, False),
        ({'surplus': 1}, 1, False),
    ],
)
def test_matching(changes, matched, passes):
    theirs = tuple(output[:1] for output in detections())
    (found,) = comparison.compare_detections(
        lambda image: detections(**changes), lambda image: theirs, [torch.zeros(1)], 1e-3
    )
    assert (found['detections'], found['equal']) == (1, matched)
    assert found['result'] is passes


def test_nothing_detected_is_neither_equal_nor_different():
    nothing = tuple(output[:0] for output in detections())
    one = tuple(output[:1] for output in detections())
    for expected, passes in ((one, False), (nothing, None)):
        (found,) = comparison.compare_detections(
            lambda image: nothing, lambda image, expected=expected: expected, [torch.zeros(1)], 1e-3
        )
        assert found['result'] is passes


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'model.test_cfg.rcnn.nms.type': 'soft_nms'}, "nms.type='soft_nms'"),
        ({'model.roi_head.bbox_roi_extractor.roi_layer.aligned': False}, 'SingleRoIExtractor'),
        ({'model.type': 'mmdet.FasterRCNN'}, 'FasterRCNN, only with MaskRCNN: .* --backbone-only'),
    ],
)
def test_detectors_of_other_parts_are_refused(options, reason):
    other = build_model(load_config(TOY, options))
    with pytest.raises(UserError, match=reason):
        detector.Detections(other, SHAPE)


def test_images_are_padded_to_the_one_size(toy_root, model, monkeypatch):
    monkeypatch.setattr(comparison, 'COMPARED_IMAGES', 3)
    cfg = load_config(TOY, {'test_dataloader.dataset.data_root': f'{toy_root}/coco/'})
    found = comparison.images_to_compare(cfg, model, (160, 192))
    assert [tuple(image.shape) for image in found] == [(1, 3, 160, 192)] * 3
    assert found[0][:, :, 128:].abs().max() == 0
    assert found[0][:, :, :128, :128].std() > 0.5
    with pytest.raises(UserError, match='no image of the test data fits into 96 x 192'):
        comparison.images_to_compare(cfg, model, (96, 192))
    with pytest.raises(UserError, match='no test_dataloader.dataset.pipeline'):
        comparison.images_to_compare(Config({}), model, (96, 192))


def test_wrapped_test_data_are_compared_on_too(toy_root, model, monkeypatch):
    monkeypatch.setattr(comparison, 'COMPARED_IMAGES', 2)
    cfg = load_config(TOY, {'test_dataloader.dataset.data_root': f'{toy_root}/coco/'})
    plain = comparison.images_to_compare(cfg, model, (128, 128))
    cfg.test_dataloader.dataset = {
        'type': 'RepeatDataset', 'times': 2, 'dataset': cfg.test_dataloader.dataset
    }  # fmt: skip
    wrapped = comparison.images_to_compare(cfg, model, (128, 128))
    assert len(plain) == len(wrapped) == 2
    assert all(torch.equal(*pair) for pair in zip(plain, wrapped, strict=True))
