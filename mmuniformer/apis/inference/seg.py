"""Semantic segmentation: label maps, COCO records, mask files, drawings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from mmuniformer.apis.inference.coco import encode_mask
from mmuniformer.apis.inference.network import FrameTask, Network
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.visualization.draw import colors, draw_map

LARGEST_LOGITS = 2**31
"""Bytes of the logits of an image in its own size; if it needs more, some classes at a time."""


class SegTask(FrameTask):
    """Predicts a class for each pixel.

    Category ids are the class indices from 0, which are also the values in the mask files.

    Raises:
        UserError: The names are not as many as the model's classes.
    """

    unit = 'class regions'

    def __init__(self, network: Network):
        self.network = network
        self.classes = network.class_names(getattr(network.model, 'decode_head', None))
        self.categories = [{'id': i, 'name': name} for i, name in enumerate(self.classes)]
        self.colors = colors(network.meta.get('palette'), len(self.classes))

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Predict on frames: a map ``(H, W)`` of class indices each."""
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        head = getattr(self.network.model, 'decode_head', None)
        channels = getattr(head, 'out_channels', 1)
        pixels = max(frame.image[..., 0].size for frame in frames)
        if channels == 1 or 4 * channels * pixels <= LARGEST_LOGITS:
            maps = (sample.pred_sem_seg.data[0] for sample in self.samples(frames))
        else:
            samples = self.samples(frames, own_size=False)
            maps = (
                self.label_map(sample.seg_logits.data, frame.image.shape[:2])
                for frame, sample in zip(frames, samples, strict=True)
            )
        return [each.cpu().numpy().astype(dtype) for each in maps]

    def label_map(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the most likely classes, ``(H, W)``, of logits ``(C, h, w)`` resized to a size.

        As mmsegmentation does it, but some classes at a time: 150 classes of 12 million pixels are
        7 GB.
        """
        count = max(1, LARGEST_LOGITS // (4 * size[0] * size[1]))
        best = logits.new_full(size, -torch.inf)
        labels = torch.zeros(size, dtype=torch.int16, device=logits.device)
        for start in range(0, len(logits), count):
            values, places = functional.interpolate(
                logits[None, start : start + count], size, mode='bilinear',
                align_corners=self.network.model.align_corners,
            )[0].max(dim=0)  # fmt: skip
            labels = torch.where(values > best, places.to(labels.dtype) + start, labels)
            best = torch.maximum(values, best)
        return labels

    def records(self, frame: Frame, result: np.ndarray) -> list[dict[str, Any]]:
        """Return COCO stuff results: one region for each class that occurs."""
        return [
            {
                'image_id': frame.id,
                'category_id': index,
                'segmentation': encode_mask(result == index),
            }
            for index in np.unique(result).tolist()
        ]

    def draw(self, image: np.ndarray, result: np.ndarray) -> np.ndarray:
        """Tint the image by class and name the classes."""
        return draw_map(image, result, self.classes, self.colors)

    def mask_file(self, result: np.ndarray) -> bytes:
        """Return a PNG with the class indices as values; up to 256 are colored by the palette."""
        image = Image.fromarray(result)
        if result.dtype == np.uint8:
            image.putpalette(np.array(self.colors, dtype=np.uint8)[:, ::-1].tobytes())
        buffer = io.BytesIO()
        image.save(buffer, 'PNG')
        return buffer.getvalue()
