"""ONNX and torch.export files: writing and running them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmuniformer.deployment.networks import Outputs, Target
from mmuniformer.errors import UserError

SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}
OPSET = 18
MIN_SIDE = 64
"""Smallest image side of a file with dynamic sizes: 2 tokens in stage 4."""
AXES = ('batch', 'channels', 'height', 'width')
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')


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


def trace(target: Target, shape: tuple[int, int, int], dynamic: bool) -> ExportedProgram:
    """Trace a network into a graph of PyTorch's operators.

    Args:
        target: What to trace.
        shape: Batch, height and width of the example.
        dynamic: The graph also takes other batches and sizes.

    Raises:
        UserError: The operators depend on the size.
    """
    batch, height, width = shape
    sizes = None
    if dynamic:
        # PyTorch fixes sizes of 1.
        batch = max(batch, 2)
        side = Dim.DYNAMIC(min=MIN_SIDE)
        sizes = {0: Dim.DYNAMIC, 2: side, 3: side}
    image = torch.zeros(batch, target.channels, height, width)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(target.network, (image,), dynamic_shapes=(sizes,))
    except torch._dynamo.exc.UserError as error:
        reason = str(error).split('\n\n')[0]
        raise UserError(
            f'one graph of the network cannot take all sizes: export one size with --static '
            f'({reason})'
        ) from error


def write(
    target: Target, file: Path, shape: tuple[int, int, int], dynamic: bool, metadata: Mapping
) -> None:
    """Export a target to a file of the format of its suffix.

    Args:
        target: What to export.
        file: Where to write.
        shape: Batch, height and width of the example.
        dynamic: The file also takes other batches and sizes.
        metadata: Written as JSON: into an ONNX file value by value, into a torch.export file as
            ``metadata.json``.
    """
    program = trace(target, shape, dynamic)
    if file.suffix == SUFFIXES['onnx']:
        write_onnx(program, file, target, metadata)
    else:
        torch.export.save(program, file, extra_files={'metadata.json': json.dumps(metadata)})


def write_onnx(
    program: ExportedProgram, file: Path, target: Target, metadata: Mapping[str, Any]
) -> None:
    """Write a graph as ONNX, weights included, and check it with ``onnx.checker``."""
    import onnx

    translations = None
    if target.detects:
        from mmuniformer.deployment import operators

        translations = operators.translations()
    with torch.no_grad(), quiet():
        exported = torch.onnx.export(
            program,
            (),
            input_names=['image'],
            output_names=target.output_names,
            opset_version=OPSET,
            custom_translation_table=translations,
            dynamo=True,
            verbose=False,
        )
    names = dict(zip(exported.model.graph.inputs[0].shape, AXES, strict=True))
    exported.rename_axes({axis: name for axis, name in names.items() if not isinstance(axis, int)})
    entries = {key: json.dumps(value) for key, value in metadata.items()}
    exported.model.metadata_props.update(entries)
    exported.save(file, external_data=False)
    onnx.checker.check_model(file, full_check=True)


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

    def run(image: Tensor) -> Outputs:
        return tuple(map(torch.from_numpy, session.run(None, {'image': image.numpy()})))

    return run


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
    onnx, framework = logging.getLogger('torch.onnx'), MMLogger.get_current_instance()
    levels = onnx.level, framework.level
    onnx.setLevel(logging.ERROR)
    framework.setLevel(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            yield
        finally:
            onnx.setLevel(levels[0])
            framework.setLevel(levels[1])
