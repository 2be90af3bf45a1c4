"""Layer-wise learning-rate decay: the deeper a parameter lies, the faster it learns."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmuniformer.errors import UserError
from mmuniformer.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scale the learning rate of a backbone's layers by how deep they lie.

    The backbone knows the depth (``get_layer_depth``): a parameter at depth ``i`` of ``n`` learns
    at ``layer_decay_rate ** (n - 1 - i)`` times the rate that mmengine's default constructor gives
    it. So the stem is slowest, and output norms, necks and heads keep the full rate. Everything
    else in ``paramwise_cfg`` (``custom_keys``, ``norm_decay_mult``, ...) works as usual. Parameters
    with equal settings share a group.

    ``layer_decay_rate`` is the factor from a layer to the one before it, in (0, 1].

    Raises:
        UserError: The rate is outside (0, 1], the optimizer has no ``lr``, or no part of the model
            knows the depth of its layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.decay = self.paramwise_cfg.get('layer_decay_rate')
        if type(self.decay) not in (int, float) or not 0 < self.decay <= 1:
            raise UserError(
                f'layer_decay_rate={self.decay!r} should lie in (0, 1]: set '
                'optim_wrapper.paramwise_cfg.layer_decay_rate, for example to 0.75'
            )
        if self.base_lr is None:
            raise UserError('layer-wise decay scales a rate: set optim_wrapper.optimizer.lr')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        """Add the groups of a model to ``params``.

        mmengine calls this on the model, and the default constructor again on every part of it.
        """
        if prefix:
            super().add_params(params, module, prefix, **kwargs)
            return
        factors = layer_factors(module, self.decay)
        single: list[dict] = []
        super().add_params(single, module, **kwargs)
        groups: dict[str, dict] = {}
        for entry in single:
            (parameter,) = entry['params']
            entry['lr'] = entry.get('lr', self.base_lr) * factors.get(parameter, 1.0)
            settings = {key: value for key, value in entry.items() if key != 'params'}
            group = groups.setdefault(repr(sorted(settings.items())), {'params': [], **settings})
            group['params'].append(parameter)
        params.extend(sorted(groups.values(), key=lambda group: group['lr']))
        print_log(
            f'layer-wise decay {self.decay}: {len(single)} parameters in {len(groups)} groups, '
            f'learning rates from {params[0]["lr"]:.3g} to {params[-1]["lr"]:.3g}',
            logger='current',
        )


def layer_factors(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of every parameter that lies in a part that knows its layers' depth."""
    factors = {}
    for part in model.modules():
        if hasattr(part, 'get_layer_depth'):
            for name, parameter in part.named_parameters():
                depth, num_layers = part.get_layer_depth(name)
                factors[parameter] = decay ** (num_layers - 1 - depth)
    if not factors:
        raise UserError(
            'layer-wise decay asks the backbone for the depth of its layers, and '
            f'{type(getattr(model, "backbone", model)).__name__} has no get_layer_depth: use a '
            'backbone of mmuniformer, or take optim_wrapper.constructor out of the config'
        )
    return factors
