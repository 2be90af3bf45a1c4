"""The backbones and the pieces that they are made of."""

from mmuniformer.models.clips import UniFormer3D, UniFormerLight3D
from mmuniformer.models.erasing import BatchErasing
from mmuniformer.models.heads import LightClsHead, TokenLabelHead
from mmuniformer.models.mixing import BatchMix
from mmuniformer.models.uniformer import UniFormer
from mmuniformer.models.uniformer_light import UniFormerLight

__all__ = [
    'BatchErasing',
    'BatchMix',
    'LightClsHead',
    'TokenLabelHead',
    'UniFormer',
    'UniFormer3D',
    'UniFormerLight',
    'UniFormerLight3D',
]
