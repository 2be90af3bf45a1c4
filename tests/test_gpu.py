"""What is special to a GPU; the parts that a CPU can run it runs, too."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.execution import attention
from mmuniformer.models.mhra import plain_attention

DEVICES = pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
BOTH = pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
NETWORKS = {
    'windows': lambda **kwargs: UniFormer('nano', stage3_attn='hybrid', window_size=3, **kwargs),
    'global': lambda **kwargs: UniFormer('nano', **kwargs),
    'light': lambda **kwargs: UniFormerLight('nano', **kwargs),
}
PLAIN = {'fused_attn': False, 'channels_last': False, 'with_cp': False}


@pytest.fixture(autouse=True)
def exact():
    """Products in float32, not TF32, and the same random numbers for each test."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    torch.manual_seed(0)
    yield
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value
    torch.backends.cudnn.benchmark = False


def images(device, batch=2, side=96):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def gradients(model, x):
    """Loss, gradients and buffers of one step, whose random numbers are always the same."""
    torch.manual_seed(1)
    loss = sum(out.square().mean() for out in model(x))
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], list(model.buffers())


def scaler_of(device):
    """A loss scale; torch below 2.3 has it for CUDA alone."""
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler(device, init_scale=2.0**10)
    if device == 'cpu':
        pytest.skip('torch below 2.3 has no loss scale on a CPU')
    return torch.cuda.amp.GradScaler(init_scale=2.0**10)


@DEVICES
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', NETWORKS)
def test_half_precision_with_a_loss_scale_trains(device, dtype, name):
    model = NETWORKS[name](drop_path_rate=0.1).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler, x, losses = scaler_of(device), images(device, side=32), []
    for _ in range(4):
        with torch.autocast(device, dtype):
            outs = model(x)
        loss = sum((out.float() - 1).square().mean() for out in outs)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert all(p.grad.isfinite().all() for p in model.parameters())
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    assert scaler.get_scale() == 2.0**10


