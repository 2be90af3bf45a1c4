"""Fixes for the frameworks on current and on old stacks, each named after what it makes possible.

``import mmuniformer`` applies them. A fix touches nothing where its symptom would not occur.
"""

from __future__ import annotations

import argparse
import codecs
import importlib.util
import os
import pickle
import sys
import tarfile
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import digit_version
from torch import _weights_only_unpickler
from torch.autograd import forward_ad

from mmuniformer.errors import UserError

PACKAGE = Path(__file__).resolve().parent
# An installed package has its configs where mim looks; a checkout has them beside the package.
INSTALLED = PACKAGE / '.mim' / 'configs'
CONFIGS = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / 'configs'
"""Folder of the shipped configs."""

TORCH_HAS_ALLOW_LIST = digit_version(torch.__version__) >= digit_version('2.6')
"""Whether ``weights_only`` loading can be told what training checkpoints hold beside tensors."""

CAST_TYPES = {torch.float32, torch.bfloat16, torch.float16}
"""What autocast casts to its type."""

is_compiling = (
    getattr(torch.compiler, 'is_compiling', None)  # from torch 2.3 on
    or getattr(torch._utils, 'is_compiling', None)
    or (lambda: False)
)
"""Tells whether torch.compile or torch.export traces the code that asks."""

EXPORT_TORCH = '2.9'
"""The first torch that exports any size and batch to ONNX and torch.export files."""
CAN_EXPORT = digit_version(torch.__version__) >= digit_version(EXPORT_TORCH)


def is_tracing() -> bool:
    """Tell whether what runs becomes a graph, which other sizes may go through."""
    return torch.jit.is_tracing() or is_compiling()


def needs_public_operators() -> bool:
    """Tell whether something sees the operators that run, and knows only PyTorch's public ones.

    Such are tracing, dispatch modes (FLOP counters, fake tensors) and forward-mode derivatives.
    """
    if is_tracing():  # first: a compiler would break its graph at the rest
        return True
    return torch._C._len_torch_dispatch_stack() > 0 or forward_ad._current_level >= 0


def autocast_dtype() -> torch.dtype | None:
    """Return the type that autocast computes in on a CPU; None where it is off."""
    if hasattr(torch, 'get_autocast_dtype'):
        return torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


def compute_dtype(*operands: torch.Tensor) -> torch.dtype | None:
    """Return the type that an operator on a CPU computes in; None where it would mix types."""
    types, autocast = {operand.dtype for operand in operands}, autocast_dtype()
    if autocast is None:
        return types.pop() if len(types) == 1 else None
    return autocast if types <= CAST_TYPES else None


def require_export() -> None:
    """Refuse to export where torch lacks what it takes.

    Raises:
        UserError: torch is too old.
    """
    if not CAN_EXPORT:
        raise UserError(
            f'mmuniformer export needs torch {EXPORT_TORCH} or later, this is {torch.__version__}: '
            'checkpoints of any torch can be exported where a later one is installed'
        )


def apply() -> None:
    """Apply every fix; doing it again changes nothing."""
    allow_training_checkpoints()
    keep_mmengine_from_running_checkpoints()
    find_shipped_bases()
    stand_in_for_drn()


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
    """Make mmengine's loader refuse code.

    Symptom: a malicious file's code runs on ``load_from``, ``--resume`` and ``mim test``. Below
    torch 2.6 mmengine loads without ``weights_only``; the fork onedl-mmengine reads a file that
    was refused once more without it.
    """
    if hasattr(mmengine_checkpoint, '_safe_torch_load'):
        mmengine_checkpoint._safe_torch_load = _CheckedTorch.load
    elif not TORCH_HAS_ALLOW_LIST:
        mmengine_checkpoint.torch = _CheckedTorch()


