"""Several processes: what they agree on, and how they run on CPUs, where mmengine wants GPUs."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_reduce as reduce_in_place
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from mmuniformer.errors import UserError

STARTED_BY = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
"""Variables in which a launcher tells a process who it is."""

COMMANDS = {
    'pytorch': 'torchrun --nproc-per-node N --no-python mmuniformer train ...',
    'slurm': 'srun --ntasks N mmuniformer train ...',
    'mpi': 'mpirun -np N mmuniformer train ...',
}


def highest(value: int) -> int:
    """Return the highest value that a process of the run has; all have to ask at once."""
    if get_world_size() == 1:
        return value
    values = torch.tensor(int(value))
    reduce_in_place(values, 'max')
    return int(values)


def check_launcher(launcher: str) -> None:
    """Refuse a launcher that has not started this process.

    Raises:
        UserError: Its variables are missing.
    """
    missing = [name for name in STARTED_BY.get(launcher, ()) if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher}: {missing[0]} is not set, so that this process was not started '
            f'by it: start with `{COMMANDS[launcher]} --launcher {launcher}`, or leave --launcher '
            'out for one process'
        )


def join_on_cpu(launcher: str, settings: Mapping[str, Any]) -> None:
    """Join the processes of a run through gloo; ``settings`` are ``env_cfg.dist_cfg``."""
    env = os.environ
    if launcher == 'slurm':
        env.update(RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'])
        env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')
        env.setdefault('MASTER_PORT', str(settings.get('port') or 29500))
        if 'MASTER_ADDR' not in env:
            hosts = subprocess.run(
                ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']],
                capture_output=True,
                text=True,
                check=True,
            )
            env['MASTER_ADDR'] = hosts.stdout.split()[0]
    elif launcher == 'mpi':
        env.update(RANK=env['OMPI_COMM_WORLD_RANK'], WORLD_SIZE=env['OMPI_COMM_WORLD_SIZE'])
        env['LOCAL_RANK'] = env['OMPI_COMM_WORLD_LOCAL_RANK']
        env.setdefault('MASTER_PORT', '29500')
        if 'MASTER_ADDR' not in env:
            raise UserError('--launcher mpi: set MASTER_ADDR to the first machine')
    timeout = settings.get('timeout')
    options = {'timeout': datetime.timedelta(seconds=timeout)} if timeout else {}
    dist.init_process_group('gloo', **options)


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """SyncBN on CPUs: torch's wants GPUs. Statistics are those of the batches of all processes."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Take maps of any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, ...)``."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = all_reduce(torch.cat([x.sum(axes), count]))
        mean = total[:-1] / total[-1].detach()
        centered = x - mean.view(shape)
        var = all_reduce(centered.square().sum(axes)) / total[-1].detach()
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                rate = self.momentum
                if rate is None:
                    rate = 1 / self.num_batches_tracked.item()
                unbiased = var * (total[-1] / (total[-1] - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean), rate)
                self.running_var.lerp_(unbiased.to(self.running_var), rate)
        x = centered * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x


def sync_on_cpu(model: nn.Module) -> None:
    """Let a model's SyncBN layers work on CPUs, in place."""
    for module in model.modules():
        if type(module) is nn.SyncBatchNorm:
            module.__class__ = CPUSyncBatchNorm
