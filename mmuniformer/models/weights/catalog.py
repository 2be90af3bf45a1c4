"""The released files: what they are, where they lie, and how to tell that one arrived whole.

To add a file, add a row: commands, ``pretrained=True`` and downloads go by this table.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from mmuniformer.errors import CheckpointError

HUB = 'https://huggingface.co'
HUB_SCHEME = 'hf://'
OPENMMLAB = 'https://download.openmmlab.com/mmpose/v1/projects/uniformer'
MMACTION = 'https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1'
IMAGENET, DETECTOR, SEGMENTOR, POSE, VIDEO = (
    *('ImageNet classifier', 'detector', 'segmentor', 'pose estimator', 'video recognizer'),
)


@dataclass(frozen=True)
class ReleasedFile:
    """A file that the authors or a framework published."""

    name: str
    kind: str
    rows: tuple[str, ...]
    """What it is the weights of: shipped configs, and a backbone's name in ``get_model``."""
    head_dim: int
    homes: tuple[str, ...]
    """Addresses that give the same weights, tried in this order."""
    license: str
    """As its first home states."""
    sha256: str = ''
    """In hexadecimal, as much as is known."""
    size: int | None = None
    """Bytes, if known."""
    note: str = ''
    """What a user of it has to know."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The homes as web pages have them."""
        hub = HUB_SCHEME
        return tuple(HubFile.parse(h).url() if h.startswith(hub) else h for h in self.homes)


def _pose(row: str, name: str) -> ReleasedFile:
    """Return the row of a pose file, whose name ends in its hash and a date."""
    sha256 = name.split('-')[1].partition('_')[0]
    return ReleasedFile(name, POSE, (row,), 64, (f'{OPENMMLAB}/{name}',), 'Apache-2.0', sha256)


def _video(row: str, name: str) -> ReleasedFile:
    """Return the row of a file that mmaction2 converted; its classes are by the alphabet."""
    sha256 = name.rpartition('-')[2].removesuffix('.pth')
    note = 'MMAction2 runs it with `model.backbone.layer_norm_eps=1e-5`, the authors with 1e-6'
    home = (f'{MMACTION}/{name}',)
    return ReleasedFile(name, VIDEO, (row,), 64, home, 'Apache-2.0', sha256, note=note)


RELEASED_FILES = (
    ReleasedFile(
        'uniformer_small_in1k.pth', IMAGENET,
        ('uniformer_small', 'uniformer-small_8xb128-300e_in1k'), 64,
        (
            'hf://Sense-X/uniformer_image/uniformer_small_in1k.pth',
            f'{OPENMMLAB}/uniformer_small_in1k.pth',
        ),
        'MIT',
    ),
    ReleasedFile(
        'uniformer_small_plus_in1k.pth', IMAGENET,
        ('uniformer_small_plus', 'uniformer-small-plus_8xb128-300e_in1k'), 32,
        ('hf://Sense-X/uniformer_image/uniformer_small_plus_in1k.pth',),
        'MIT',
    ),
    ReleasedFile(
        'uniformer_base_in1k.pth', IMAGENET,
        ('uniformer_base', 'uniformer-base_8xb128-300e_in1k'), 64,
        (
            'hf://Sense-X/uniformer_image/uniformer_base_in1k.pth',
            f'{OPENMMLAB}/uniformer_base_in1k.pth',
        ),
        'MIT',
    ),
    ReleasedFile(
        'uniformer_xxs_160_in1k.pth', IMAGENET,
        ('uniformer_light_xxs', 'uniformer-light-xxs_8xb512-600e_in1k-160px'), 28,
        ('hf://Andy1621/uniformer_light/uniformer_xxs_160_in1k.pth',),
        'MIT',
    ),
    ReleasedFile(
        'mask_rcnn_3x_ms_hybrid_small.pth', DETECTOR,
        ('mask-rcnn_uniformer-small-h14_fpn_amp-ms-crop-3x_coco',), 64,
        ('hf://Andy1621/uniformer/mask_rcnn_3x_ms_hybrid_small.pth',),
        'MIT', 'ca5469b0889f10c82522c97ac116c78aabe8628a6fd1453a9fced62453f4986c', 164_955_531,
    ),
    ReleasedFile(
        'upernet_global_small.pth', SEGMENTOR,
        ('upernet_uniformer-small-global_8xb2-160k_ade20k-512x512',), 64,
        (
            'hf://Andy1621/uniformer/upernet_global_small.pth',
            'hf://lllyasviel/Annotators/upernet_global_small.pth',
        ),
        'MIT', 'bebfa1264c10381e389d8065056baaadbdadee8ddc6e36770d1ec339dc84d970', 206_313_115,
    ),
    *(
        _pose(f'td-hm_uniformer-{row}', f'top_down_{file}_20230724.pth')
        for row, file in (
            ('small_8xb128-210e_coco-256x192', '256x192_global_small-d4a7fdac'),
            ('small_8xb128-210e_coco-384x288', '384x288_global_small-7a613f78'),
            ('small_8xb64-210e_coco-448x320', '448x320_global_small-18b760de'),
            ('base_8xb128-210e_coco-256x192', '256x192_global_base-1713bcd4'),
            ('base_8xb32-210e_coco-384x288', '384x288_global_base-c650da38'),
            ('base_8xb32-210e_coco-448x320', '448x320_global_base-a05c185f'),
        )
    ),
    *(
        _video(
            f'uniformer-{arch}_imagenet1k-pre_8xb{batch}-{clip}x1-110e_kinetics400-rgb',
            f'uniformer-{arch}_imagenet1k-pre_{clip}x1_kinetics400-rgb_20221219-{sha256}.pth',
        )
        for arch, batch, clip, sha256 in (
            ('small', 4, '16x4', 'c630a037'),
            ('base', 5, '16x4', '157c2e66'),
            ('base', 4, '32x4', 'b776322c'),
        )
    ),
)  # fmt: skip


