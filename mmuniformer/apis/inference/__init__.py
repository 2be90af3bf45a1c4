"""Prediction on pictures and videos, as a command and as functions.

``inputs`` finds and decodes, ``network`` runs a model with its test pipeline, ``det``, ``seg`` and
``pose`` turn what it says into COCO records and drawings, ``output`` writes, ``run`` is the loop.
"""

from mmuniformer.cli.predict import command

__all__ = ['command']
