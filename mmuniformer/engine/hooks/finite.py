"""A hook that finds NaN and Inf at the step where they arise, before they spoil the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmuniformer.engine.checkpoint import unwrapped
from mmuniformer.engine.distributed import highest
from mmuniformer.engine.hooks.interrupt import save_state
from mmuniformer.engine.loops import EpochLoop
from mmuniformer.errors import UserError
from mmuniformer.registry import HOOKS

ACTIONS = ('stop', 'skip', 'lower')
NAMED = 8
"""Images of a batch that a message names."""


@HOOKS.register_module()
class FiniteHook(Hook):
    """Leave out an optimizer step on NaN or Inf in loss or gradients, and say where they come from.

    Weights and BatchNorm's statistics stay those from before the iteration. The weights after the
    step and BatchNorm's statistics are checked, too. In fp16 the gradient scaler leaves
    out steps of its own accord; these are none of this hook's.

    Args:
        action: What comes next. ``'stop'`` saves the good weights and ends the run; ``'skip'`` goes
            on with the next batch; ``'lower'`` does so at a learning rate times ``factor``.
        factor: Of the learning rate, in (0, 1).
        limit: Iterations in a row without a step after which the run is stopped all the same.

    Raises:
        UserError: An argument is of no use.

    Example:
        >>> default_hooks = dict(finite=dict(type='mmuniformer.FiniteHook', action='skip'))
    """

    # First: no other hook should see weights and statistics that are about to be put back.
    priority = 'HIGHEST'

    def __init__(self, action: str = 'stop', factor: float = 0.5, limit: int = 20):
        if action not in ACTIONS:
            raise UserError(
                f'default_hooks.finite.action={action!r}: choose one of {", ".join(ACTIONS)}'
            )
        if not 0 < factor < 1:
            raise UserError(f'default_hooks.finite.factor={factor!r} should lie in (0, 1)')
        self.action, self.factor, self.limit = action, factor, limit
        self.in_a_row = 0
        self.worst: str | None = None
        self.losses: list[Tensor] = []
        self.statistics: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        """Have the optimizers ask before they step."""
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        self.names = {value: name for name, value in entries(model)}
        for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            ask_first(each.optimizer, 'step', self.before_step)
            ask_first(each, 'backward', self.before_backward)
            if getattr(each, 'clip_grad_kwargs', None):
                # Clipping spreads NaN over all gradients: look where it is before.
                each.clip_func = LooksFirst(each.clip_func, self)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep BatchNorm's statistics, which change in the forward pass."""
        self.worst, self.losses = None, []
        if not self.statistics:
            buffers = unwrapped(runner.model).buffers()
            # Masks hold -Inf from the start.
            self.statistics = [(each, each.clone()) for each in buffers if all_finite([each])]
        if self.statistics:
            buffers, kept = zip(*self.statistics, strict=True)
            torch._foreach_copy_(kept, buffers)

    def look(self, parameters: Iterable[nn.Parameter]) -> None:
        """Remember the worst gradient, if one is not finite."""
        having = [each for each in parameters if each.grad is not None]
        if self.worst is None and not all_finite(each.grad for each in having):
            shares = [(bad_share(each.grad), i) for i, each in enumerate(having)]
            share, index = max(shares)  # of equal ones the last: the nearest to the loss
            count = sum(share > 0 for share, _ in shares)
            name = self.names.get(having[index], 'a parameter')
            self.worst = (
                f'the gradients of {count} of {len(having)} parameters are not finite, worst '
                f'{name} ({share:.0%} of its values)'
            )

    def before_backward(self, wrapper: OptimWrapper, loss: Tensor, **_: Any) -> None:
        """Remember a loss: one that is NaN can have gradients that are finite."""
        self.losses.append(loss.detach())

    def before_step(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Leave a parameter without a gradient as it is: that is what optimizers do."""
        parameters = [each for group in optimizer.param_groups for each in group['params']]
        self.look(parameters)
        if self.worst is None and not all_finite(self.losses):
            self.worst = 'the loss is not finite, although its gradients are'
        # The gradients of all processes are the same, their losses are not.
        if highest(self.worst is not None):
            for parameter in parameters:
                parameter.grad = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Say what was found, and go on as asked for.

        Raises:
            UserError: The run is to stop, or weights are not finite after a step.
        """
        losses = {
            name: value.detach().float().sum().item()
            for name, value in (outputs or {}).items()
            if 'loss' in name and isinstance(value, Tensor) and not all_finite([value])
        }
        # While gradients are accumulated, one process may see what the others do not.
        if highest(bool(losses or self.worst)):
            self.act(runner, batch_idx, data_batch, losses)
            return
        self.in_a_row = 0
        buffers = [buffer for buffer, _ in self.statistics]
        values = [*unwrapped(runner.model).parameters(), *buffers]
        if not all_finite(values):
            name = self.names[next(value for value in values if bad_share(value))]
            raise UserError(
                f'iteration {runner.iter + 1}: {name} is not finite after the step, although loss '
                'and gradients were: the learning rate is too high. The last checkpoint in '
                f'{runner.work_dir} is from before'
            )

    def act(
        self, runner: Runner, batch_idx: int, data_batch: Any, losses: Mapping[str, float]
    ) -> None:
        """Put the statistics back, report, and stop or go on."""
        for buffer, kept in self.statistics:
            buffer.copy_(kept)
        runner.optim_wrapper.zero_grad()  # what was accumulated before holds it, too
        found = [', '.join(f'{name} is {value}' for name, value in losses.items())] * bool(losses)
        found += [self.worst] * bool(self.worst)
        found = found or ['another process has met NaN or Inf, see its message']
        text = f'iteration {runner.iter + 1}: {"; ".join(found)}. Images: {images(data_batch)}'
        self.in_a_row += 1
        if self.action == 'stop' or self.in_a_row >= self.limit:
            done = batch_idx if isinstance(runner.train_loop, EpochLoop) else 0
            path = save_state(runner, runner.iter, done) if runner.iter else None
            kept = f'The weights from before are saved in {path}. ' if path else ''
            raise UserError(
                f'{text}. {kept}Look at these images; lower optim_wrapper.optimizer.lr or set '
                'optim_wrapper.clip_grad; or go on with --resume --cfg-options '
                'default_hooks.finite.action=skip (or lower)'
            )
        if self.action == 'lower':
            for group in groups_of(runner.optim_wrapper):
                group['lr'] *= self.factor
            text += f'. The learning rate is lowered to {self.factor:g} times'
        runner.logger.warning(f'{text}. The step is left out')


class LooksFirst:
    """A function that clips gradients, after the hook has looked at them."""

    def __init__(self, clip: Any, hook: FiniteHook):
        self.clip, self.hook = clip, hook

    def __call__(self, parameters: Iterable[nn.Parameter], **kwargs: Any) -> Any:
        """Look, and clip."""
        parameters = list(parameters)
        self.hook.look(parameters)
        return self.clip(parameters, **kwargs)


def ask_first(owner: Any, method: str, ask: Callable[..., None]) -> None:
    """Call ``ask`` with the owner and the arguments before each call of its method.

    PyTorch 2.1 drops its own hooks of steps once anything in the process was compiled.
    """
    call = getattr(owner, method)

    @functools.wraps(call)
    def asking(*args: Any, **kwargs: Any) -> Any:
        ask(owner, *args, **kwargs)
        return call(*args, **kwargs)

    setattr(owner, method, asking)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether floating-point tensors hold neither NaN nor Inf."""
    dense = [
        tensor.detach()
        for tensor in tensors
        if tensor.is_floating_point() and tensor.numel() and tensor.layout is torch.strided
    ]
    if not dense:
        return True
    device = dense[0].device
    largest = [each.float().to(device) for each in torch._foreach_norm(dense, float('inf'))]
    return bool(torch.stack(largest).isfinite().all())


def bad_share(tensor: Tensor) -> float:
    """Return the share of values that are NaN or Inf."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0
    return 1 - tensor.detach().isfinite().float().mean().item()


def entries(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what a model learns and BatchNorm's statistics, by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def groups_of(wrapper: Any) -> Iterator[dict[str, Any]]:
    """Yield the parameter groups of all optimizers."""
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        yield from each.optimizer.param_groups


def images(batch: Any) -> str:
    """Name the images of a batch."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    if not isinstance(samples, (list, tuple)):
        return 'unknown'
    names = []
    for sample in samples[:NAMED]:
        path, number = getattr(sample, 'img_path', None), getattr(sample, 'img_id', None)
        parts = [path or '', '' if number is None else f'(id {number})']
        names.append(' '.join(filter(None, parts)))
    more = f' and {len(samples) - NAMED} more' if len(samples) > NAMED else ''
    return ', '.join(names) + more