def find_released(name: str) -> ReleasedFile:
    """Return the released file of a file name, with or without suffix, or of a row.

    Raises:
        CheckpointError: There is none.
    """
    for file in RELEASED_FILES:
        if name in (file.name, PurePosixPath(file.name).stem, *file.rows):
            return file
    names = [text for file in RELEASED_FILES for text in (file.name, *file.rows)]
    close = ', '.join(difflib.get_close_matches(name, names))
    raise CheckpointError(
        f'no released file is named {name} or belongs to it'
        + (f'; the closest are {close}' if close else '')
        + ': `mmuniformer weights list` shows all'
    )


def weights_of(row: str) -> ReleasedFile | None:
    """Return the released file of a config or backbone, the first on the list, if any."""
    return next((file for file in RELEASED_FILES if row in file.rows), None)


def released_at(address: str) -> ReleasedFile | None:
    """Return the released file that has this address, if any."""
    return next((file for file in RELEASED_FILES if address in file.homes), None)


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub."""

    repo: str
    revision: str
    path: str

    @staticmethod
    def parse(address: str) -> HubFile:
        """Read ``hf://OWNER/REPO[@REVISION]/FILE``.

        Raises:
            CheckpointError: It is of another form.
        """
        form = re.fullmatch(r'hf://([\w.-]+/[\w.-]+)(?:@([^/]+))?/(.+)', address)
        if not form:
            raise CheckpointError(f'{address}: write hf://OWNER/REPO[@REVISION]/FILE')
        return HubFile(form[1], form[2] or 'main', form[3])

    def url(self, endpoint: str = HUB) -> str:
        """Return where a server of the hub's kind has it."""
        return f'{endpoint.rstrip("/")}/{self.repo}/resolve/{self.revision}/{self.path}'


def normalized(address: str) -> str:
    """Return an address of the hub, of a file or of the page that shows it, in the form hf://."""
    form = re.fullmatch(
        rf'{HUB}/([\w.-]+/[\w.-]+)/(?:resolve|blob)/([^/?]+)/([^?#]+)(?:[?#].*)?', address
    )
    if not form:
        return address
    revision = '' if form[2] == 'main' else f'@{form[2]}'
    return f'{HUB_SCHEME}{form[1]}{revision}/{unquote(form[3])}'
