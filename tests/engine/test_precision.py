"""What the parts of a model hand to each other in half precision: float32, containers kept."""

from collections import OrderedDict, defaultdict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import nn

from mmuniformer.engine.precision import as_float32, keep_interfaces_in_float32

HALF, COUNT = torch.full((2,), 1.5, dtype=torch.bfloat16), torch.tensor([1, 2])
Pair = namedtuple('Pair', 'scores counts')
CONTAINERS = {
    'list': ([HALF, COUNT], lambda found: found),
    'tuple': ((HALF, COUNT), lambda found: found),
    'named tuple': (Pair(HALF, COUNT), lambda found: (found.scores, found.counts)),
    'torch.return_types': (torch.return_types.max((HALF, COUNT)), lambda f: (f.values, f.indices)),
    'dict': ({'a': HALF, 'b': COUNT}, lambda found: (found['a'], found['b'])),
    'ordered': (OrderedDict(a=HALF, b=COUNT), lambda found: found.values()),
    'default': (defaultdict(list, a=HALF, b=COUNT), lambda found: found.values()),
    'config': (ConfigDict(a=HALF, b=COUNT), lambda found: (found.a, found.b)),
    'instances': (
        InstanceData(scores=HALF, labels=COUNT),
        lambda found: (found.scores, found.labels),
    ),
    'nested': ([{'a': Pair((HALF,), [COUNT])}], lambda f: (f[0]['a'][0][0], f[0]['a'][1][0])),
}


@pytest.mark.parametrize('kind', CONTAINERS)
def test_containers_keep_their_types_and_the_original(kind):
    value, entries = CONTAINERS[kind]
    found = as_float32(value)
    assert type(found) is type(value)
    half, count = entries(found)
    assert half.dtype == torch.float32
    assert half.tolist() == [1.5, 1.5]
    assert count is COUNT
    original, _ = entries(value)
    assert original.dtype == torch.bfloat16


def test_default_factory_and_meta_stay():
    assert as_float32(defaultdict(list, a=HALF))['new'] == []
    assert as_float32(InstanceData(metainfo={'id': 3}, scores=HALF)).id == 3


@pytest.mark.parametrize('value', [None, 'text', 3, SimpleNamespace(a=HALF)])
def test_everything_else_is_left_alone(value):
    assert as_float32(value) is value


class Part(BaseModule):
    def __init__(self, other):
        super().__init__()
        self.layer, self.other, self.inside = nn.Linear(2, 2), other, []

    def forward(self, x):
        out = self.layer(x)
        self.inside.append(out.dtype)
        return Pair(out, COUNT) if self.other is None else self.other(out).scores


def test_parts_compute_in_half_precision_and_hand_on_float32():
    inner = Part(None)
    outer = Part(inner)
    keep_interfaces_in_float32(outer)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = outer(torch.rand(1, 2))
    assert inner.inside == outer.inside == [torch.bfloat16]
    assert found.dtype == torch.float32
