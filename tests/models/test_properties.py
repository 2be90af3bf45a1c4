"""What holds for backbones of any shape on images and clips of any size, tried on random ones."""

import copy
from typing import Any, NamedTuple

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuniformer.models import UniFormer, UniFormer3D, UniFormerLight, UniFormerLight3D

KINDS = (UniFormer, UniFormerLight, UniFormer3D, UniFormerLight3D)
FEW = settings(max_examples=5, derandomize=True, deadline=None, database=None)
MANY = settings(max_examples=250, deadline=None, database=None, print_blob=True)


class Case(NamedTuple):
    """A backbone's class and arguments, and the shape of its input."""

    kind: type
    arguments: dict[str, Any]
    shape: tuple[int, ...]

    def build(self, dtype=torch.float64, **arguments):
        model = self.kind(**self.arguments | arguments)
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        model.load_state_dict(reference.formula_state(shapes))
        return model.to(dtype).eval()

    def input(self, dtype=torch.float64):
        return reference.formula_image(self.shape).to(dtype)


@st.composite
def cases(draw, kinds=KINDS, **fixed):
    kind = draw(st.sampled_from(kinds))
    light, clips = kind.hourglass, kind.dims == 3
    head_dim = draw(st.sampled_from([4, 8]))
    widths = [draw(st.sampled_from([8, 16, 24])) for _ in range(4)]
    depths = [draw(st.integers(1, 3)) for _ in range(4)]
    ratios = st.sampled_from([0.05, 0.3, 0.5, 0.9, 1])
    keep = [[draw(ratios) for _ in range(depth)] for depth in depths[2:]]
    keep[0][0] = 1
    stems = [draw(st.booleans()) and not (light and stage > 1) for stage in range(4)]
    last = draw(st.integers(0, 3))
    arguments = dict(
        arch=dict(embed_dims=widths, depths=depths, head_dim=head_dim)
        | (dict(keep_ratios=keep) if light else {}),
        conv_stem=stems,
        mlp_ratios=draw(st.sampled_from([0.5, 2, 3])),
        layer_scale_init_value=draw(st.sampled_from([0, 1e-6, 0.5])),
        qkv_bias=draw(st.booleans()),
        in_channels=draw(st.sampled_from([1, 3, 4])),
        channels_last=draw(st.booleans()),
        fused_attn=draw(st.booleans()),
        out_indices=[stage for stage in range(last) if draw(st.booleans())] + [last],
        out_norm=draw(st.sampled_from(['LN', 'BN'])) if last == 3 else 'LN',
    )
    if kind is UniFormer:
        each = st.lists(st.sampled_from(['global', 'window']), min_size=depths[2],
                        max_size=depths[2])  # fmt: skip
        layouts = st.sampled_from(['global', 'window', 'hybrid', 'auto']) | each
        arguments |= dict(stage3_attn=draw(layouts), window_size=draw(st.integers(1, 9)),
                          token_budget=draw(st.integers(1, 20)))  # fmt: skip
    if kind is UniFormer3D:
        arguments['split'] = draw(st.booleans())
    time = (draw(st.integers(1, 5)),) if clips else ()
    sides = (draw(st.integers(32, 100)), draw(st.integers(32, 100)))
    shape = (draw(st.integers(1, 3)), arguments['in_channels'], *time, *sides)
    return Case(kind, arguments | fixed, shape)


def listed(outs):
    """Clips have one output bare."""
    return [outs] if isinstance(outs, torch.Tensor) else list(outs)


