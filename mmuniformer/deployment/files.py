"""ONNX and torch.export files: writing and running them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmuniformer.apis.models import quiet
from mmuniformer.deployment.networks import Outputs, Target
from mmuniformer.deployment.operators import translations
from mmuniformer.errors import UserError
from mmuniformer.models.arch import TOTAL_STRIDE

OPSET = 18
MIN_DYNAMIC_SIDE = 2 * TOTAL_STRIDE
"""Smallest image side of a file with dynamic sizes: 2 tokens in stage 4."""
MIN_DYNAMIC_FRAMES = 3
"""Shortest clip of a file with dynamic sizes: 2 tokens."""
INPUT_NAMES = {2: 'image', 3: 'clip'}
AXES = {
    2: ('batch', 'channels', 'height', 'width'),
    3: ('batch', 'channels', 'frames', 'height', 'width'),
}
"""Of the input, by how many there are besides batch and channels."""
Shape = tuple[int, ...]
"""Batch, of clips the frames, height and width."""
Run = Callable[[Tensor], Outputs]
"""Runs a network on images ``(N, C, H, W)`` or clips ``(N, C, T, H, W)``."""


def check_libraries(names: Iterable[str]) -> None:
    """Import what a format needs."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f'this --format needs {name}, which does not import ({error}): '
                'pip install "mmuniformer[export]"'
            ) from error


def trace(target: Target, shape: Shape, dynamic: bool) -> ExportedProgram:
    """Trace a network for a shape; if dynamic, for others as well."""
    batch, *size = shape
    sizes = None
    if dynamic:
        batch = max(batch, 2)  # PyTorch fixes sizes of 1.
        side = Dim.DYNAMIC(min=MIN_DYNAMIC_SIDE)
        frames = [Dim.DYNAMIC(min=MIN_DYNAMIC_FRAMES)] * (len(size) - 2)
        sizes = {0: Dim.DYNAMIC, **dict(enumerate([*frames, side, side], 2))}
    image = torch.zeros(batch, target.channels, *size)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(target.network, (image,), dynamic_shapes=(sizes,))
    except torch._dynamo.exc.UserError as error:
        reason = str(error).split('\n\n')[0]
        raise UserError(
            f'one graph of the network cannot take all sizes: export one size with --static '
            f'({reason})'
        ) from error


def write_onnx(
    program: ExportedProgram, output_names: Sequence[str], file: Path, metadata: Mapping
) -> None:
    """Write an ONNX file; its metadata are JSON value by value."""
    with torch.no_grad(), quiet():
        exported = torch.onnx.export(
            program,
            input_names=[INPUT_NAMES[len(program.example_inputs[0][0].shape) - 2]],
            output_names=output_names,
            opset_version=OPSET,
            custom_translation_table=translations(),
            dynamo=True,
            verbose=False,
        )
    import onnx

    shape = exported.model.graph.inputs[0].shape
    names = dict(zip(shape, AXES[len(shape) - 2], strict=True))
    exported.rename_axes({axis: name for axis, name in names.items() if not isinstance(axis, int)})
    entries = {key: json.dumps(value) for key, value in metadata.items()}
    exported.model.metadata_props.update(entries)
    exported.save(file, external_data=False)
    onnx.checker.check_model(file, full_check=True)


def write_program(
    program: ExportedProgram, output_names: Sequence[str], file: Path, metadata: Mapping
) -> None:
    """Write a torch.export file, whose outputs have no names; its metadata are one JSON file."""
    with quiet():
        torch.export.save(program, file, extra_files={'metadata.json': json.dumps(metadata)})


def run_onnx(file: Path) -> Run:
    """Return the function that runs an ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    (given,) = session.get_inputs()
    return lambda x: tuple(map(torch.from_numpy, session.run(None, {given.name: x.numpy()})))


def run_program(file: Path) -> Run:
    """Return the function that runs a torch.export file on the CPU."""
    # Guards also hold what tracing noticed of the example and never used, such as that its
    # windows needed padding.
    return torch.export.load(file).module(check_guards=False)


class Format(NamedTuple):
    """A format of files: how they are written and run, and what they can hold."""

    suffix: str
    write: Callable[[ExportedProgram, Sequence[str], Path, Mapping], None]
    """Write a program with the names of its outputs and metadata to a file."""
    run: Callable[[Path], Run]
    libraries: tuple[str, ...] = ()
    """What has to import."""
    detectors: bool = False
    """Whether it holds whole detectors."""


FORMATS = {
    'onnx': Format('.onnx', write_onnx, run_onnx, ('onnx', 'onnxscript', 'onnxruntime'), True),
    'torch-export': Format('.pt2', write_program, run_program),
}
"""By the name that ``--format`` takes."""
