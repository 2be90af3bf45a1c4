"""Mask R-CNN from an image to detections in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmuniformer.deployment.operators import nms, roi_align
from mmuniformer.errors import UserError

OUTPUT_NAMES = ('boxes', 'scores', 'labels', 'masks')


class Detections(nn.Module):
    """One image of a fixed size to a Mask R-CNN's detections, as many as the config keeps.

    Returns boxes ``(D, 4)`` in pixels (left, top, right, bottom), scores ``(D,)``, labels ``(D,)``
    and masks ``(D, h, w)``: the probability that a pixel of the box belongs to the object. Padding
    entries have score 0 and label -1.
    """

    def __init__(self, detector: nn.Module, shape: Sequence[int]):
        super().__init__()
        check_detector(detector)
        self.detector = detector
        self.shape = tuple(shape)
        image = torch.zeros(1, detector.backbone.in_channels, *shape)
        with torch.no_grad():
            sizes = [tuple(level.shape[2:]) for level in detector.extract_feat(image)]
        priors = detector.rpn_head.prior_generator.grid_priors(sizes, device='cpu')
        self.priors = nn.ParameterList([nn.Parameter(level, False) for level in priors])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect on an image ``(1, C, H, W)``."""
        maps = self.detector.extract_feat(image)
        proposals, found = self.propose(maps)
        boxes, scores, labels = self.classify(maps, proposals, found)
        return boxes, scores, labels, segment(self.detector, maps, boxes, labels)

    def propose(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return proposals ``(P, 4)`` and which of them are not padding, ``(P,)``."""
        head = self.detector.rpn_head
        boxes, scores, levels = [], [], []
        for level, (logits, deltas) in enumerate(zip(*head(maps), strict=True)):
            score = logits[0].permute(1, 2, 0).flatten().sigmoid()
            delta = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            priors = self.priors[level]
            if 0 < head.test_cfg.get('nms_pre', -1) < score.shape[0]:
                score, best = score.topk(head.test_cfg.nms_pre)
                delta, priors = delta[best], priors[best]
            boxes.append(head.bbox_coder.decode(priors, delta, max_shape=self.shape))
            scores.append(score)
            levels.append(torch.full_like(score, level))
        boxes, scores, levels = map(torch.cat, (boxes, scores, levels))
        sides = boxes[:, 2:] - boxes[:, :2]
        smallest = head.test_cfg.get('min_bbox_size', -1)
        scores = torch.where((sides > smallest).all(1), scores, -1.0)
        kept, found = suppress(boxes, scores, levels, head.test_cfg, 0.0)
        return boxes[kept], found

    def classify(
        self, maps: Sequence[Tensor], proposals: Tensor, found: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels."""
        roi_head = self.detector.roi_head
        head, cfg = roi_head.bbox_head, roi_head.test_cfg
        logits, deltas = head(pool(roi_head.bbox_roi_extractor, maps, proposals))
        scores = torch.where(found[:, None], logits.softmax(-1)[:, :-1], -1.0)
        variants = 1 if head.reg_class_agnostic else head.num_classes
        boxes = head.bbox_coder.decode(
            proposals.repeat_interleave(variants, 0), deltas.reshape(-1, 4), max_shape=self.shape
        )
        boxes = boxes.view(-1, variants, 4).expand(-1, head.num_classes, 4).reshape(-1, 4)
        labels = torch.arange(head.num_classes, device=boxes.device).repeat(scores.shape[0])
        scores = scores.flatten()
        kept, found = suppress(boxes, scores, labels, cfg, cfg.score_thr)
        return (
            boxes[kept],
            torch.where(found, scores[kept], 0.0),
            torch.where(found, labels[kept], -1),
        )


def segment(detector: nn.Module, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """Return the mask of each box's label."""
    roi_head = detector.roi_head
    logits = roi_head.mask_head(pool(roi_head.mask_roi_extractor, maps, boxes))
    if not roi_head.mask_head.class_agnostic:
        own = labels.clamp(min=0)[:, None, None, None]
        logits = logits.gather(1, own.expand(-1, 1, *logits.shape[2:]))
    return logits[:, 0].sigmoid()


def detect(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Return boxes, scores and labels as MMDetection finds them, and masks ``(D, h, w)``."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[2:])
    sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    sample = DetDataSample(metainfo={**sizes, 'scale_factor': (1.0, 1.0)})
    found = model.predict(image, [sample], rescale=False)[0].pred_instances
    masks = segment(model, model.extract_feat(image), found.bboxes, found.labels)
    return found.bboxes, found.scores, found.labels, masks


def check_detector(detector: nn.Module) -> None:
    """Refuse detectors that ``Detections`` does not compute."""
    from mmdet.models import MaskRCNN, RPNHead, SingleRoIExtractor, StandardRoIHead

    def refuse(part: str) -> None:
        raise UserError(f'cannot export {part}: export the backbone with --backbone-only')

    rpn_head, roi_head = (getattr(detector, name, None) for name in ('rpn_head', 'roi_head'))
    known = ((detector, MaskRCNN), (rpn_head, RPNHead), (roi_head, StandardRoIHead))
    for part, kind in known:
        if type(part) is not kind:
            refuse(f'a detector with {type(part).__name__}, only with {kind.__name__}')
    for extractor in (roi_head.bbox_roi_extractor, roi_head.mask_roi_extractor):
        aligned = all(getattr(layer, 'aligned', False) for layer in extractor.roi_layers)
        if type(extractor) is not SingleRoIExtractor or not aligned:
            refuse('RoI extractors but SingleRoIExtractor with aligned RoIAlign')
    for cfg in (rpn_head.test_cfg, roi_head.test_cfg):
        if cfg.nms.type != 'nms':
            refuse(f'nms.type={cfg.nms.type!r}, only nms')


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Mapping[str, Any], score_thr: float
) -> tuple[Tensor, Tensor]:
    """Choose boxes by NMS within each group; see ``operators.nms``."""
    # Shifted apart, boxes of different groups do not overlap: one NMS for all.
    apart = boxes + (groups * (boxes.max() + 1))[:, None]
    return nms(apart, scores, cfg['nms']['iou_threshold'], score_thr, cfg['max_per_img'])


def pool(extractor: nn.Module, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Pool each box from the pyramid level that its size maps to."""
    layers = extractor.roi_layers
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    levels = extractor.map_roi_levels(rois, len(layers))
    pooled = None
    for level, layer in enumerate(layers):
        here = levels == level
        # Boxes of other levels become empty, which are cheap to pool.
        part = roi_align(
            maps[level], boxes * here[:, None], layer.spatial_scale, *layer.output_size,
            layer.sampling_ratio,
        )  # fmt: skip
        pooled = part if pooled is None else torch.where(here[:, None, None, None], part, pooled)
    return pooled
