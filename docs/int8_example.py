"""Write the 8-bit form of an exported model: int8_example.py MODEL.onnx IMAGES INT8.onnx.

IMAGES is a folder (for pose: of people's crops), on which ranges are measured. Needs onnx,
onnxruntime, numpy and Pillow only.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession, quantization
from PIL import Image

model, folder, target = map(Path, sys.argv[1:])
known = InferenceSession(model).get_modelmeta().custom_metadata_map
size, mean, std = (np.float32(json.loads(known[key])) for key in ('size', 'mean', 'std'))
order = 1 if json.loads(known['channels']) == 'RGB' else -1


def prepare(file):
    """Return an image as the model takes it."""
    photo = Image.open(file).convert('RGB')
    scale = min(max(size) / max(photo.size), min(size) / min(photo.size))
    photo = photo.resize([max(64, round(side * scale)) for side in photo.size])
    return ((np.asarray(photo)[..., ::order] - mean) / std).transpose(2, 0, 1)[None]


class Images(quantization.CalibrationDataReader):
    """The images, one at a time."""

    files = iter(sorted(folder.iterdir())[:64])

    def get_next(self):
        """Return the next input; None at the end."""
        file = next(self.files, None)
        return file and {'image': prepare(file)}


with tempfile.TemporaryDirectory() as temporary:
    # Folds the heads' BatchNorm, which would otherwise stay in float32 after each convolution.
    prepared = Path(temporary, 'prepared.onnx')
    quantization.quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        target,
        Images(),
        op_types_to_quantize=['Conv', 'MatMul', 'Gemm'],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={'MatMulConstBOnly': True},  # attention's products stay in float32
    )
