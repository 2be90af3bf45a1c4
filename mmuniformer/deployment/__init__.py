"""Models as ONNX and torch.export files.

``networks`` and ``detector`` define what is exported, ``files`` writes, quantizes and runs files,
``comparison`` compares them with PyTorch, ``export`` does it all.
"""

from mmuniformer.compat import require_export

require_export()
