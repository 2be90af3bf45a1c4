"""On the path while mmcv is built on Python 3.13: setup.py reads its version by a bare ``exec``.

Up to 3.12 that leaves the names of the code in ``locals()`` of the function that calls it.
"""

import builtins
import sys

_exec = builtins.exec


def _exec_into_caller(code, namespace=None, *others, **options):
    if namespace is None:
        caller = sys._getframe(1)
        namespace, others = caller.f_globals, (caller.f_locals,)
    _exec(code, namespace, *others, **options)


builtins.exec = _exec_into_caller
