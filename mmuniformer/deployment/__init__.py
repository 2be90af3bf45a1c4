"""Models as ONNX and torch.export files.

``networks`` and ``detector`` define what is exported, ``files`` writes and runs files,
``comparison`` compares them with PyTorch, ``quantize`` writes 8-bit ones, ``export`` does it all.
"""
