"""ONNX files in 8-bit integers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from mmuniformer.deployment.files import quiet

QUANTIZED = ['Conv', 'MatMul', 'Gemm']
"""Operators in integers; attention's products, softmax, norms and GELU stay in float32."""


def write_int8(source: Path, target: Path, images: Iterator[Tensor]) -> None:
    """Write the 8-bit form of an ONNX file: static, with a scale per channel of a weight.

    Args:
        source: The file in float32.
        target: Where to write.
        images: Normalized; the ranges of activations are measured on them.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {'image': image.numpy()}

    with tempfile.TemporaryDirectory() as folder, quiet():
        # Folds the heads' BatchNorm, which would otherwise stay in float32 after each convolution.
        prepared = Path(folder) / 'prepared.onnx'
        quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            Reader(),
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={'MatMulConstBOnly': True},
        )
