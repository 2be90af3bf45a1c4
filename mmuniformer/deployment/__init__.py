"""Models as ONNX and torch.export files."""

from mmuniformer.compat import require_export

require_export()
