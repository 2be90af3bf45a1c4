"""``mmuniformer export``: models as ONNX and torch.export files.

``networks`` says what of a model is exported, ``files`` writes and reads the files, ``check``
compares them with PyTorch, and ``command`` is the command line.
"""
