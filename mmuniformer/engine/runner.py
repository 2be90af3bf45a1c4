"""mmengine's runner with checks before a run, bf16, and rates that count accumulated batches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process, master_only
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.model import convert_sync_batchnorm, is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, MODEL_WRAPPERS, OPTIM_WRAPPERS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mmuniformer.datasets.checks.classes import check_classes, check_counts
from mmuniformer.datasets.checks.config import is_remote
from mmuniformer.datasets.checks.dataset import checked_on_load
from mmuniformer.datasets.checks.pose import check_outputs
from mmuniformer.datasets.checks.scoring import check_scoring, check_scoring_file
from mmuniformer.datasets.checks.token_maps import check_maps
from mmuniformer.engine.checkpoint import unwrapped
from mmuniformer.engine.distributed import check_launcher, join_on_cpu, sync_on_cpu
from mmuniformer.engine.faults import explained, way_on
from mmuniformer.engine.fused import keep_step, with_fused_step
from mmuniformer.engine.hooks.checkpoint import CheckpointHook
from mmuniformer.engine.loops import resumable_loop
from mmuniformer.engine.precision import keep_interfaces_in_float32
from mmuniformer.engine.saving import resumable, whole_beside
from mmuniformer.engine.scoring import score_faster
from mmuniformer.engine.workers import PatientWorker, leaves, name_samples
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models.weights.files import fetch, load_state_dict_file, whole_file
from mmuniformer.registry import RUNNERS, class_of

FRAMEWORKS = ('mmdet', 'mmseg', 'mmpose', 'mmuniformer')


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """Check files first: the frameworks fail deep inside, or leave data out silently.

    ``check_data = False`` in the config skips the checks of data. Whole models train in bf16
    (``train``), and rates count accumulated batches (``scale_lr``).
    """

    classes: tuple[str, ...] | None = None
    """Names in the datasets of a classifier that were built so far."""

    def __init__(self, model: nn.Module | dict, work_dir: str, *args: Any, **kwargs: Any):
        try:
            Path(work_dir).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=work_dir).close()
        except OSError as error:
            reason = f'{work_dir}: {error.strerror}'
            raise UserError(f'{reason}. Name another folder with --work-dir.') from None
        super().__init__(model, work_dir, *args, **kwargs)

    def setup_env(self, env_cfg: Mapping[str, Any]) -> None:
        """Set up as mmengine does; without a GPU the processes of a run join through gloo."""
        if self.distributed:
            check_launcher(self.launcher)
            if not is_distributed() and get_device() == 'cpu':
                join_on_cpu(self.launcher, env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    def wrap_model(
        self, model_wrapper_cfg: Mapping[str, Any] | None, model: nn.Module
    ) -> nn.Module:
        """Wrap as mmengine does; without a GPU in what works on CPUs."""
        if not self.distributed or get_device() != 'cpu' or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if self.cfg.get('sync_bn'):
            model = convert_sync_batchnorm(model)
        sync_on_cpu(model)
        settings = {'type': 'MMDistributedDataParallel', **(model_wrapper_cfg or {})}
        if issubclass(class_of(settings, MODEL_WRAPPERS), DistributedDataParallel):
            settings.setdefault('broadcast_buffers', False)
            unused = self.cfg.get('find_unused_parameters', False)
            settings.setdefault('find_unused_parameters', unused)
        return MODEL_WRAPPERS.build(settings, default_args={'module': model})

    def register_hook(self, hook: Hook | dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Register as mmengine does; its CheckpointHook becomes the one that loses nothing."""
        if isinstance(hook, Mapping) and class_of(hook, HOOKS) is MMEngineCheckpointHook:
            hook = {**hook, 'type': CheckpointHook}
        super().register_hook(hook, *args, **kwargs)

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """Build as mmengine does, a loop that can go on in the middle of an epoch."""
        return super().build_train_loop(resumable_loop(loop))

    def train(self) -> nn.Module:
        """Check checkpoint and data, then train.

        In bf16 (``optim_wrapper.dtype``) the parts of the model hand float32 to each other, as
        mmcv's operators and NumPy know no bf16.
        """
        wrapper = self.optim_wrapper
        check_precision(wrapper)
        if self._resume and self._load_from is None:
            last = resumable(self.work_dir)
            self._load_from = last and str(last)
        self.check('train', 'val')
        if isinstance(wrapper, Mapping) and wrapper.get('dtype') in ('bfloat16', torch.bfloat16):
            keep_interfaces_in_float32(self.model)
        try:
            with explained(self):
                return super().train()
        finally:
            for loop in (self._train_loop, self._val_loop):
                if isinstance(loop, BaseLoop):
                    PatientWorker.release(loop)

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Build as mmengine does, with an optimizer that steps in one kernel (``engine.fused``)."""
        return super().build_optim_wrapper(with_fused_step(optim_wrapper, get_device()))

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume as mmengine does, also what was trained by another stack."""
        super().resume(*args, **kwargs)
        if not isinstance(self.optim_wrapper, Mapping):
            keep_step(self.optim_wrapper)

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: Mapping[str, Any] | None = None
    ) -> None:
        """Scale the rate to the batch size, as mmengine does, but counting accumulated batches.

        mmengine counts the images of one forward pass on all GPUs, and trains too slowly where a
        step takes several. ``base_batch_size`` times ``auto_scale_lr.accumulative_counts`` (1 by
        default) is what the configured rate is for.
        """
        if auto_scale_lr and 'base_batch_size' in auto_scale_lr:
            counts = getattr(optim_wrapper, '_accumulative_counts', 1)
            factor = auto_scale_lr.get('accumulative_counts', 1) / counts
            base = auto_scale_lr['base_batch_size'] * factor
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def val(self) -> dict[str, float]:
        """Check checkpoint and data as ``train`` does, then validate."""
        self.check('val')
        with explained(self):
            return super().val()

    def test(self) -> dict[str, float]:
        """Check checkpoint and data as ``train`` does, then test."""
        self.check('test')
        with explained(self):
            return super().test()

    def check(self, *splits: str) -> None:
        """Check, on one process, the checkpoint and the data of splits that are still configs.

        COCO files are checked as the loaders are built: see ``checked_on_load``.
        """
        if not is_main_process():
            return
        if self._load_from and '://' not in str(self._load_from):
            fetch(str(self._load_from))
        if not self.cfg.get('check_data', True):
            return
        if 'train' in splits:
            check_counts(self.cfg.get('model') or {})
        for split in splits:
            loader = getattr(self, f'_{split}_dataloader')
            if isinstance(loader, Mapping):
                checked = {**loader, 'dataset': checked_on_load(loader['dataset'])}
                check_outputs(loader['dataset'], unwrapped(self.model))
                setattr(self, f'_{split}_dataloader', checked)
            for _, file in self.scored_by(split):
                if not Path(file).is_file():
                    raise UserError(
                        f'{file}, by which predictions are scored, does not exist: set '
                        f'{split}_evaluator.ann_file to the file of the {split} data'
                    )

    def scored_by(self, split: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Yield the configs of metrics that read a local file, and the file."""
        metrics = getattr(self, f'_{split}_evaluator', None)  # one, several or in an evaluator
        metrics = metrics.get('metrics', metrics) if isinstance(metrics, Mapping) else metrics
        for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
            file = metric.get('ann_file') if isinstance(metric, Mapping) else None
            if file and '://' not in file and not is_remote(metric.get('backend_args')):
                yield metric, file

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build as mmengine does, and check what the evaluator will need."""
        with self.named_files('val'):
            return self.checked(super().build_val_loop(loop), 'val')

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build as mmengine does, and check what the evaluator will need."""
        with self.named_files('test'):
            return self.checked(super().build_test_loop(loop), 'test')

    @contextmanager
    def named_files(self, split: str) -> Iterator[None]:
        """Say what is wrong with a file on which building a metric inside fails."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            for metric, file in self.scored_by(split):
                try:
                    check_scoring_file(metric, file)
                except UserError as reason:
                    raise reason from error
            raise

    def checked(self, loop: BaseLoop, split: str) -> BaseLoop:
        """Return a loop whose metrics have what they need, and score COCO by what is faster."""
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
        score_faster(metrics)
        if self.cfg.get('check_data', True) and hasattr(loop, 'dataloader'):
            check_scoring(metrics, loop.dataloader.dataset, split)
            if split == 'val':
                for hook in self.hooks:
                    check_best(getattr(hook, 'save_best', None), metrics)
        return loop

    def build_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """Build as mmengine does, and refuse a dataset that filters have emptied.

        What fails on a sample later names it. Processes that load data outlast a signal to end
        until the state is saved.

        Raises:
            UserError: No sample or no whole batch is left; mmengine would train on nothing. Or the
                model has other than as many classes as the data.
        """
        loader = super().build_dataloader(*args, **kwargs)
        checked = self.cfg.get('check_data', True)
        if not len(loader.dataset):
            raise UserError(
                f'{type(loader.dataset).__name__} {getattr(loader.dataset, "ann_file", "")} holds '
                'no sample: see its annotations and what filter_cfg leaves of them'
            )
        if not len(loader) and not isinstance(loader.sampler, InfiniteSampler):
            raise UserError(
                f'{len(loader.dataset)} samples are fewer than a batch, and drop_last leaves '
                f'nothing: set batch_size of the dataloader to at most {len(loader.dataset)}'
            )
        if checked:
            model = unwrapped(self.model)
            self.classes = check_classes(loader.dataset, model, self.classes)
            for dataset in leaves(loader.dataset) if is_main_process() else ():
                check_maps(dataset)
        name_samples(loader.dataset, check_size=checked)
        if loader.num_workers:
            loader.worker_init_fn = PatientWorker(loader.worker_init_fn)
        return loader

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save as mmengine does, under another name until the file is whole and on the disk.

        Raises:
            UserError: It cannot be written.
        """
        if '://' in str(out_dir) or kwargs.get('backend_args') or (args and args[0]):
            return super().save_checkpoint(out_dir, filename, *args, **kwargs)
        path = Path(out_dir, filename)
        try:
            with whole_file(path) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f'{path} could not be written: {reason}{way_on(self)}') from error

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as mmengine does, and say what is wrong with a file that cannot be loaded."""
        try:
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        except UserError:
            raise
        except Exception:
            if '://' not in str(filename):  # only now: to read a sound file twice takes time
                try:
                    load_state_dict_file(filename)
                except CheckpointError as error:
                    other = whole_beside(Path(filename)) if self._resume else None
                    hint = f'. {other} is whole: resume from it' if other else ''
                    raise CheckpointError(f'{error}{hint}') from error
            raise
        if self._resume and 'message_hub' not in checkpoint:
            raise CheckpointError(
                f'{filename} holds weights and no state of a training run: start from it with '
                'load_from, without resume'
            )
        return checkpoint


def check_best(names: Sequence[str] | None, metrics: Sequence[BaseMetric]) -> None:
    """Refuse a best checkpoint by what no metric gives; mmengine does so after an epoch.

    Metrics of the frameworks have a prefix, as ``coco/``, or names without one.
    """
    prefixes = {metric.prefix for metric in metrics}
    others = [m for m in metrics if type(m).__module__.partition('.')[0] not in FRAMEWORKS]
    for name in names or ():
        prefix = name.rpartition('/')[0] or None
        if name != 'auto' and prefix not in prefixes and (None not in prefixes or not others):
            known = ' or '.join(
                sorted(f'{prefix}/...' if prefix else 'a plain name' for prefix in prefixes)
            )
            raise UserError(
                f'default_hooks.checkpoint.save_best={name}: the evaluator gives {known}; name '
                'what it gives, or auto'
            )


def check_precision(wrapper: Any) -> None:
    """Refuse mixed precision without a GPU; mmengine does so later and names no way out."""
    kind = class_of(wrapper, OPTIM_WRAPPERS) if isinstance(wrapper, Mapping) else None
    if kind is AmpOptimWrapper and get_device() in ('cpu', 'mps'):
        raise UserError(
            'optim_wrapper.type=AmpOptimWrapper, mixed precision, needs a GPU, and there is none: '
            'train with optim_wrapper.type=OptimWrapper, which takes no dtype and loss_scale, or '
            'leave --amp out'
        )