def find_shipped_bases() -> None:
    """Let configs inherit from ours: ``_base_ = 'mmuniformer::det/NAME.py'``.

    Symptom: ``mmengine does not support to load mmuniformer config``. Its table of packages is
    fixed, and it would look up a package's types in the scope of its name; ours have those of the
    three frameworks. Other bases are found as before.
    """
    find = getattr(Config, '_get_cfg_path', None)
    if find is None or hasattr(find, 'others'):
        return

    def find_shipped(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition('::')
        if package != 'mmuniformer':
            return find(cfg_path, filename)
        path = CONFIGS / f'{name.removesuffix(".py")}.py'
        if not path.is_file():  # file names are unique: the folder does not matter
            path = next(CONFIGS.rglob(path.name), path)
        return str(path), None

    find_shipped.others = find
    Config._get_cfg_path = staticmethod(find_shipped)


def stand_in_for_drn() -> None:
    """Let ``mmaction.models`` import.

    Symptom: ``No module named 'mmaction.models.localizers.drn'``: mmaction2's wheel lacks this
    folder, a localizer that nothing else needs.
    """
    name = 'mmaction.models.localizers.drn'
    spec = importlib.util.find_spec('mmaction')
    if spec is None or spec.origin is None:
        return
    folder = os.path.join(os.path.dirname(spec.origin), 'models', 'localizers')
    if os.path.isdir(folder) and not os.path.isdir(os.path.join(folder, 'drn')):
        package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
        package.__path__, module.DRN = [], None
        for stand_in in (package, module):
            sys.modules.setdefault(stand_in.__name__, stand_in)


class _CheckedTorch:
    """torch as mmengine's module of loaders sees it: ``load`` is ``load_file``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load_file(file, map_location)


def load_file(
    file: str | os.PathLike | BinaryIO, map_location: Any = None, mmap: bool | None = None
) -> Any:
    """Read a checkpoint on any torch without running code that it may hold.

    ``mmap`` leaves the tensors of a path's file on the disk until they are used.

    Raises:
        pickle.UnpicklingError: It asks for more than tensors, plain values and training history.
    """
    _refuse_archives(file)
    if TORCH_HAS_ALLOW_LIST:
        return torch.load(file, map_location=map_location, weights_only=True, mmap=mmap)
    # The restricted unpickler takes the place of weights_only: torch takes one or the other.
    return torch.load(
        file,
        map_location=map_location,
        weights_only=False,
        pickle_module=_RestrictedPickle,
        mmap=mmap,
    )


def _refuse_archives(file: str | os.PathLike | BinaryIO) -> None:
    """Refuse what torch below 2.6 reads without an unpickler; later ones refuse it, too.

    A TorchScript file is run. Unpacking a tar archive changes the mode of files that it links to.
    """
    stream = hasattr(file, 'read')
    if tarfile.is_tarfile(file):
        raise pickle.UnpicklingError('GLOBAL tarfile.extract is needed: this is a tar archive')
    try:
        if stream:
            file.seek(0)
        # torch's own reader, by which torch.load decides
        reader = torch._C.PyTorchFileReader(file if stream else os.fspath(file))
        if 'constants.pkl' in reader.get_all_records():
            raise pickle.UnpicklingError('GLOBAL torch.jit.load is needed: this is TorchScript')
    except RuntimeError:  # no zip archive: torch.load says what it is
        pass
    finally:
        if stream:
            file.seek(0)


def _name_in_file(entry: object) -> str:
    """Return the name under which torch looks an allowed object up."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


class _History:
    """A HistoryBuffer in a file: it becomes one, made of its numbers alone.

    HistoryBuffer itself would put what a file gives as its statistics into a table of its class.
    """

    def __setstate__(self, state: dict) -> None:
        histories = state['_log_history'], state['_count_history']
        if not all(type(history) is np.ndarray for history in histories):
            raise pickle.UnpicklingError(f'the training history holds {state!r}, no arrays')
        self.__class__ = HistoryBuffer
        self.__init__(*histories, state['max_length'])


def _get_statistic(owner: object, name: object) -> object:
    """Stand in for ``getattr`` inside checkpoints.

    A HistoryBuffer is pickled with its own methods, each as ``getattr(HistoryBuffer, 'mean')``.
    The real ``getattr`` would hand a file every attribute of every allowed object.
    """
    if isinstance(name, str) and name in ('min', 'max', 'current', 'mean'):
        if owner is _History:
            return None  # it does not look at them
        if owner is HistoryBuffer:  # allowed by another package
            return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}, which no training history '
        'needs: it may be malicious and was not loaded'
    )


