"""WAV files as people have them: whole-number or floating-point samples, plain or extensible header, also written to a pipe."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFF_FFFF
"""What a writer that cannot go back leaves as the size of its samples: they reach to the end of the file."""
_RATES_HZ = (1_000, 384_000)
"""Beyond these a header is damaged; believed, it would cost any amount of memory."""


def decode_wav(content: bytes) -> tuple[NDArray[np.float32], int]:
    """Samples [N, channels] in [-1, 1] and their rate in Hz.

    Raises:
        ValueError: it is no WAV file, ends too early, or has samples of a kind that is not read; the message says which.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("it is no WAV file")
    header, data = _chunks(content)
    if len(header) < 16:
        raise ValueError("it has no header of its samples")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", header)
    if kind == _EXTENSIBLE and len(header) >= 26:
        (kind,) = struct.unpack_from("<H", header, 24)
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise ValueError(f"its rate is {rate} Hz")
    if not channels or block != channels * bits // 8:
        raise ValueError(f"{channels} channels of {bits} bits do not make {block} bytes")
    if len(data) % block:
        raise ValueError("its last sample is cut")
    samples = _samples(data, kind, bits).reshape(-1, channels)
    if not np.isfinite(samples).all():
        raise ValueError("a sample is no number")
    return samples, rate


def _chunks(content: bytes) -> tuple[bytes, memoryview]:
    """The header of the samples, and the samples."""
    header, at = b"", 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        at += 8
        if name == b"data":
            if size == _UNKNOWN_SIZE:
                size = len(content) - at
            if at + size > len(content):
                raise ValueError(f"it ends too early: {len(content) - at} bytes of sound, not {size}")
            return header, memoryview(content)[at : at + size]
        if name == b"fmt ":
            header = content[at : at + size]
        at += size + size % 2
    raise ValueError("it has no samples")


def _samples(data: memoryview, kind: int, bits: int) -> NDArray[np.float32]:
    if kind == _PCM and bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if kind == _PCM and bits == 16:
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
    if kind == _PCM and bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    if kind == _PCM and bits == 32:
        return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2**31)
    if kind == _FLOAT and bits in (32, 64):
        return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    name = {_PCM: "PCM", _FLOAT: "floating point"}.get(kind, f"format {kind:#06x}")
    raise ValueError(f"it holds {name} of {bits} bits; convert it to 16-bit PCM")
