"""The registry scope ``mmuniformer``: children of mmengine's root registries.

``type='mmuniformer.UniFormer'`` resolves from mmdet, mmsegmentation and mmpose without an import of
this package: mmengine imports ``mmuniformer.registry`` for the prefix, and the registry imports its
``locations`` on the first look-up.
"""

from collections.abc import Mapping
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry

SCOPE = 'mmuniformer'

MODELS = Registry('model', parent=root.MODELS, scope=SCOPE, locations=['mmuniformer.models'])
HOOKS = Registry('hook', parent=root.HOOKS, scope=SCOPE, locations=['mmuniformer.engine.hooks'])
RUNNERS = Registry(
    'runner', parent=root.RUNNERS, scope=SCOPE, locations=['mmuniformer.engine.runner']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=['mmuniformer.engine.optim'],
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler',
    parent=root.PARAM_SCHEDULERS,
    scope=SCOPE,
    locations=['mmuniformer.engine.schedule'],
)
# These need mmcv, which every framework has, and none of the frameworks.
DATASETS = Registry(
    'dataset', parent=root.DATASETS, scope=SCOPE, locations=['mmuniformer.datasets.video']
)
TRANSFORMS = Registry(
    'transform',
    parent=root.TRANSFORMS,
    scope=SCOPE,
    locations=['mmuniformer.datasets.image', 'mmuniformer.datasets.video'],
)


def type_name(settings: Mapping[str, Any]) -> str:
    """Return the name of the class that settings build, whether ``type`` is a class or a string."""
    kind = settings.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def class_of(settings: Mapping[str, Any], registry: Registry = root.MODELS) -> Any:
    """Return the class that settings build in the current scope; None if it is not registered."""
    kind = settings.get('type')
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as current:
        return current.get(kind)
