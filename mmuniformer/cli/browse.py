"""Pictures of what a model is shown: images after a config's augmentation, with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import set_random_seed
from mmengine.structures import BaseDataElement

from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError
from mmuniformer.visualization.draw import colors, draw_instances, draw_map, draw_poses
from mmuniformer.visualization.figures import check_target, grid_of, save_figure

MIN_SIDE = 384
"""Longer side in pixels that smaller pictures are enlarged to before they are drawn on."""
IGNORED_COLOUR = (0, 0, 0)


class Sample(NamedTuple):
    """An image as BGR ``(H, W, 3)``, its labels, and the size that the labels are in."""

    image: np.ndarray
    labels: BaseDataElement
    size: tuple[int, int]
    title: str


def load_samples(
    cfg: Config, split: str = 'train', number: int = 8, seed: int = 0
) -> tuple[list[Sample], Mapping[str, Any]]:
    """Take samples spread over a split through its pipeline.

    Args:
        cfg: Config with a data loader for the split.
        split: train, val or test.
        number: How many samples at most.
        seed: Another seed, other augmentations.

    Returns:
        The samples and the data set's meta data (classes, palette, skeleton).

    Raises:
        UserError: The config has no such split, or its data are missing or empty.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'the config has no {split}_dataloader')
    settings = loader.dataset.copy()
    keep_transformed_keypoints(settings)
    set_random_seed(seed)
    with scope_of(cfg):
        try:
            dataset = DATASETS.build(settings)
            chosen = range(0, len(dataset), max(1, len(dataset) // number))[:number]
            packed = [dataset[index] for index in chosen]
        except (OSError, AssertionError) as error:  # the frameworks assert that files are there
            raise UserError(
                f'the {split} data can not be read: {error}. Say where yours are: --cfg-options '
                f'{split}_dataloader.dataset.data_root=...'
            ) from error
        except ValueError as error:
            if 'at least one array' not in str(error):
                raise
            packed = []  # mmengine fails so on a data set without samples
    if not packed:
        raise UserError(
            f'the {split} data hold no sample: see the annotations and filter_cfg of '
            f'{split}_dataloader.dataset'
        )
    is_bgr = cfg.model.get('data_preprocessor', {}).get('bgr_to_rgb', True)
    test_mode = getattr(dataset, 'test_mode', False)
    return [unpack(sample, is_bgr, test_mode) for sample in packed], dataset.metainfo


def keep_transformed_keypoints(settings: Any) -> None:
    """Ask mmpose's last step, wherever it is in a data set's config, for the augmented points."""
    if isinstance(settings, Mapping):
        if settings.get('type') == 'PackPoseInputs':
            settings['pack_transformed'] = True
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            keep_transformed_keypoints(value)


def unpack(packed: Mapping[str, Any], is_bgr: bool, test_mode: bool) -> Sample:
    """Turn what a pipeline ends with into a picture and its labels."""
    labels = packed['data_samples']
    image = packed['inputs'].permute(1, 2, 0).numpy()
    image = np.ascontiguousarray(image if is_bgr else image[..., ::-1]).astype(np.uint8)
    size = image.shape[:2]
    title = f'{Path(labels.img_path).name}  {size[1]} x {size[0]}'
    instances = labels.get('gt_instances', {})
    if 'masks' in instances:
        size = (instances.masks.height, instances.masks.width)
    elif test_mode and 'bboxes' in instances and 'keypoints' not in instances:
        # Labels to evaluate by stay in the coordinates of the file.
        size = tuple(labels.ori_shape)
    return Sample(image, labels, size, title)


def draw_samples(samples: Sequence[Sample], meta: Mapping[str, Any]) -> Figure:
    """Draw a contact sheet of samples with boxes and masks, label maps or key points."""
    pictures = [draw_sample(sample, meta) for sample in samples]
    return grid_of(pictures, [sample.title for sample in samples])


def draw_sample(sample: Sample, meta: Mapping[str, Any]) -> np.ndarray:
    """Draw a sample's labels over its picture, enlarged if it is small: BGR ``(H, W, 3)``."""
    height, width = sample.image.shape[:2]
    zoom = max(1.0, MIN_SIDE / max(height, width))
    picture = cv2.resize(sample.image, (round(zoom * width), round(zoom * height)))
    scale = np.array(picture.shape[1::-1]) / sample.size[::-1]
    instances = sample.labels.get('gt_instances', {})
    names = [*(meta.get('classes') or ())]
    if 'gt_sem_seg' in sample.labels:
        classes = sample.labels.gt_sem_seg.data[0].numpy().astype(np.uint8)
        # Labels without a class, such as 255, are those that do not count.
        classes = resize_map(np.minimum(classes, len(names)), picture)
        colour_of = [*colors(meta.get('palette'), len(names)), IGNORED_COLOUR]
        return draw_map(picture, classes, [*names, 'ignored'], colour_of)
    if 'transformed_keypoints' in instances:
        return draw_pose(picture, instances, scale, meta)
    if 'bboxes' in instances:
        return draw_boxes(picture, instances, scale, names, meta.get('palette'))
    return picture


def resize_map(values: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Resize a map ``(H, W)`` of uint8 to a picture's size, without mixing values."""
    return cv2.resize(values, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def draw_boxes(
    picture: np.ndarray,
    instances: BaseDataElement,
    scale: np.ndarray,
    names: Sequence[str],
    palette: Any,
) -> np.ndarray:
    """Draw the boxes of instances, and their masks if they have any."""
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).numpy() * np.tile(scale, 2)
    labels = instances.labels.tolist()
    masks = None
    if labels and 'masks' in instances:
        ours = instances.masks.to_ndarray()
        masks = np.stack([resize_map(mask, picture) for mask in ours]) > 0
    colour_of = colors(palette, len(names))
    return draw_instances(
        picture, boxes, [names[i] for i in labels], [colour_of[i] for i in labels], masks
    )


def draw_pose(
    picture: np.ndarray, instances: BaseDataElement, scale: np.ndarray, meta: Mapping[str, Any]
) -> np.ndarray:
    """Draw skeletons, without the points that are not labelled; the picture is their box."""
    points = np.asarray(instances.transformed_keypoints) * scale
    visible = np.asarray(instances.keypoints_visible).reshape(*points.shape[:2], -1)[..., 0] > 0
    height, width = picture.shape[:2]
    links = [tuple(link) for link in meta['skeleton_links']]
    return draw_poses(
        picture,
        [(0, 0, width - 1, height - 1)] * len(points),
        points,
        visible,
        links,
        colors(meta['skeleton_link_colors'], len(links)),
        colors(meta['keypoint_colors'], points.shape[1]),
    )


@click.command('browse', cls=ConfigCommand)
@click.argument('config')
@click.argument('out', type=click.Path(path_type=Path))
@click.option('--split', type=click.Choice(['train', 'val', 'test']), default='train')
@click.option('--number', type=click.IntRange(1), default=8, show_default=True, help='Samples.')
@click.option('--seed', default=0, show_default=True, help='Another seed, other augmentations.')
@click.option('--force', is_flag=True, help='Replace OUT.')
@cfg_options
def command(
    config: str, out: Path, split: str, number: int, seed: int, force: bool, cfg_options: dict
) -> None:
    """Draw augmented images of CONFIG's data with their labels to the picture OUT."""
    check_target(out, force)
    samples, meta = load_samples(load_config(config, cfg_options), split, number, seed)
    save_figure(draw_samples(samples, meta), out)
    click.echo(f'{out}: {len(samples)} samples of the {split} data')
