"""Semantic segmentation: label maps, COCO records, mask files, drawings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmuniformer.apis.inference.coco import encode_mask
from mmuniformer.apis.inference.network import Network
from mmuniformer.apis.inference.run import Task
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.visualization.draw import colors, draw_map


class SegTask(Task):
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
        return [s.pred_sem_seg.data[0].cpu().numpy().astype(dtype) for s in self.samples(frames)]

    def samples(self, frames: Sequence[Frame]) -> list[Any]:
        """Predict on frames: data samples with logits and label maps."""
        return self.network([{'img': frame.image, 'img_path': None} for frame in frames])

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
