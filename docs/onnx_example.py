"""Segment an image with an exported model: onnx_example.py MODEL.onnx IMAGE LABELS.png.

Needs onnxruntime, numpy and Pillow only.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
known = session.get_modelmeta().custom_metadata_map
size, mean, std = (np.float32(json.loads(known[key])) for key in ('size', 'mean', 'std'))
photo = Image.open(sys.argv[2]).convert('RGB')
scale = min(max(size) / max(photo.size), min(size) / min(photo.size))
scaled = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BILINEAR)
pixels = np.asarray(scaled)[..., :: 1 if json.loads(known['channels']) == 'RGB' else -1]
image = ((pixels - mean) / std).transpose(2, 0, 1)[None]
(logits,) = session.run(None, {'image': image})
labels = Image.fromarray(logits[0].argmax(0).astype(np.uint8))
labels.resize(photo.size, Image.Resampling.NEAREST).save(sys.argv[3])
