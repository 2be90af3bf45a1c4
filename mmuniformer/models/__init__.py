"""The backbones and the pieces that they are made of."""

from mmuniformer.models.uniformer import UniFormer
from mmuniformer.models.uniformer_light import UniFormerLight

__all__ = ['UniFormer', 'UniFormerLight']
