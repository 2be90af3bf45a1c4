"""Layouts of stage 3 by name, of configs in the old and the new style."""

from __future__ import annotations

import pytest
from mmengine import Config

from mmuniformer.analysis.layouts import Layout, layouts_of
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight


def config_of(kind=UniFormer, **backbone):
    return Config({'model': {'backbone': {'type': kind, 'arch': 'nano', **backbone}}})


@pytest.mark.parametrize(
    ('name', 'stage3_attn', 'window_size'),
    [('global', 'global', None), ('auto', 'auto', None), ('w32', 'window', 32),
     ('h14', 'hybrid', 14)],
)  # fmt: skip
def test_layout_names(name, stage3_attn, window_size):
    layout = Layout.parse(name)
    assert layout == Layout(name, stage3_attn, window_size)
    assert Layout.of(layout.in_config(config_of())) == layout


@pytest.mark.parametrize('name', ['', 'w', 'w0', 'x32', 'window', 'h-3', 'global32'])
def test_unknown_layout_names_are_refused(name):
    with pytest.raises(UserError, match='like w32'):
        Layout.parse(name)


def test_a_config_with_a_layout_is_a_copy():
    cfg = config_of()
    changed = Layout.parse('h4').in_config(cfg).model.backbone
    assert (changed.stage3_attn, changed.window_size) == ('hybrid', 4)
    assert 'stage3_attn' not in cfg.model.backbone


@pytest.mark.parametrize('kind', [UniFormer, 'mmuniformer.UniFormer', 'UniFormer'])
@pytest.mark.parametrize(
    ('backbone', 'names', 'wanted'),
    [
        ({}, None, ['global']),
        ({'stage3_attn': 'window'}, None, ['w14']),
        ({'stage3_attn': 'hybrid', 'window_size': 7}, None, ['h7']),
        ({'stage3_attn': 'hybrid'}, 'w7, global,w7', ['w7', 'global']),
        ({'stage3_attn': ('window', 'global') * 2}, None, ['mixed']),
    ],
)
def test_layouts_of_a_config(kind, backbone, names, wanted):
    assert [layout.name for layout in layouts_of(config_of(kind, **backbone), names)] == wanted


def test_a_layout_of_an_entry_for_each_block_is_kept():
    entries = ('window', 'global', 'window', 'window')
    changed = Layout.of(config_of(stage3_attn=entries)).in_config(config_of())
    assert tuple(changed.model.backbone.stage3_attn) == entries


@pytest.mark.parametrize('kind', [UniFormerLight, 'mmuniformer.UniFormerLight'])
def test_hourglass_networks_have_no_layouts_to_choose_from(kind):
    assert Layout.of(config_of(kind)) == Layout('hourglass')
    with pytest.raises(UserError, match='leave the option out'):
        layouts_of(config_of(kind), 'global')


def test_types_that_are_not_registered_are_named():
    with pytest.raises(UserError, match="type='Nowhere' is not registered"):
        Layout.of(config_of('Nowhere'))
