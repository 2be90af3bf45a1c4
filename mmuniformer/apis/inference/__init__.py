"""Prediction on images and videos from Python: sources -> frames -> network -> results -> writers.

``Predictor`` is the whole chain for images in memory or in files, with plain arrays as results.

Example:
    >>> frames = Frames(['photos', 'clip.mp4'])
    >>> task = DetTask(Network('det', 'CONFIG', 'CHECKPOINT'))  # doctest: +SKIP
    >>> for frame, result in predict(task, frames):  # doctest: +SKIP
    ...     print(frame, result.bboxes, result.scores)
"""

from mmuniformer.apis.inference.boxes import BoxFile, Detected, WholeImage
from mmuniformer.apis.inference.det import DetTask
from mmuniformer.apis.inference.labels import Clips, ClsTask, VideoTask
from mmuniformer.apis.inference.network import Network
from mmuniformer.apis.inference.pose import PoseTask
from mmuniformer.apis.inference.predictor import Predictor
from mmuniformer.apis.inference.run import predict, predict_and_write
from mmuniformer.apis.inference.seg import SegTask
from mmuniformer.apis.inference.sources import Frame, Frames
from mmuniformer.apis.inference.writers import Writer

__all__ = [
    'BoxFile', 'Clips', 'ClsTask', 'DetTask', 'Detected', 'Frame', 'Frames', 'Network', 'PoseTask',
    'Predictor', 'SegTask', 'VideoTask', 'WholeImage', 'Writer', 'predict',
    'predict_and_write',
]  # fmt: skip
