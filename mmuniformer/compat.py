"""Fixes for the frameworks on current and on old stacks, each named after what it makes possible.

``import mmuniformer`` applies them. A fix touches nothing where its symptom would not occur.
"""

from __future__ import annotations

import argparse
import codecs
import os
import pickle
from collections import OrderedDict
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import digit_version
from torch import _weights_only_unpickler

TORCH_HAS_ALLOW_LIST = digit_version(torch.__version__) >= digit_version('2.6')
"""Whether ``weights_only`` loading can be told what training checkpoints hold beside tensors."""

_STATISTICS = frozenset({'min', 'max', 'current', 'mean'})


def apply() -> None:
    """Apply every fix; doing it again changes nothing."""
    allow_training_checkpoints()
    keep_mmengine_from_running_checkpoints()


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


def load_file(file: str | os.PathLike | BinaryIO, map_location: Any = None) -> Any:
    """Read a checkpoint on any torch without running code that it may hold.

    Raises:
        pickle.UnpicklingError: It asks for more than tensors, plain values and training history.
    """
    if TORCH_HAS_ALLOW_LIST:
        return torch.load(file, map_location=map_location, weights_only=True)
    if _is_torchscript(file):
        raise pickle.UnpicklingError('GLOBAL torch.jit.load is needed: this is a TorchScript file')
    # The restricted unpickler takes the place of weights_only: torch takes one or the other.
    return torch.load(
        file, map_location=map_location, weights_only=False, pickle_module=_RestrictedPickle
    )


def _is_torchscript(file: str | os.PathLike | BinaryIO) -> bool:
    """Ask torch's own zip reader, as old versions of ``torch.load`` do before they run the file."""
    stream = hasattr(file, 'read')
    try:
        reader = torch._C.PyTorchFileReader(file if stream else os.fspath(file))
    except RuntimeError:  # no zip archive: torch.load says what it is
        return False
    finally:
        if stream:
            file.seek(0)
    return 'constants.pkl' in reader.get_all_records()


def allow_training_checkpoints() -> None:
    """Let torch reload the checkpoints that mmengine's runner writes.

    Symptom: ``UnpicklingError: Weights only load failed ... HistoryBuffer`` on ``mim test`` and on
    every resume. torch 2.6 and later load weights only; mmengine's files also hold the training
    history, made of HistoryBuffer and numpy numbers. The check stays on: the few types these
    histories are made of are allowed, none of which runs code of the file's choice.
    """
    if TORCH_HAS_ALLOW_LIST:
        known = {_name_in_file(entry) for entry in torch.serialization.get_safe_globals()}
        torch.serialization.add_safe_globals(
            [(value, name) for name, value in _ALLOWED.items() if name not in known]
        )


def keep_mmengine_from_running_checkpoints() -> None:
    """Make mmengine's loader of local files refuse code.

    Symptom: a malicious file's code runs on ``load_from``, ``--resume`` and ``mim test``. Below
    torch 2.6 mmengine loads without ``weights_only``; the fork onedl-mmengine reads a file that
    was refused once more without it.
    """
    if hasattr(mmengine_checkpoint, '_safe_torch_load'):
        mmengine_checkpoint._safe_torch_load = _safe_torch_load
    elif not TORCH_HAS_ALLOW_LIST:
        CheckpointLoader.register_scheme('', load_from_local, force=True)


def _safe_torch_load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Take the place of the fork's function of this name; it never passes ``weights_only``."""
    return load_file(file, map_location)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Take the place of mmengine's function of this name, by which it logs the kind of source."""
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'{filename} does not exist: correct the path')
    return load_file(filename, map_location)


def _name_in_file(entry: object) -> str:
    """Return the name under which torch looks an allowed object up."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


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


_ALLOWED = {
    f'{HistoryBuffer.__module__}.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _get_statistic,
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    # Options of the scripts that the released files were trained with.
    'argparse.Namespace': argparse.Namespace,
}
"""What training checkpoints hold beside tensors and plain values, by its name in the file."""
# numpy 2 moved the module; files carry the name of the numpy that wrote them.
for _module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
    _ALLOWED[f'{_module}._reconstruct'] = np.empty(0).__reduce__()[0]
    _ALLOWED[f'{_module}.scalar'] = np.float64(0).__reduce__()[0]
# Losses, metrics, and the keypoint tables of datasets.
for _dtype in map(np.dtype, ('bool', 'uint8', 'int32', 'int64', 'float32', 'float64')):
    _ALLOWED[_name_in_file(type(_dtype))] = type(_dtype)


class _RestrictedUnpickler(pickle._Unpickler):
    """Calls and fills only what torch's ``weights_only`` or ``_ALLOWED`` knows.

    A subclass of the one written in Python: the C version does not ask before it calls an object
    or sets attributes of one.
    """

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)
    filled = (torch.Tensor, OrderedDict, HistoryBuffer, np.ndarray, np.dtype, argparse.Namespace)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.known = {**_weights_only_unpickler._get_allowed_globals(), **_ALLOWED}
        self.known['_codecs.encode'] = codecs.encode  # of numpy scalars; unknown to torch 2.2
        dtypes = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
        self.known |= {str(dtype): dtype for dtype in dtypes}

    def find_class(self, module: str, name: str) -> Any:
        """Return a known object."""
        path = f'{"builtins" if module == "__builtin__" else module}.{name}'
        if path not in self.known:
            raise pickle.UnpicklingError(f'Weights only load failed: GLOBAL {path} is not allowed')
        return self.known[path]

    def check_callable(self) -> None:
        """Refuse to call what is not known; it lies below its arguments on the stack."""
        if not any(self.stack[-2] is value for value in self.known.values()):
            raise pickle.UnpicklingError(f'Weights only load failed: {self.stack[-2]!r} is called')

    def load_reduce(self) -> None:
        """Call a known function."""
        self.check_callable()
        super().load_reduce()

    def load_newobj(self) -> None:
        """Instantiate a known class."""
        self.check_callable()
        super().load_newobj()

    def load_build(self) -> None:
        """Set the state of an instance of a known class."""
        if not isinstance(self.stack[-2], self.filled):
            raise pickle.UnpicklingError(f'Weights only load failed: {self.stack[-2]!r} is changed')
        super().load_build()

    def load_unused(self) -> None:
        """Refuse other ways to make objects, which torch.save does not use."""
        raise pickle.UnpicklingError('Weights only load failed: unknown operation')

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_code[0]] = load_unused


class _RestrictedPickle:
    """What torch.load asks of a pickle module."""

    Unpickler = _RestrictedUnpickler

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        """Read one object."""
        return _RestrictedUnpickler(file, **options).load()