@pytest.mark.gpu
@pytest.mark.parametrize('name', NETWORKS)
def test_defaults_give_what_plain_gives_on_a_gpu(name):
    plain, fused = NETWORKS[name](**PLAIN), NETWORKS[name]()
    fused.load_state_dict(plain.state_dict())
    plain, fused, x = plain.cuda(), fused.cuda(), images('cuda')
    for one, other in zip(gradients(fused, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize('name', NETWORKS)
def test_a_gpu_gives_what_a_cpu_gives(name):
    model = NETWORKS[name]().eval()
    with torch.no_grad():
        expected = model(images('cpu'))
        model.cuda()
        outs = [out.cpu() for out in model(images('cuda'))]
        torch.testing.assert_close(outs, list(expected), rtol=1e-3, atol=1e-3)
        model.switch_to_deploy()
        outs = [out.cpu() for out in model(images('cuda'))]
        torch.testing.assert_close(outs, list(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_attention_of_more_sequences_than_a_grid_has(dtype):
    """A fused kernel alone fails beyond 65,535."""
    shape = attention.MAX_FUSED_BATCH + 9, 1, 16, 32
    q, k, v = (torch.randn(shape, device='cuda', dtype=dtype, requires_grad=True) for _ in '123')
    out = attention.fused_attention(q, k, v)
    out.square().sum().backward()
    last = slice(-20, None)
    wide = [x.detach()[last].double().requires_grad_() for x in (q, k, v)]
    expected = plain_attention(*wide)
    expected.square().sum().backward()
    close = {'rtol': 0, 'atol': 1e-5 if dtype == torch.float32 else 0.1}
    torch.testing.assert_close(out[last].double(), expected, **close)
    for x, reference in zip((q, k, v), wide, strict=True):
        torch.testing.assert_close(x.grad[last].double(), reference.grad, **close)


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize('with_cp', ['parts', True])
def test_recomputing_on_a_gpu_equals_keeping(backbone, with_cp):
    """With dropout: the second forward draws the numbers of the first from the GPU's generator."""
    kwargs = {'drop_path_rate': 0.3, 'drop_rate': 0.1, 'layer_scale_init_value': 0.5}
    off, on = (backbone('nano', **kwargs, with_cp=value).double() for value in (False, with_cp))
    on.load_state_dict(off.state_dict())
    x = images('cuda').double()
    expected = gradients(off.cuda().train(), x)
    torch.testing.assert_close(gradients(on.cuda().train(), x), expected, rtol=0, atol=1e-12)


@pytest.mark.gpu
@BOTH
def test_benchmarked_convolutions_give_what_the_others_give(backbone):
    model, x = backbone('nano').cuda().train(), images('cuda')
    expected = gradients(copy.deepcopy(model), x)
    torch.backends.cudnn.benchmark = True
    torch.testing.assert_close(gradients(model, x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize('name', ['windows', 'light'])
def test_compiled_code_on_a_gpu_equals_eager(name):
    torch.compiler.reset()
    kwargs = {'depths': (1, 1, 1, 1)}
    if name == 'light':
        kwargs['keep_ratios'] = ((1,), (0.5,))
    eager, compiled = (NETWORKS[name](**kwargs).cuda().train() for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    compiled.compile(dynamic=False)
    x = images('cuda')
    (loss, grads, _), (expected, wanted, _) = gradients(compiled, x), gradients(eager, x)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(grads, wanted, rtol=1e-2, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(x), eager.eval()(x), rtol=1e-3, atol=1e-3)
    torch.compiler.reset()


@DEVICES
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_built_on_the_meta_device_takes_weights(device, name):
    model = NETWORKS[name]().eval()
    with torch.device('meta'):
        empty = NETWORKS[name]().eval()
    assert all(p.is_meta for p in empty.parameters())
    empty.to_empty(device=device).load_state_dict(model.state_dict())
    with torch.no_grad():
        x = images(device)
        torch.testing.assert_close(empty(x), model.to(device)(x), rtol=0, atol=0)


@DEVICES
@BOTH
def test_synchronized_batch_norm_can_come_and_go(device, backbone):
    """mmengine converts for several processes and reverts where there is one."""
    model = backbone('nano').to(device)
    x = images(device)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    reverted = revert_sync_batchnorm(copy.deepcopy(converted))
    expected = gradients(copy.deepcopy(model).train(), x)
    close = {'rtol': 1e-3, 'atol': 1e-4}
    torch.testing.assert_close(gradients(reverted.train(), x), expected, **close)
    if device == 'cuda':  # it trains there alone
        torch.testing.assert_close(
            gradients(copy.deepcopy(converted).train(), x), expected, **close
        )
    with torch.no_grad():
        outs = model.eval()(x)
        torch.testing.assert_close(converted.eval()(x), outs, **close)
        converted.switch_to_deploy()
        torch.testing.assert_close(converted(x), outs, **close)


@pytest.mark.gpu
@BOTH
def test_images_in_pinned_memory_arrive_whole(backbone):
    model, x = backbone('nano').cuda().eval(), images('cpu', batch=8)
    with torch.no_grad():
        outs = model(x.pin_memory().to('cuda', non_blocking=True))
        torch.testing.assert_close(outs, model(x.cuda()), rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_head_dim_of_small_takes_a_fused_kernel(dtype):
    """Channels a head of every preset: no matrix of weights is in memory."""
    for channels in (32, 64):
        q = torch.randn(1, 2, 4096, channels, device='cuda', dtype=dtype)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        F.scaled_dot_product_attention(q, q, q)
        grown = torch.cuda.max_memory_allocated() - before
        assert grown < 4096 * 4096, f'{grown} bytes for {channels} channels a head'


@DEVICES
@pytest.mark.frameworks
@pytest.mark.integration
def test_training_loop_with_the_settings_of_a_gpu(device, toy_root, tmp_path):
    """cuDNN's benchmark and pinned memory; on a GPU with fp16 and its loss scale."""
    pytest.importorskip('mmseg')
    from mmengine.runner import Runner

    from mmuniformer.apis.config import load_config

    cfg = load_config('fpn_uniformer-nano_toy-128x128')
    cfg.merge_from_dict({
        'work_dir': str(tmp_path), 'env_cfg.cudnn_benchmark': True,
        'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_scope': 'mmseg',
        'train_dataloader.pin_memory': True, 'val_dataloader.pin_memory': True,
    })  # fmt: skip
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(toy_root / 'ade')
    if device == 'cuda':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    assert next(runner.model.parameters()).device.type == device
    assert torch.backends.cudnn.benchmark
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == 2
    assert np.isfinite(losses).all()
