"""UniFormer backbones for the OpenMMLab frameworks.

After ``import mmuniformer`` the types ``UniFormer`` and ``UniFormerLight`` are known to mmengine's
root registry, hence to mmdet, mmsegmentation and mmpose. In configs the scoped names
(``mmuniformer.UniFormer``) need no import at all.
"""

import importlib
import warnings

from mmuniformer.version import __version__

_LATE = {
    'get_model': 'mmuniformer.apis.models',
    'list_models': 'mmuniformer.apis.models',
    'Predictor': 'mmuniformer.apis.inference.predictor',
}
"""Imported when they are asked for, by where they are."""

__all__ = ['UniFormer', 'UniFormer3D', 'UniFormerLight', 'UniFormerLight3D', '__version__', *_LATE]

# `mmuniformer doctor` lives in this package and has to start where torch or mmengine is missing or
# broken. There the package imports with a warning, and whatever needs them raises the reason when
# it is used. Nothing is skipped in silence: without mmengine there is no registry to be missed in.
_broken = None
try:
    import mmengine.registry
    import torch  # noqa: F401
except Exception as error:  # a broken install raises OSError, RuntimeError, AttributeError, ...
    _broken = error
    warnings.warn(
        f'mmuniformer cannot be used here: {type(error).__name__}: {error}. '
        'Run `mmuniformer doctor` to see what to do.',
        RuntimeWarning,
        stacklevel=2,
    )
else:
    from mmuniformer import compat
    from mmuniformer.models import UniFormer, UniFormer3D, UniFormerLight, UniFormerLight3D
    from mmuniformer.models.weights.files import load_more_kinds_of_checkpoints

    compat.apply()
    load_more_kinds_of_checkpoints()
    # force: importing twice is no error. The scoped registration is the models' own.
    for _model in (UniFormer, UniFormer3D, UniFormerLight, UniFormerLight3D):
        mmengine.registry.MODELS.register_module(force=True, module=_model)


def __getattr__(name: str):
    """Import late, or raise why the package could not be set up instead of an AttributeError."""
    if _broken is not None and name in __all__:
        raise ImportError(f'mmuniformer.{name} needs torch and mmengine: {_broken}') from _broken
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
