"""Checkpoints that would create a file if anything in them were run."""

import copyreg
import functools
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class Reduced:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class CallPickler(pickle._Pickler):
    """Pickles Reduced as written, also where the function is itself Reduced."""

    def save_reduce(self, func, args, *rest, obj=None, **named):
        if isinstance(func, Reduced):
            self.save(func)
            self.save(args)
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(func, args, *rest, obj=obj, **named)


def touch(mark):
    return Reduced(os.system, f'touch {mark}')


CALLS = {
    'os.system': touch,
    'eval': lambda mark: Reduced(eval, f'open({str(mark)!r}, "w")'),
    'exec': lambda mark: Reduced(exec, f'open({str(mark)!r}, "w")'),
    'open': lambda mark: Reduced(open, str(mark), 'w'),
    'getattr on a module': lambda mark: Reduced(
        Reduced(getattr, Reduced(__import__, 'os'), 'system'), f'touch {mark}'
    ),
    'partial': lambda mark: Reduced(functools.partial(os.system, f'touch {mark}')),
    'object array': lambda mark: np.array([touch(mark)], dtype=object),
    'hooks of a parameter': lambda mark: Reduced(
        torch._utils._rebuild_parameter, torch.zeros(1), False, OrderedDict(hook=touch(mark))
    ),
    'state of a history': lambda mark: Reduced(
        HistoryBuffer, [1.0], [1], SimpleNamespace(hook=touch(mark))
    ),
}
"""Calls that create the file ``mark`` as soon as they are unpickled freely."""

STEPS = {
    'globals of a method': lambda mark: Reduced(
        getattr, Reduced(getattr, HistoryBuffer, 'mean'), '__globals__'
    ),
    'private method': lambda mark: Reduced(getattr, HistoryBuffer, '__init__'),
    'class of a class': lambda mark: Reduced(getattr, HistoryBuffer, '__class__'),
    'method of an array': lambda mark: Reduced(getattr, np.ndarray, 'tofile'),
    'bound method': lambda mark: Reduced(getattr, np.zeros(1), 'tofile'),
    'function of torch': lambda mark: Reduced(torch.hub.load, str(mark)),
    'pointers to objects': lambda mark: Reduced(np.dtype, 'O', False, True),
    'calling a statistic': lambda mark: Reduced(
        Reduced(getattr, HistoryBuffer, 'mean'), HistoryBuffer([1.0], [1])
    ),
    'extension code': lambda mark: Reduced(copyreg.add_extension, 'os', 'system', 1),
}
"""What leads from an allowed object to the system, or prepares that."""


def save(payload, path, place='payload', zipped=True):
    """Write a checkpoint as torch.save does, with the payload at one place of it."""
    content = {'state_dict': {'weight': torch.zeros(1)}}
    *outer, last = place.split('.')
    inner = content
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = payload
    module = ModuleType('calls')
    module.Pickler, module.dump = CallPickler, dump
    torch.save(content, path, pickle_module=module, _use_new_zipfile_serialization=zipped)


def dump(content, file, protocol=2):
    CallPickler(file, protocol=protocol).dump(content)


def dumped(content):
    file = io.BytesIO()
    dump(content, file)
    return file.getvalue()


def zip_code(code, path):
    """Write an archive as torch.save does around the code of a pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', code)
        archive.writestr('archive/version', b'3\n')


def write_tar(mark, path, zipped=False):
    """Write the format of torch 0.1, which is unpacked before it is read."""
    with tarfile.open(path, 'w') as tar:
        for name, code in (
            ('storages', dumped(touch(mark))),
            ('tensors', dumped(0)),
            ('pickle', dumped({'state_dict': {}})),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(code)
            tar.addfile(member, io.BytesIO(code))
    if zipped:  # one file can be both; torch looks at its start
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr('archive/data.pkl', b'N.')
            archive.writestr('archive/version', b'3')


def write_script(mark, path):
    """Write TorchScript whose ``__setstate__`` maps the file ``mark``, which creates it."""
    name = f'Script{abs(hash(mark))}'  # torch compiles a class of one name once
    module = type(name, (torch.jit.ScriptModule,), {})()
    module.define(
        'def __getstate__(self) -> int:\n'
        '    return 1\n'
        'def __setstate__(self, state: int) -> None:\n'
        '    self.training = True\n'
        f'    print(torch.from_file({str(mark)!r}, True, 1, dtype=torch.uint8))\n'
    )
    module.save(str(path))


def write_import(mark, path):
    """Write a state dict of a class from a module that lies beside the file."""
    path.with_name('imported.py').write_text(f'open({str(mark)!r}, "w")\nStateDict = dict\n')
    zip_code(b'\x80\x02cimported\nStateDict\n)R.', path)


def text(value):
    """Push a text."""
    encoded = value.encode()
    return b'X' + struct.pack('<I', len(encoded)) + encoded


def code(before, after):
    """Write a pickle by hand around the command."""
    return lambda mark, path: zip_code(before + text(f'touch {mark}') + after, path)


WRITERS = {
    **{name: lambda mark, path, call=call: save(call(mark), path) for name, call in CALLS.items()},
    **{
        f'in {place}': lambda mark, path, place=place: save(touch(mark), path, place)
        for place in ('state_dict.weight', 'meta.dataset_meta', 'optimizer.state', 'message_hub.x')
    },
    'not zipped': lambda mark, path: save(touch(mark), path, zipped=False),
    'bare pickle': lambda mark, path: path.write_bytes(dumped({'model': {}, 'x': touch(mark)})),
    'tar': write_tar,
    'tar and zip': lambda mark, path: write_tar(mark, path, zipped=True),
    'TorchScript': write_script,
    'class of a module beside it': write_import,
    'INST': code(b'(', b'ios\nsystem\n.'),
    'OBJ': code(b'(cos\nsystem\n', b'o.'),
    'STACK_GLOBAL': code(b'\x80\x04\x8c\x02os\x8c\x06system\x93', b'\x85R.'),
    'within a persistent id': code(b'\x80\x02(X\x07\x00\x00\x00storagecos\nsystem\n', b'\x85RtQ.'),
    'persistent id of a text': code(b'cos\nsystem\n', b'\x85R.P1\n.'),
}
"""Functions of ``mark`` and the path to write; read freely, each creates the file ``mark``."""
