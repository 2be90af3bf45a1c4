"""Writing models as ONNX and torch.export files, and running them from there."""

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
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmuniformer.deployment.networks import Outputs, Target
from mmuniformer.errors import UserError

SUFFIXES = {'onnx': '.onnx', 'torch-export': '.pt2'}
MIN_SIDE = 64
"""Smallest image side of a file with dynamic sizes: stage 4 then has two tokens a side."""
AXES = ('batch', 'channels', 'height', 'width')
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')


def check_libraries() -> None:
    """Refuse to begin where a library for ONNX is missing.

    Raises:
        UserError: One does not import; names it and the cure.
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
    """Turn a network into a graph of PyTorch's operators.

    Args:
        target: What to trace.
        shape: Batch, height and width of the example.
        dynamic: Whether the graph takes other batches and sizes, too.

    Raises:
        UserError: The network does something that depends on the size.
    """
    batch, height, width = shape
    sizes = None
    if dynamic:
        # An example of one image would be taken for a size that never varies.
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
            f'the network does not take all sizes in one graph: export one by --static ({reason})'
        ) from error


def write_onnx(
    program: ExportedProgram,
    file: Path,
    target: Target,
    opset: int,
    metadata: Mapping[str, Any],
) -> None:
    """Write a graph as ONNX, weights included, and check it by ``onnx.checker``.

    Args:
        program: The graph.
        file: Where to write.
        target: What the graph was traced from; it names the outputs. The input is ``image``.
        opset: Version of ONNX's operators.
        metadata: What the file says of itself; values are written as JSON.
    """
    import onnx

    with torch.no_grad(), quiet():
        exported = torch.onnx.export(
            program,
            (),
            input_names=['image'],
            output_names=target.output_names,
            opset_version=opset,
            custom_translation_table=translations(target),
            dynamo=True,
            verbose=False,
        )
    names = dict(zip(exported.model.graph.inputs[0].shape, AXES, strict=True))
    exported.rename_axes({axis: name for axis, name in names.items() if not isinstance(axis, int)})
    entries = {key: json.dumps(value) for key, value in metadata.items()}
    exported.model.metadata_props.update(entries)
    exported.save(file, external_data=False)
    onnx.checker.check_model(file, full_check=True)


def translations(target: Target) -> dict[Callable[..., Any], Callable[..., Any]] | None:
    """Return how a detector's own operators are written in ONNX."""
    if not target.detects:
        return None
    from mmuniformer.deployment import operators

    return operators.translations()


def write_torch_export(program: ExportedProgram, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph as ``torch.export.save`` does; ``metadata.json`` inside holds the metadata."""
    torch.export.save(program, file, extra_files={'metadata.json': json.dumps(metadata)})


def write(
    target: Target, file: Path, shape: tuple[int, int, int], dynamic: bool, opset: int,
    metadata: Mapping[str, Any],
) -> None:  # fmt: skip
    """Export a target to a file of the format that its suffix says."""
    program = trace(target, shape, dynamic)
    if file.suffix == SUFFIXES['onnx']:
        write_onnx(program, file, target, opset, metadata)
    else:
        write_torch_export(program, file, metadata)


def runner(file: Path) -> Callable[[Tensor], Outputs]:
    """Return the call that runs a file of either format."""
    return run_onnx(file) if file.suffix == SUFFIXES['onnx'] else run_torch_export(file)


def run_onnx(file: Path) -> Callable[[Tensor], Outputs]:
    """Return the call that runs an ONNX file by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])

    def run(image: Tensor) -> Outputs:
        return tuple(map(torch.from_numpy, session.run(None, {'image': image.numpy()})))

    return run


def run_torch_export(file: Path) -> Callable[[Tensor], Outputs]:
    """Return the call that runs a file of ``torch.export.save``.

    Guards are left out: they also hold what the tracer noticed of the example and never used, such
    as that its windows needed padding.
    """
    return torch.export.load(file).module(check_guards=False)


@contextlib.contextmanager
def appearing(file: Path) -> Iterator[Path]:
    """Give another name to write to; the file gets its own only if nothing fails."""
    unchecked = file.with_stem(f'{file.stem}.unchecked')
    try:
        yield unchecked
        unchecked.replace(file)
    finally:
        unchecked.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' notes about themselves off the screen."""
    level = logging.getLogger('torch.onnx').level
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            yield
        finally:
            logging.getLogger('torch.onnx').setLevel(level)
