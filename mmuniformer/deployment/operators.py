"""Two operators of detectors that PyTorch lacks, and their translations to ONNX.

Tracing does not look inside. Outputs have a fixed length, so that a detector's graph has fixed
shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op(
    'mmuniformer::nms',
    mutates_args=(),
    schema='(Tensor boxes, Tensor scores, float iou, float score, int count) -> (Tensor, Tensor)',
)
def nms(boxes: Tensor, scores: Tensor, iou: float, score: float, count: int):
    """Keep the best of boxes ``(N, 4)`` with scores ``(N,)`` above ``score``.

    The worse one of two that overlap by more than ``iou`` is dropped. Returns the indices of the
    kept boxes, best first, padded with 0 to ``(count,)``; and which are no padding, ``(count,)``.
    """
    from mmcv.ops import nms as mmcv_nms

    _, kept = mmcv_nms(boxes, scores, iou, score_threshold=score)
    kept = kept[scores[kept] > score][:count]
    padding = kept.new_zeros(count - len(kept))
    return torch.cat([kept, padding]), torch.arange(count, device=kept.device) < len(kept)


@nms.register_fake
def _(boxes, scores, iou, score, count):
    return (
        boxes.new_empty(count, dtype=torch.int64),
        boxes.new_empty(count, dtype=torch.bool),
    )


@torch.library.custom_op(
    'mmuniformer::roi_align',
    mutates_args=(),
    schema='(Tensor map, Tensor boxes, float scale, int height, int width, int samples) -> Tensor',
)
def roi_align(map: Tensor, boxes: Tensor, scale: float, height: int, width: int, samples: int):
    """Pool boxes ``(N, 4)`` of the one image of a map to ``(N, C, height, width)``."""
    from mmcv.ops import roi_align as mmcv_roi_align

    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    return mmcv_roi_align(map, rois, (height, width), scale, samples, 'avg', True)


@roi_align.register_fake
def _(map, boxes, scale, height, width, samples):
    return map.new_empty(boxes.shape[0], map.shape[1], height, width)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ``custom_translation_table`` of ``torch.onnx.export`` for these operators."""
    from onnxscript import opset18 as op

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def onnx_nms(boxes, scores, iou, score, count):
        selected = op.NonMaxSuppression(
            op.Unsqueeze(boxes, ints(0)),
            op.Unsqueeze(scores, ints(0, 1)),
            ints(count),
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[score]),
        )
        kept = op.Gather(selected, op.Constant(value_int=2), axis=1)
        padded = op.Concat(kept, ints(*[0] * count), axis=0)
        found = op.Less(ints(*range(count)), op.Shape(kept))
        return op.Slice(padded, ints(0), ints(count), ints(0)), found

    def onnx_roi_align(map, boxes, scale, height, width, samples):
        count = op.Shape(boxes, start=0, end=1)
        image = op.Expand(op.Constant(value_int=0), count)
        return op.RoiAlign(
            map,
            boxes,
            image,
            coordinate_transformation_mode='half_pixel',
            output_height=height,
            output_width=width,
            sampling_ratio=samples,
            spatial_scale=scale,
        )

    return {
        torch.ops.mmuniformer.nms.default: onnx_nms,
        torch.ops.mmuniformer.roi_align.default: onnx_roi_align,
    }
