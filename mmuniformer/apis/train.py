"""Training and testing for detection, segmentation and pose alike: ``tools/{train,test}.py``.

The config's ``default_scope`` names the framework. The options are those of the frameworks' own
scripts, so that ``mim train mmuniformer`` and ``mim test mmuniformer`` work as theirs do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmuniformer.apis.config import find_config
from mmuniformer.engine.runner import check_weights, make_writable
from mmuniformer.errors import UserError

SCOPES = ('mmdet', 'mmseg', 'mmpose')


def run_training(arguments: Sequence[str] | None = None) -> int:
    """Train what a config says; return the exit status."""
    parser = _common_parser('Train a detector, segmentor or pose estimator.')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the rate to the batch size in use'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path, from the latest in the work dir',
    )
    return _guarded(_train, parser, arguments)


def run_evaluation(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a checkpoint; return the exit status."""
    parser = _common_parser('Evaluate a checkpoint on the test data of a config.')
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument('--out', metavar='FILE.pkl', help='also write the predictions')
    parser.add_argument('--show-dir', metavar='DIR', help='also draw the predictions into DIR')
    parser.add_argument('--tta', action='store_true', help='use the test-time augmentation')
    parser.add_argument(
        '--deploy', action='store_true', help="fold the backbone's norms into its weights first"
    )
    return _guarded(_test, parser, arguments)


def _common_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path, or name of a shipped config')
    parser.add_argument('--work-dir', metavar='DIR', help='logs and checkpoints go here')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='change settings of the config',
    )
    choices = ('none', 'pytorch', 'slurm', 'mpi')
    parser.add_argument('--launcher', choices=choices, default='none', help='of processes')
    # torch.distributed.launch passes it as an option, torchrun in the environment.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _guarded(
    work: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
) -> int:
    options = parser.parse_args(arguments)
    os.environ.setdefault('LOCAL_RANK', str(options.local_rank))
    try:
        work(options)
    except UserError as error:
        message = str(error)
    except (FileNotFoundError, PermissionError) as error:  # the frameworks open the data
        message = (
            f'{error}. If it is data, say where yours is, in the config or by --cfg-options: '
            'train_dataloader.dataset.data_root=..., the same for val_ and test_, and the '
            "evaluators' ann_file."
        )
    else:
        return 0
    sys.stderr.write(f'Error: {message}\n')
    return 1


def _train(options: argparse.Namespace) -> None:
    cfg = _load(options)
    if options.amp:
        _enable_amp(cfg)
    if options.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                f'--auto-scale-lr: {options.config} does not say which batch size its rate is for. '
                'Add auto_scale_lr=dict(base_batch_size=...) to it.'
            )
        cfg.auto_scale_lr.enable = True
    if options.resume is not None:
        cfg.resume = True
        cfg.load_from = None if options.resume == 'auto' else options.resume
        check_weights(cfg.load_from)
    Runner.from_cfg(cfg).train()


def _test(options: argparse.Namespace) -> None:
    cfg = _load(options)
    check_weights(options.checkpoint)
    cfg.load_from = options.checkpoint
    if options.show_dir:
        _draw_into(cfg, options.show_dir)
    if options.tta:
        _augment(cfg, options.config)
    if options.out:
        _dump_into(cfg, options.out)
    if options.deploy:
        cfg.custom_hooks = [*cfg.get('custom_hooks', ()), {'type': 'mmuniformer.DeployHook'}]
    Runner.from_cfg(cfg).test()


def _load(options: argparse.Namespace) -> Config:
    """Read the config and what the command line changes in it."""
    path = find_config(options.config)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options.cfg_options)
    scope = cfg.get('default_scope')
    if scope not in SCOPES:
        raise UserError(f'{path}: default_scope is {scope!r}; it has to be one of {SCOPES}.')
    try:
        importlib.import_module(scope)
    except (ImportError, AssertionError, RuntimeError) as error:
        raise UserError(
            f'{path} needs {scope}, which does not import: {error}. '
            'Run `mmuniformer doctor` to see what to do.'
        ) from error
    cfg.launcher = options.launcher
    if options.work_dir is not None:
        cfg.work_dir = options.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    make_writable(Path(cfg.work_dir))
    return cfg


def _enable_amp(cfg: Config) -> None:
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'AmpOptimWrapper':
        return print_log('--amp: the config trains in mixed precision already', 'current')
    if kind != 'OptimWrapper':
        raise UserError(f'--amp: optim_wrapper is {kind}; only OptimWrapper can be switched.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _draw_into(cfg: Config, folder: str) -> None:
    """Switch the framework's visualization hook on for every image; each calls that differently."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show-dir: the config has no default_hooks.visualization to switch on.')
    # Relative to the working directory, not to the run's folder in the work dir.
    folder = str(Path(folder).resolve())
    if cfg.default_scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder)
    elif cfg.default_scope == 'mmseg':
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder
    else:
        hook.update(enable=True, interval=1, out_dir=folder)


def _augment(cfg: Config, name: str) -> None:
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise UserError(f'--tta: {name} has no {" and no ".join(missing)}.')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _dump_into(cfg: Config, path: str) -> None:
    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {path}: predictions are written as .pkl or .pickle.')
    dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type=dump, out_file_path=path)]
