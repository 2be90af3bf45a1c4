"""What the torch at hand cannot do."""

import pytest
import torch
from mmengine.utils import digit_version

compiles = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.2'),
    reason='torch 2.1 takes the layer of one stem for that of another as it compiles',
)
