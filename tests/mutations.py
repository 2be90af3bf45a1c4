"""Image files with faults that follow from a number: flipped bits, cuts, lying headers, bombs."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np
from PIL import Image

SIZE = (40, 48)
"""Height and width of the images that are damaged."""
KINDS = ('bits', 'cut', 'overwritten', 'spliced', 'header', 'bomb')
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 160
"""Bytes at the start of a file, and of a TIFF at its end, where sizes are written."""


@cache
def whole_files() -> tuple[tuple[str, bytes], ...]:
    """Return suffix and content of sound files of the five formats, in their varieties."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    color = np.stack([x * 5, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)
    cv2.circle(color, (24, 20), 9, (250, 40, 10), -1)
    rgb = Image.fromarray(color)
    gray, palette = rgb.convert('L'), rgb.quantize(32)
    alpha = rgb.convert('RGBA')
    alpha.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) << 8)
    turned = rgb.getexif()
    turned[0x0112] = 6
    more = {'save_all': True, 'append_images': [rgb.rotate(90)]}
    varieties = {
        'jpg': [(rgb, {}), (rgb, {'progressive': True}), (gray, {}), (rgb.convert('CMYK'), {}),
                (rgb, {'exif': turned, 'restart_marker_blocks': 2})],
        'png': [(rgb, {}), (gray, {}), (palette, {'transparency': 3}), (alpha, {}), (deep, {}),
                (gray.convert('1'), {}), (rgb, {'exif': turned})],
        'webp': [(rgb, {}), (rgb, {'lossless': True}), (alpha, {}), (rgb, more)],
        'tif': [(rgb, {}), (rgb, {'compression': 'tiff_lzw'}), (deep, {}), (alpha, {}),
                (rgb, {'compression': 'tiff_adobe_deflate', 'strip_size': 500}),
                (rgb, {'compression': 'jpeg'}), (gray.convert('1'), {'compression': 'group4'}),
                (rgb, {'compression': 'packbits', **more})],
        'gif': [(palette, {}), (palette, {'transparency': 2}), (palette, more)],
    }  # fmt: skip
    names = {'jpg': 'JPEG', 'tif': 'TIFF'}
    files = []
    for suffix, images in varieties.items():
        for image, options in images:
            stream = io.BytesIO()
            image.save(stream, names.get(suffix, suffix), **options)
            files.append((f'.{suffix}', stream.getvalue()))
    return tuple(files)


def mutated(number: int) -> tuple[str, bytes]:
    """Return the suffix and content of the damaged file that a number stands for."""
    random = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    suffix, data = whole_files()[random.integers(len(whole_files()))]
    if kind == 'bomb':
        return suffix, bomb(suffix, random)
    content = bytearray(data)
    damage(kind, suffix, content, random)
    return suffix, bytes(content)


def damage(kind: str, suffix: str, content: bytearray, random: np.random.Generator) -> None:
    """Flip bits of a file, cut it, overwrite a part, repeat a part elsewhere, or lie."""
    start, length = int(random.integers(len(content))), int(2 ** random.uniform(0, 8))
    if kind == 'bits':
        for place in random.integers(len(content), size=int(2 ** random.uniform(0, 6))):
            content[place] ^= 1 << random.integers(8)
    elif kind == 'cut':
        del content[start:]
    elif kind == 'overwritten':
        fill = (bytes(length), b'\xff' * length, random.bytes(length))[random.integers(3)]
        content[start : start + length] = fill
    elif kind == 'spliced':
        at = int(random.integers(len(content)))
        content[at:at] = content[start : start + length] * int(random.integers(1, 20))
    else:
        lie(suffix, content, random)


def lie(suffix: str, content: bytearray, random: np.random.Generator) -> None:
    """Write extreme numbers where sizes, counts and offsets are."""
    ends = 'big' if suffix in ('.jpg', '.png') else 'little'
    for _ in range(random.integers(1, 4)):
        width = int(random.choice([1, 2, 4]))
        value = EXTREMES[random.integers(len(EXTREMES))] & (256**width - 1)
        place = int(random.integers(min(HEADER, len(content) - 4)))
        if suffix == '.jpg' and random.random() < 0.5:
            frame = max(content.find(mark) for mark in (b'\xff\xc0', b'\xff\xc2'))
            place, width = frame + 5 + 2 * int(random.integers(2)), 2
            value = EXTREMES[random.integers(len(EXTREMES))] & 0xFFFF
        if suffix == '.tif' and random.random() < 0.5:
            place = len(content) - 4 - place
        content[place : place + width] = value.to_bytes(width, ends)
    if suffix == '.png':  # else its checksum gives the header away
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')


def bomb(suffix: str, random: np.random.Generator) -> bytes:
    """Return a small file of one color and up to 4 million pixels; half have less than 260,000."""
    most = random.choice([9, 11])
    height, width = (int(2 ** random.uniform(most - 2, most)) for _ in range(2))
    if suffix == '.png':
        return one_color_png(height, width)
    stream = io.BytesIO()
    image = Image.new('L', (width, height), 90)
    if suffix == '.tif':
        image.save(stream, 'TIFF', compression='tiff_adobe_deflate')
    else:
        image.save(stream, {'.jpg': 'JPEG', '.webp': 'WEBP', '.gif': 'GIF'}[suffix], method=0)
    return stream.getvalue()


def one_color_png(height: int, width: int) -> bytes:
    """Return a PNG of one bit a pixel, which compresses a thousandfold."""
    rows = zlib.compressobj(1)
    row = bytes(width // 8 + 1 + bool(width % 8))
    pixels = b''.join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    chunks = ((b'IHDR', header), (b'IDAT', pixels), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
        for name, body in chunks
    )