def expected_shapes(case):
    """Patch embeddings round sides down, convolutional stems up; every second frame counts."""
    batch, _, *sides = case.shape
    if case.kind.dims == 3:
        sides[0] = (sides[0] + 1) // 2
    shapes = []
    for width, strides, stem in zip(
        case.arguments['arch']['embed_dims'], ((2, 2), (2,), (2,), (2,)),
        case.arguments['conv_stem'], strict=True,
    ):  # fmt: skip
        for stride in strides:
            sides[-2:] = [(side + stem) // stride for side in sides[-2:]]
        shapes.append((batch, width, *sides))
    return [shapes[stage] for stage in case.arguments['out_indices']]


def assert_equal(outs, refs, tolerance=1e-9):
    for out, ref in zip(listed(outs), listed(refs), strict=True):
        assert (out - ref).abs().max() <= tolerance * ref.abs().max()


@torch.no_grad()
def check_outputs(case):
    model, x = case.build(), case.input()
    outs = listed(model(x))
    assert [tuple(out.shape) for out in outs] == expected_shapes(case)
    assert all(out.isfinite().all() and out.is_contiguous() for out in outs)
    assert all(out.std() > 0 for out in outs)
    for index in range(len(x)):
        assert_equal(model(x[index : index + 1]), [out[index : index + 1] for out in outs])
    order = torch.arange(len(x)).roll(1)
    assert_equal(model(x[order]), [out[order] for out in outs])
    for name in ('channels_last', 'fused_attn'):
        assert_equal(case.build(**{name: not case.arguments[name]})(x), outs)
    deployed = copy.deepcopy(model)
    deployed.switch_to_deploy()
    assert_equal(deployed(x), outs)
    # torch 2.13's Conv3d on CPUs reads past a clip of one frame in bfloat16.
    one_frame = case.kind.dims == 3 and case.shape[2] == 1
    for dtype in (torch.float32,) if one_frame else (torch.float32, torch.bfloat16):
        halves = listed(case.build(dtype)(case.input(dtype)))
        assert [half.shape for half in halves] == [out.shape for out in outs]
        assert all(half.dtype == dtype and half.isfinite().all() for half in halves)
        # An hourglass that rounds may keep other patches.
        if dtype == torch.float32 and not case.kind.hourglass:
            assert_equal(halves, outs, 1e-3)


def check_recomputing(case, with_cp):
    def step(**arguments):
        model = case.build(**arguments).train()
        torch.manual_seed(0)
        outs = listed(model(case.input()))
        total = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs)
        return outs, torch.autograd.grad(total, list(model.parameters()))

    outs, gradients = step(with_cp=False)
    again, others = step(with_cp=with_cp)
    assert_equal(again, outs)
    scale = max(gradient.abs().max() for gradient in gradients)
    for other, gradient in zip(others, gradients, strict=True):
        assert (other - gradient).abs().max() <= 1e-9 * scale


@torch.no_grad()
def check_covering_window(case, tokens):
    """Of a square map: what pads a window takes part in attention."""
    side = 16 * tokens + 15
    case = case._replace(shape=(*case.shape[:2], side, side))
    model = case.build(stage3_attn='global')
    outs = model(case.input())
    model.set_stage3_attn('window', tokens)
    assert_equal(model(case.input()), outs)


everything = cases()
squares = cases(kinds=[UniFormer], conv_stem=False, out_indices=[2, 3])


@st.composite
def recomputed(draw):
    """Training with random numbers, and what of it is recomputed."""
    case = draw(cases(drop_path_rate=0.5, drop_rate=0.1))
    counts = [draw(st.integers(0, depth)) for depth in case.arguments['arch']['depths']]
    return case, draw(st.sampled_from([True, 'parts', counts]))


@FEW
@given(everything)
def test_outputs(case):
    check_outputs(case)


@pytest.mark.minutes
@MANY
@given(everything)
def test_outputs_of_many(case):
    check_outputs(case)


@FEW
@given(recomputed())
def test_recomputing(case):
    check_recomputing(*case)


@pytest.mark.minutes
@MANY
@given(recomputed())
def test_recomputing_in_many(case):
    check_recomputing(*case)


@FEW
@given(squares, st.integers(2, 7))
def test_window_that_covers_the_map_is_global(case, tokens):
    check_covering_window(case, tokens)


@pytest.mark.minutes
@MANY
@given(squares, st.integers(2, 7))
def test_window_that_covers_any_of_many_maps_is_global(case, tokens):
    check_covering_window(case, tokens)
