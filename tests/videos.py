"""Small videos, whole and broken."""

import cv2
import numpy as np


def write_video(path, frames, corrupt=(), size=(96, 64), step=20):
    """Write Motion JPEG whose frame i is gray of value ``step * i``; some frames are wiped."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), step * index, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    starts, at = [], data.find(b'movi')
    while len(starts) < frames:
        at = data.find(b'00dc', at + 4)
        starts.append(at)
    for index in corrupt:
        begin = starts[index] + 8
        length = int.from_bytes(data[begin - 4 : begin], 'little')
        data[begin : begin + length] = bytes(length)
    path.write_bytes(data)
    return path
