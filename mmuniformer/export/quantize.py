"""Turning an exported ONNX file into one of 8-bit integers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import nn

from mmuniformer.errors import UserError
from mmuniformer.export.files import quiet
from mmuniformer.loading import scope_of
from mmuniformer.predict.inputs import PICTURES, UnreadableError, listing, read_picture
from mmuniformer.predict.network import array_pipeline, config_meta

QUANTIZED = ['Conv', 'MatMul', 'Gemm']
"""Operators in integers; attention's products, softmax, norms and GELU stay in float32."""


def training_images(cfg: Config, model: nn.Module, count: int) -> Iterator[np.ndarray]:
    """Yield images of the config's training data, evenly spread, prepared as in a test.

    Raises:
        UserError: The data are missing or do not fit.
    """
    from mmengine.registry import DATASETS

    from mmuniformer.datasets.annotations import check_dataset

    if 'pipeline' not in cfg.get('train_dataloader', {}).get('dataset', {}):
        raise UserError(
            'the config has no train_dataloader.dataset with a pipeline to calibrate by: name a '
            'folder of pictures by --calibrate'
        )
    dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    dataset.pipeline = cfg.test_dataloader.dataset.pipeline
    with quiet(), scope_of(cfg):
        check_dataset(dataset)
        samples = DATASETS.build(dataset)
        for index in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int):
            yield normalized(model, samples[int(index)])


def folder_images(cfg: Config, model: nn.Module, folder: Path, count: int) -> Iterator[np.ndarray]:
    """Yield the first pictures of a folder, prepared as in a test.

    Raises:
        UserError: It holds no picture, or one that can not be read.
    """
    try:
        pictures = [path for path in listing(folder) if path.suffix.lower() in PICTURES][:count]
    except UnreadableError as error:
        raise UserError(f'--calibrate {folder}: {error}') from error
    with quiet(), scope_of(cfg):
        pipeline, meta = Compose(array_pipeline(cfg)), config_meta(cfg)
        for path in pictures:
            try:
                image = read_picture(path)
            except UnreadableError as error:
                raise UserError(f'--calibrate: {path}: {error}') from error
            height, width = image.shape[:2]
            person = {
                'bbox': np.array([[0, 0, width, height]], np.float32),
                'bbox_score': np.ones(1, np.float32),
            }
            yield normalized(model, pipeline({**meta, **person, 'img': image, 'img_id': 0}))


def normalized(model: nn.Module, sample: dict) -> np.ndarray:
    """Return a sample's image as the network gets it, ``(1, 3, H, W)``."""
    return model.data_preprocessor(pseudo_collate([sample]), False)['inputs'].numpy()


def write_int8(source: Path, target: Path, images: Iterator[np.ndarray]) -> None:
    """Write the 8-bit form of an ONNX file: static, a scale for each channel of a weight.

    Args:
        source: The file in float32.
        target: Where to write.
        images: What the ranges of activations are measured on.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {'image': image}

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
