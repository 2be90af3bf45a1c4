"""ONNX and torch.export files: writing, quantizing and running them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor
from torch.export import Dim

from mmuniformer.deployment.networks import Outputs, Target
from mmuniformer.deployment.operators import translations
from mmuniformer.errors import UserError

SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}
OPSET = 18
MIN_SIDE = 64
"""Smallest image side of a file with dynamic sizes: 2 tokens in stage 4."""
AXES = ('batch', 'channels', 'height', 'width')
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')
QUANTIZED = ['Conv', 'MatMul', 'Gemm']
"""Operators in integers; attention's products, softmax, norms and GELU stay in float32."""


def check_libraries() -> None:
    """Import what ONNX files need.

    Raises:
        UserError: A library does not import.
    """
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f'ONNX files need {name}, which does not import ({error}): '
                'pip install "mmuniformer[export]"'
            ) from error


def write(
    target: Target, file: Path, shape: tuple[int, int, int], dynamic: bool, metadata: Mapping
) -> None:
    """Trace a network and write its graph and weights to a file of the format of its suffix.

    Args:
        target: What to export.
        file: Where to write.
        shape: Batch, height and width of the example.
        dynamic: The file also takes other batches and sizes.
        metadata: Written as JSON: into an ONNX file value by value, into a torch.export file as
            ``metadata.json``.

    Raises:
        UserError: The operators depend on the size.
    """
    batch, height, width = shape
    sizes = None
    if dynamic:
        batch = max(batch, 2)  # PyTorch fixes sizes of 1.
        side = Dim.DYNAMIC(min=MIN_SIDE)
        sizes = {0: Dim.DYNAMIC, 2: side, 3: side}
    image = torch.zeros(batch, target.channels, height, width)
    with torch.no_grad(), quiet():
        try:
            program = torch.export.export(target.network, (image,), dynamic_shapes=(sizes,))
        except torch._dynamo.exc.UserError as error:
            reason = str(error).split('\n\n')[0]
            raise UserError(
                f'one graph of the network cannot take all sizes: export one size with --static '
                f'({reason})'
            ) from error
        if file.suffix != SUFFIXES['onnx']:
            extra = {'metadata.json': json.dumps(metadata)}
            return torch.export.save(program, file, extra_files=extra)
        exported = torch.onnx.export(
            program,
            input_names=['image'],
            output_names=target.output_names,
            opset_version=OPSET,
            custom_translation_table=translations(),
            dynamo=True,
            verbose=False,
        )
    import onnx

    names = dict(zip(exported.model.graph.inputs[0].shape, AXES, strict=True))
    exported.rename_axes({axis: name for axis, name in names.items() if not isinstance(axis, int)})
    entries = {key: json.dumps(value) for key, value in metadata.items()}
    exported.model.metadata_props.update(entries)
    exported.save(file, external_data=False)
    onnx.checker.check_model(file, full_check=True)


def write_int8(source: Path, file: Path, images: Iterator[Tensor]) -> None:
    """Write the 8-bit form of an ONNX file: static, with a scale per channel of a weight.

    The ranges of activations are measured on the images, which are normalized.
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
            file,
            Reader(),
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={'MatMulConstBOnly': True},
        )


def runner(file: Path) -> Callable[[Tensor], Outputs]:
    """Return the function that runs a file of either format on the CPU."""
    if file.suffix != SUFFIXES['onnx']:
        # Guards also hold what tracing noticed of the example and never used, such as that its
        # windows needed padding.
        return torch.export.load(file).module(check_guards=False)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    return lambda image: tuple(map(torch.from_numpy, session.run(None, {'image': image.numpy()})))


@contextlib.contextmanager
def appearing(file: Path) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes the file unless an error is raised."""
    unchecked = file.with_stem(f'{file.stem}.unchecked')
    try:
        yield unchecked
        unchecked.replace(file)
    finally:
        unchecked.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what exporters and frameworks print, log below a warning, and warn of."""
    levels = {
        logging.getLogger('torch.onnx'): logging.ERROR,
        MMLogger.get_current_instance(): logging.WARNING,
    }
    before = {logger: logger.level for logger in levels}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            for logger, level in levels.items():
                logger.setLevel(level)
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
