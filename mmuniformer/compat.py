"""Fixes for the frameworks on a current Python stack, each named after what it makes possible.

``import mmuniformer`` applies them. A fix touches nothing where its symptom would not occur.
"""

from __future__ import annotations

import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

# The numbers that training checkpoints hold outside tensors: histories of losses, metrics, and
# the key point tables of data sets.
_NUMPY_TYPES = (bool, 'uint8', 'int32', 'int64', 'float32', 'float64')
_STATISTICS = frozenset({'min', 'max', 'current', 'mean'})


def apply() -> None:
    """Apply every fix; doing it again changes nothing."""
    allow_training_checkpoints()


def _never() -> bool:
    return False


is_compiling = (
    getattr(torch.compiler, 'is_compiling', None)  # from torch 2.3 on
    or getattr(torch._utils, 'is_compiling', None)
    or _never
)
"""Tells whether torch.compile or torch.export traces the code that asks."""


def is_tracing() -> bool:
    """Tell whether what runs becomes a graph, which other sizes may go through."""
    return torch.jit.is_tracing() or is_compiling()


def allow_training_checkpoints() -> None:
    """Let torch reload the checkpoints that mmengine's runner writes.

    Symptom: ``UnpicklingError: Weights only load failed ... HistoryBuffer`` on ``mim test`` and on
    every resume. torch 2.6 and later load weights only; mmengine's files also hold the training
    history, made of HistoryBuffer and numpy numbers. The check stays on: the few types these
    histories are made of are allowed, none of which runs code of the file's choice.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    known = {_name_in_file(entry) for entry in torch.serialization.get_safe_globals()}
    missing = [entry for entry in _training_globals() if _name_in_file(entry) not in known]
    torch.serialization.add_safe_globals(missing)


def _name_in_file(entry: object) -> str:
    """Return the name under which torch looks an allowed object up."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def _training_globals() -> list[tuple[object, str]]:
    """Return (object, name in the file) of what a training history is pickled with."""
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    found = [
        (HistoryBuffer, f'{HistoryBuffer.__module__}.HistoryBuffer'),
        (_get_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    # numpy 2 moved the module; files carry the name of the numpy that wrote them.
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        found += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    for kind in (type(np.dtype(name)) for name in _NUMPY_TYPES):
        found.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    return found


def _get_statistic(owner: object, name: object) -> object:
    """Stand in for ``getattr`` inside checkpoints.

    A HistoryBuffer is pickled with its own methods, each as ``getattr(HistoryBuffer, 'mean')``.
    The real ``getattr`` would hand a file every attribute of every allowed object, so only these
    methods are given out.

    Raises:
        pickle.UnpicklingError: for anything else.
    """
    if owner is HistoryBuffer and isinstance(name, str) and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}, which no training history '
        'needs: it may be malicious and was not loaded'
    )
