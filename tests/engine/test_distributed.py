"""Processes without a GPU: who starts them, and BatchNorm over the batches of all."""

import os
import subprocess

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmuniformer.engine import distributed
from mmuniformer.engine.distributed import (
    CPUSyncBatchNorm,
    check_launcher,
    join_on_cpu,
    sync_on_cpu,
)
from mmuniformer.errors import UserError

SHAPES = [(3, 4, 5, 6), (1, 4, 5, 6)]
"""Of the batches of two processes."""


def build():
    torch.manual_seed(0)
    layer = nn.SyncBatchNorm(4)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def batches():
    torch.manual_seed(1)
    return [torch.randn(shape) * 3 + 2 for shape in SHAPES]


def step(layer, x):
    x.requires_grad_()
    y = layer(x)
    (y * torch.arange(y[0].numel()).view_as(y[0])).pow(2).sum().backward()
    return y.detach(), x.grad


def process(rank, file):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{file}', rank=rank, world_size=2)
    layer = nn.Sequential(build())
    sync_on_cpu(layer)
    y, gradient = step(layer, batches()[rank])
    weight = layer[0].weight.grad
    dist.all_reduce(weight)
    torch.save((y, gradient, weight, layer[0].state_dict()), f'{file}.{rank}')


def test_batch_norm_over_two_processes_is_that_of_one(tmp_path):
    arguments = (str(tmp_path / 'store'),)
    torch.multiprocessing.start_processes(process, arguments, nprocs=2, start_method='fork')
    parts = [torch.load(f'{tmp_path}/store.{rank}', weights_only=True) for rank in range(2)]
    layer = build()
    whole = nn.BatchNorm2d(4)
    whole.load_state_dict(layer.state_dict())
    y, gradient = step(whole, torch.cat(batches()))
    close = {'rtol': 1e-4, 'atol': 1e-4}
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), y, **close)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), gradient, rtol=1e-3, atol=1)
    for _, _, weight, state in parts:
        torch.testing.assert_close(weight, whole.weight.grad, **close)
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(state[key], value, **close)


def test_in_one_process_and_in_testing_it_is_batch_norm():
    layer = build()
    expected = nn.BatchNorm2d(4)
    expected.load_state_dict(layer.state_dict())
    sync_on_cpu(layer)
    assert type(layer) is CPUSyncBatchNorm
    x = batches()[0]
    assert torch.equal(layer(x), expected(x))
    assert torch.equal(layer.eval()(x), expected.eval()(x))


@pytest.mark.parametrize(
    ('launcher', 'name', 'command'),
    [
        ('pytorch', 'RANK', 'torchrun --nproc-per-node N'),
        ('slurm', 'SLURM_PROCID', 'srun --ntasks N'),
        ('mpi', 'OMPI_COMM_WORLD_RANK', 'mpirun -np N'),
    ],
)
def test_launcher_that_did_not_start_the_process_is_refused(monkeypatch, launcher, name, command):
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=rf'--launcher {launcher}: {name} is not set.*`{command}'):
        check_launcher(launcher)
    check_launcher('none')


@pytest.fixture
def joined(monkeypatch):
    """What a process group was made with."""
    made = []
    monkeypatch.setattr(
        distributed.dist, 'init_process_group', lambda *args, **kwargs: made.append((args, kwargs))
    )
    monkeypatch.setattr(os, 'environ', {})
    return made


def test_slurm_tells_who_is_who(joined, monkeypatch):
    def scontrol(command, **kwargs):
        assert command == ['scontrol', 'show', 'hostnames', 'node[3-4]']
        return subprocess.CompletedProcess(command, 0, 'node3\nnode4\n')

    monkeypatch.setattr(distributed.subprocess, 'run', scontrol)
    os.environ.update(
        SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NODELIST='node[3-4]'
    )
    join_on_cpu('slurm', {'backend': 'nccl', 'timeout': 7})
    assert joined[0][0] == ('gloo',)
    assert joined[0][1]['timeout'].total_seconds() == 7
    found = {key: os.environ[key] for key in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT')}
    assert found == {'RANK': '5', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'MASTER_PORT': '29500'}
    assert os.environ['MASTER_ADDR'] == 'node3'


def test_mpi_wants_an_address(joined):
    os.environ.update(
        OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='2', OMPI_COMM_WORLD_LOCAL_RANK='0'
    )
    with pytest.raises(UserError, match='set MASTER_ADDR'):
        join_on_cpu('mpi', {})
    os.environ['MASTER_ADDR'] = '10.0.0.1'
    join_on_cpu('mpi', {})
    assert joined == [(('gloo',), {})]
    assert os.environ['RANK'] == '0'
