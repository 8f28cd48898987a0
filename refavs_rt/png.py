"""Masks as PNG files."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .masks import Mask

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_mask(mask: Mask) -> bytes:
    """A mask [H, W] as an 8-bit grey PNG: 255 where it is set, 0 elsewhere."""
    height, width = mask.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # a row begins with its filter: 0, none
    np.multiply(mask.view(np.uint8), 255, out=rows[:, 1:])
    # Run lengths alone find all there is to find in a mask, and much faster.
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = deflate.compress(rows.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
