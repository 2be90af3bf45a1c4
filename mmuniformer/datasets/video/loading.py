"""Transforms from a file to the frames of clips: open, sample by the authors' formulas, load."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from mmuniformer.datasets import frames
from mmuniformer.datasets.rand_augment import new_random
from mmuniformer.datasets.video.readers import FolderReader, open_video
from mmuniformer.registry import TRANSFORMS

Results = dict[str, Any]
"""What a pipeline hands on, by mmaction2's keys."""


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open the video ``filename`` or the folder of frames ``frame_dir`` of a sample.

    Args:
        reader: 'decord', 'av' or 'cv2'; 'auto' takes the first of them that is installed.
    """

    def __init__(self, reader: str = 'auto'):
        self.reader = reader

    def transform(self, results: Results) -> Results:
        """Add the open video and its number of frames."""
        if 'frame_dir' in results:
            video = FolderReader(
                results['frame_dir'],
                results['filename_tmpl'],
                results['total_frames'],
                results['start_index'],
            )
        else:
            video = open_video(results['filename'], self.reader)
        return results | {'video_reader': video, 'total_frames': len(video)}


class Sample(BaseTransform):
    """Choose the frames of clips: random ones in training, spread ones in testing.

    Args:
        clip_len: Frames of a clip.
        num_clips: Clips of a video.
        test_mode: Whether the clips are spread over the video and not random.
    """

    def __init__(self, clip_len: int, num_clips: int = 1, test_mode: bool = False):
        self.clip_len, self.num_clips, self.test_mode = clip_len, num_clips, test_mode
        self.told: set[str] = set()

    def clip(self, length: int, index: int) -> np.ndarray:
        """Return the frames of the clip ``index`` of a video with so many frames."""
        raise NotImplementedError

    @property
    def window(self) -> int:
        """Frames that a clip spans."""
        return self.clip_len

    def transform(self, results: Results) -> Results:
        """Add the numbers of frames, from 0, clip after clip."""
        length = results['total_frames']
        name = results.get('filename', results.get('frame_dir', 'a video'))
        if length < self.window and name not in self.told:
            self.told.add(name)
            print_log(
                f'{name} has {length} frames, and a clip spans {self.window}: frames are repeated. '
                'Set clip_len or frame_interval to less, or leave it out of the list.',
                'current',
            )
        clips = [self.clip(length, index) for index in range(self.num_clips)]
        return results | {
            'frame_inds': np.concatenate(clips),
            'clip_len': self.clip_len,
            'num_clips': self.num_clips,
        }


@TRANSFORMS.register_module()
class SampleDense(Sample):
    """Clips that are windows of ``clip_len * frame_interval`` frames, as for Kinetics.

    mmaction2's ``SampleFrames`` gives other frames. A video shorter than the window ends with its
    last frame repeated.

    Args:
        clip_len: Frames of a clip.
        frame_interval: Frames from one to the next, about.
        num_clips: Clips of a video.
        test_mode: Whether the clips are spread over the video and not random.
    """

    def __init__(self, clip_len: int, frame_interval: int, **kwargs: Any):
        super().__init__(clip_len, **kwargs)
        self.frame_interval = frame_interval

    @property
    def window(self) -> int:
        """Frames that a clip spans."""
        return self.clip_len * self.frame_interval

    def clip(self, length: int, index: int) -> np.ndarray:
        """Return the frames of the clip ``index`` of a video with so many frames."""
        shape = length, self.clip_len, self.frame_interval
        if self.test_mode:
            start = frames.dense_start(*shape, index, self.num_clips)
        else:
            start = frames.random_dense_start(*shape, new_random())
        return frames.dense_clip(*shape, start)


@TRANSFORMS.register_module()
class SampleSegments(Sample):
    """Clips that take one frame of each of ``clip_len`` equal parts, as for Something-Something.

    Args:
        clip_len: Frames of a clip.
        num_clips: Clips of a video.
        test_mode: Whether places in the parts are fixed and not random.
    """

    def clip(self, length: int, index: int) -> np.ndarray:
        """Return the frames of the clip ``index`` of a video with so many frames."""
        if self.test_mode:
            return frames.segment_clip(length, self.clip_len, index, self.num_clips)
        return frames.random_segment_clip(length, self.clip_len, new_random())


@TRANSFORMS.register_module()
class LoadFrames(BaseTransform):
    """Load the sampled frames and close the video.

    Args:
        channel_order: 'rgb' or 'bgr'. The authors' weights for Something-Something and HMDB51 are
            of BGR frames.
    """

    def __init__(self, channel_order: str = 'rgb'):
        self.step = {'rgb': 1, 'bgr': -1}[channel_order]

    def transform(self, results: Results) -> Results:
        """Add the frames, ``(H, W, 3)`` each."""
        images = results.pop('video_reader').frames(results['frame_inds'])
        shape = images[0].shape[:2]
        images = [np.ascontiguousarray(image[..., :: self.step]) for image in images]
        return results | {'imgs': images, 'original_shape': shape, 'img_shape': shape}
