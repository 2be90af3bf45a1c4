"""Training behaviour: checkpointing, DDP, threads, half precision."""

import threading

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_versions import compiles

from mmuniformer.compat import TORCH_HAS_ALLOW_LIST
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.hourglass import HourglassBlock, TokenState

HALF = pytest.mark.parametrize('dtype', [torch.float16] * TORCH_HAS_ALLOW_LIST + [torch.bfloat16])
"""Before 2.6, torch has no float16 on CPUs."""
BOTH = pytest.mark.parametrize('backbone', [UniFormer, UniFormerLight])
PRESETS = [
    (UniFormer, 'nano'), (UniFormer, 'small'), (UniFormer, 'small_plus'),
    pytest.param(UniFormer, 'base', marks=pytest.mark.slow),
    pytest.param(UniFormer, 'base_ls', marks=pytest.mark.slow),
    pytest.param(UniFormer, 'large', marks=pytest.mark.slow),
    (UniFormerLight, 'nano'), (UniFormerLight, 'xs'), (UniFormerLight, 'xxs'),
]  # fmt: skip


def images(batch=2, side=64, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, side, side, generator=generator).to(dtype)


def step(model, x):
    """One forward and backward; returns the loss, the gradients and the buffers after it."""
    torch.manual_seed(1)
    loss = sum(out.square().mean() for out in model(x))
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), grads, dict(model.named_buffers())


@BOTH
@pytest.mark.parametrize('with_cp', ['parts', True, (1, 0, 2, 1)], ids=['parts', 'all', 'counts'])
def test_checkpointing_on_equals_off(backbone, with_cp):
    kwargs = dict(drop_path_rate=0.3, drop_rate=0.1, layer_scale_init_value=0.5)
    torch.manual_seed(0)
    off = backbone('nano', **kwargs, with_cp=False).double().train()
    on = backbone('nano', **kwargs, with_cp=with_cp).double().train()
    on.load_state_dict(off.state_dict())
    x = images(dtype=torch.float64)
    torch.testing.assert_close(step(on, x), step(off, x), rtol=0, atol=1e-14)


@BOTH
@pytest.mark.parametrize(('with_cp', 'times'), [(False, 1), ('parts', 2), (True, 2)])
def test_what_is_recomputed_runs_twice(backbone, with_cp, times):
    """And hooks on the blocks, which others rely on, run once."""
    model = backbone('nano', with_cp=with_cp).train()
    block = model.blocks(0)[0]
    calls = []
    for name in ('norm1', 'mlp.fc1'):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    block.register_forward_hook(lambda *_: calls.append('block'))
    step(model, images())
    assert calls.count('norm1') == calls.count('mlp.fc1') == times
    assert calls.count('block') == 1


@pytest.mark.parametrize(
    ('backbone', 'with_cp', 'compiler'),
    [
        (UniFormer, 'parts', 'inductor'),
        (UniFormer, True, 'aot_eager'),
        (UniFormerLight, 'parts', 'aot_eager'),
        (UniFormerLight, True, 'aot_eager'),
    ],
)
@compiles
@pytest.mark.slow
@pytest.mark.integration
def test_compiled_training_equals_eager(backbone, with_cp, compiler):
    """In gradients and in BatchNorm's statistics."""
    torch.compiler.reset()
    torch.manual_seed(0)
    kwargs = {'with_cp': with_cp, 'depths': (1, 1, 1, 1)}
    if backbone is UniFormerLight:
        kwargs['keep_ratios'] = ((1,), (0.5,))
    eager, compiled = (backbone('nano', **kwargs).train() for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    compiled.compile(dynamic=False, backend=compiler)
    x = images()
    (loss, grads, buffers), (ref_loss, ref_grads, ref_buffers) = step(compiled, x), step(eager, x)
    torch.testing.assert_close(loss, ref_loss, rtol=1e-5, atol=0)
    for name, grad in ref_grads.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(buffers, ref_buffers, rtol=1e-4, atol=1e-6)
    torch.compiler.reset()


def kept_bytes(model):
    """Bytes that a forward keeps for backward, parameters left out."""
    parameters = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outs = model(images())
    del outs
    return sum(kept.values())


@BOTH
def test_checkpointing_keeps_less(backbone):
    """Counts what reaches the outermost hooks; recomputed regions hand theirs to none."""
    none, parts, full = (
        kept_bytes(backbone('nano', with_cp=value).train()) for value in (False, 'parts', True)
    )
    assert parts < 0.7 * none
    assert full < 0.6 * parts


@pytest.fixture(scope='module')
def process_group(tmp_path_factory):
    store = tmp_path_factory.mktemp('ddp') / 'store'
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(('backbone', 'arch'), PRESETS)
@pytest.mark.integration
def test_every_parameter_gets_a_gradient_under_ddp(process_group, backbone, arch):
    """The second step raises if the first left a parameter out."""
    model = DistributedDataParallel(backbone(arch).train())
    for _ in range(2):
        model.zero_grad()
        sum(out.square().mean() for out in model(images())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_light_models_in_two_threads_give_what_each_gives_alone():
    torch.manual_seed(0)
    models = [UniFormerLight('nano').eval() for _ in range(2)]
    inputs = [images(1, 96), images(3, 64)]
    with torch.no_grad():
        alone = [model(x) for model, x in zip(models, inputs, strict=True)]
    together = [[], []]
    # Every block of one waits for a block of the other: the two really interleave.
    barrier = threading.Barrier(2)

    def meet(*_):
        barrier.wait(timeout=60)

    def run(index):
        for block in models[index].modules():
            if isinstance(block, HourglassBlock):
                block.register_forward_pre_hook(meet)
        with torch.no_grad():
            together[index] = models[index](inputs[index])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@HALF
def test_token_order_survives_half_precision(dtype):
    """With all branches zero the block must put 4,200 tokens back where they were."""
    torch.manual_seed(0)
    block = HourglassBlock(8, 8, 1, keep_ratio=0.5, trade_off=0.5).eval().to(dtype)
    for name in ('pos_embed', 'attn.proj', 'mlp.fc2'):
        torch.nn.init.zeros_(block.get_submodule(name).weight)
        torch.nn.init.zeros_(block.get_submodule(name).bias)
    x = torch.randn(2, 8, 60, 70).to(dtype)
    score = torch.rand(2, 4200)
    with torch.no_grad():
        out, state = block(x, TokenState(torch.randn(2, 1, 8).to(dtype), score))
    assert torch.equal(out, x)
    kept = score.argsort(descending=True)[:, :2100]
    changed = torch.zeros(2, 4200, dtype=torch.bool).scatter(1, kept, True)
    assert torch.equal(state.score != score, changed)


@BOTH
@HALF
def test_half_precision_stays_close_to_float32(backbone, dtype):
    torch.manual_seed(0)
    model = backbone('nano').eval()
    x = images(1, 96)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast('cpu', dtype):
            outs = model(x)
    # Stages 1 and 2 only: later a rounded score may let another token in.
    for out, ref in list(zip(outs, expected, strict=True))[:2]:
        assert (out.float() - ref).abs().mean() < 0.02 * ref.abs().mean()
    assert all(out.isfinite().all() for out in outs)


@HALF
@pytest.mark.parametrize('training', [False, True])
def test_scores_stay_in_float32_under_autocast(dtype, training):
    model = UniFormerLight('nano').train(training)
    seen = []
    for block in model.modules():
        if isinstance(block, HourglassBlock):
            block.register_forward_hook(lambda _, __, out: seen.append(out[1].score.dtype))
    with torch.autocast('cpu', dtype):
        model(images(2, 96))
    assert set(seen) == {torch.float32}
