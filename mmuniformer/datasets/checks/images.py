"""Checks on the first images of a dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmuniformer.errors import DataError

FILES_CHECKED = 16
"""Files of a dataset that are opened before a run; the others are when their turn comes."""


def image_size(file: Path) -> tuple[tuple[int, int], bool] | None:
    """Return the (width, height) of an image as it is read, and whether EXIF turned it.

    Returns:
        None for a format or size that Pillow refuses and the frameworks may read.

    Raises:
        FileNotFoundError: There is no file.
        OSError: It is no image, empty or truncated.
    """
    import cv2
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            image.load()
            seen = ImageOps.exif_transpose(image).size
            return seen, seen != image.size
    except UnidentifiedImageError:
        if cv2.haveImageReader(str(file)):
            return None
        raise OSError('not an image' if file.stat().st_size else 'it is empty') from None
    except Image.DecompressionBombError:
        return None


def check_images(
    source: str | Path, images: Iterable[tuple[Path, float | None, float | None]]
) -> None:
    """Refuse images that are missing, cannot be decoded, or have another size than annotated.

    Args:
        source: What names the images.
        images: File, width and height in pixels of each; a size of None is not compared.

    Raises:
        DataError: Names the image.
    """
    for file, width, height in images:
        try:
            found = image_size(file)
        except FileNotFoundError:
            raise DataError(
                f'{file}, named in {source}, does not exist: set dataset.data_root and '
                'dataset.data_prefix to where the images are'
            ) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f'{file} cannot be decoded ({error}): replace it, or remove it from {source}'
            ) from None
        if found and width is not None and found[0] != (width, height):
            size, turned = found
            after = ' after its EXIF rotation, which is applied when it is read' * turned
            raise DataError(
                f'{file} is {size[0]} x {size[1]} (width x height){after}, and {source} says '
                f'{width} x {height}: annotate the image as it is read, and correct its size'
            )
