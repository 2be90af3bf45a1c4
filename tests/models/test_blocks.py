"""Blocks by the paper's equations, on images and on clips."""

import pytest
import torch
import torch.nn.functional as F

from mmuniformer.models.blocks import GlobalBlock, LocalBlock
from mmuniformer.models.execution import set_policies


def block_of(kind, dims=2, **kwargs):
    torch.manual_seed(0)
    if kind is LocalBlock:
        return kind(8, 2, layer_scale_init_value=0.5, dims=dims, **kwargs).double().eval()
    return kind(8, 4, 2, layer_scale_init_value=0.5, dims=dims, **kwargs).double().eval()


def test_local_block_is_the_equations():
    block = block_of(LocalBlock)
    block.norm1.running_mean.uniform_()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    p = dict(block.named_parameters())
    conv = lambda name, x, **kwargs: F.conv2d(x, p[f'{name}.weight'], p[f'{name}.bias'], **kwargs)  # noqa: E731
    y = x + conv('pos_embed', x, padding=1, groups=8)
    z = conv('conv2', conv('attn', conv('conv1', block.norm1(y)), padding=2, groups=8))
    y = y + p['gamma_1'] * z
    y = y + p['gamma_2'] * conv('mlp.fc2', F.gelu(conv('mlp.fc1', block.norm2(y))))
    torch.testing.assert_close(block(x), y, rtol=0, atol=1e-13)


@pytest.mark.parametrize('kind', [LocalBlock, GlobalBlock])
def test_clips_of_one_frame_are_images(kind):
    """Kernels whose weights lie in the middle of the time axis see one frame alone."""
    image_block, clip_block = block_of(kind), block_of(kind, dims=3)
    state = {}
    for name, value in clip_block.state_dict().items():
        source = image_block.state_dict()[name]
        if value.ndim == 5 and source.ndim == 4 and value.shape[2] > 1:
            state[name] = torch.zeros_like(value)
            state[name][:, :, value.shape[2] // 2] = source
        else:
            state[name] = source.reshape(value.shape)
    clip_block.load_state_dict(state)
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(clip_block(x[:, :, None])[:, :, 0], image_block(x))


def test_clips_attend_over_time():
    block = block_of(GlobalBlock, dims=3)
    x = torch.randn(1, 8, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    block(x)[0, :, 0, 0, 0].sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).all()


def test_blocks_of_others_run_plainly():
    class Doubled(LocalBlock):
        def plain(self, x):
            return 2 * super().plain(x)

    block = Doubled(8, 2).eval()
    set_policies(block)
    x = torch.randn(1, 8, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(block(x), 2 * LocalBlock.plain(block, x))