_NUMBERS = {
    dtype.str[1:]: dtype
    for dtype in map(np.dtype, ('bool', 'uint8', 'int32', 'int64', 'float32', 'float64'))
}
"""Losses, metrics, and the keypoint tables of datasets, by their names in a file."""


def _number_type(name: object, *_: object) -> np.dtype:
    """Stand in for ``numpy.dtype`` inside checkpoints.

    A dtype takes any state that a file gives it. One that involves Python objects would make
    numpy follow pointers that the file holds.
    """
    if not isinstance(name, str) or name not in _NUMBERS:
        raise pickle.UnpicklingError(
            f'Weights only load failed: GLOBAL numpy.dtype({name!r}) is no type of numbers'
        )
    return np.dtype(_NUMBERS[name], copy=True)


_ALLOWED = {
    f'{HistoryBuffer.__module__}.HistoryBuffer': _History,
    'builtins.getattr': _get_statistic,
    'builtins.bytes': bytes,  # of empty arrays
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': _number_type,
    # Options of the scripts that the released files were trained with.
    'argparse.Namespace': argparse.Namespace,
    **{_name_in_file(type(dtype)): type(dtype) for dtype in _NUMBERS.values()},
}
"""What training checkpoints hold beside tensors and plain values, by its name in the file."""
# numpy 2 moved the module; files carry the name of the numpy that wrote them.
for _module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
    _ALLOWED[f'{_module}._reconstruct'] = np.empty(0).__reduce__()[0]
    _ALLOWED[f'{_module}.scalar'] = np.float64(0).__reduce__()[0]


class _RestrictedUnpickler(pickle._Unpickler):
    """Calls and fills only what torch's ``weights_only`` or ``_ALLOWED`` knows.

    A subclass of the one written in Python: the C version does not ask before it calls an object
    or sets attributes of one.
    """

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)
    filled = (
        *(torch.Tensor, OrderedDict),
        *(value for value in _ALLOWED.values() if isinstance(value, type)),
    )

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

    def load_call(self) -> None:
        """Call a known function or class; it lies below its arguments on the stack."""
        if not any(self.stack[-2] is value for value in self.known.values()):
            raise pickle.UnpicklingError(f'Weights only load failed: {self.stack[-2]!r} is called')
        super().load_reduce()

    def load_build(self) -> None:
        """Set the state of an instance of a known class."""
        if not isinstance(self.stack[-2], self.filled):
            raise pickle.UnpicklingError(f'Weights only load failed: {self.stack[-2]!r} is changed')
        super().load_build()

    def load_binpersid(self) -> None:
        """Read a tensor's storage; for a module torch would write a patch of its source code."""
        pid = self.stack[-1]
        if not isinstance(pid, tuple) or pid[:1] != ('storage',):
            raise pickle.UnpicklingError(f'Weights only load failed: {pid!r} is no storage')
        super().load_binpersid()

    def load_unused(self) -> None:
        """Refuse other ways to make objects, which torch.save does not use."""
        raise pickle.UnpicklingError('WeightsUnpickler error: Unsupported operand')

    dispatch |= {pickle.REDUCE[0]: load_call, pickle.NEWOBJ[0]: load_call}
    dispatch |= {pickle.BUILD[0]: load_build, pickle.BINPERSID[0]: load_binpersid}
    for _code in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.PERSID),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
    ):
        dispatch[_code[0]] = load_unused


class _RestrictedPickle:
    """What torch.load asks of a pickle module."""

    Unpickler = _RestrictedUnpickler

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        """Read one object."""
        return _RestrictedUnpickler(file, **options).load()
