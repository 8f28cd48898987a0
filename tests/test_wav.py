"""WAV files against scipy's writer and Python's, and headers that lie."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import wavfile

from refavs_rt.wav import decode_wav

COUNT = 1_001


def signal(channels: int) -> NDArray[np.float64]:
    """[COUNT, channels] in [-1, 1]."""
    return np.random.default_rng(channels).uniform(-1, 1, (COUNT, channels))


def written(samples: NDArray[np.generic], rate: int = 22_050) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, rate, samples)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("u1", 127, 128), ("<i2", 32_767, 0), ("<i4", 2**31 - 1, 0), ("<f4", 1, 0), ("<f8", 1, 0)],
)
def test_what_scipy_writes(channels: int, dtype: str, scale: int, offset: int) -> None:
    expected = signal(channels)
    samples, rate = decode_wav(written((expected * scale + offset).astype(dtype)))
    assert rate == 22_050 and samples.dtype == np.float32 and samples.shape == (COUNT, channels)
    np.testing.assert_allclose(samples, expected, atol=2 / scale + 1e-6 if scale > 1 else 1e-6)


def test_24_bits() -> None:
    values = (signal(2) * (2**23 - 1)).astype("<i4")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(3)
        wav.setframerate(48_000)
        wav.writeframes(values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    samples, rate = decode_wav(stream.getvalue())
    assert rate == 48_000
    np.testing.assert_allclose(samples, values / 2**23, atol=1e-7)


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    return b"RIFF\xff\xff\xff\xffWAVE" + b"".join(chunks)


def header(kind: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    return struct.pack("<HHIIHH", kind, channels, rate, rate * block % 2**32, block, bits)


SAMPLES = np.arange(-500, 501, dtype="<i2")


def test_extensible_headers_and_other_chunks() -> None:
    """As a writer of many channels leaves them; the list before the samples has an odd length."""
    extension = struct.pack("<HHIH14s", 22, 16, 4, 1, b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71")
    content = riff(
        chunk(b"LIST", b"odd"), chunk(b"fmt ", header(0xFFFE) + extension), chunk(b"data", SAMPLES.tobytes())
    )
    np.testing.assert_array_equal(decode_wav(content)[0][:, 0], SAMPLES / np.float32(32_768))


def test_sound_written_to_a_pipe_reaches_to_the_end() -> None:
    content = riff(chunk(b"fmt ", header()), chunk(b"data", SAMPLES.tobytes(), 0xFFFF_FFFF))
    np.testing.assert_array_equal(decode_wav(content)[0][:, 0], SAMPLES / np.float32(32_768))


def test_no_samples() -> None:
    assert decode_wav(riff(chunk(b"fmt ", header(channels=2)), chunk(b"data", b"")))[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no WAV file"),
        (b"ID3" + bytes(100), "it is no WAV file"),
        (riff(), "it has no samples"),
        (riff(chunk(b"fmt ", header())), "it has no samples"),
        (riff(chunk(b"data", SAMPLES.tobytes())), "it has no header of its samples"),
        (riff(chunk(b"fmt ", header()[:10]), chunk(b"data", b"")), "it has no header of its samples"),
        (riff(chunk(b"fmt ", header(rate=0)), chunk(b"data", b"")), "its rate is 0 Hz"),
        (riff(chunk(b"fmt ", header(rate=4_294_967_291)), chunk(b"data", b"")), "its rate is 4294967291 Hz"),
        (riff(chunk(b"fmt ", header(channels=0)), chunk(b"data", b"")), "0 channels of 16 bits"),
        (
            riff(chunk(b"fmt ", header(kind=85)), chunk(b"data", b"")),
            "it holds format 0x0055 of 16 bits; convert",
        ),
        (
            riff(chunk(b"fmt ", header(kind=3)), chunk(b"data", b"")),
            "it holds floating point of 16 bits; convert",
        ),
        (
            riff(chunk(b"fmt ", header(bits=12)), chunk(b"data", b"")),
            "1 bytes; convert|it holds PCM of 12 bits",
        ),
        (
            riff(chunk(b"fmt ", header()), chunk(b"data", b"ab", 4)),
            "it ends too early: 2 bytes of sound, not 4",
        ),
        (riff(chunk(b"fmt ", header()), chunk(b"data", b"abc")), "its last sample is cut"),
        (written(np.array([[0.5], [np.nan]], np.float32)), "a sample is no number"),
    ],
)
def test_what_cannot_be_read_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_wav(content)


def test_any_flipped_byte_is_read_or_told() -> None:
    """Never another error, nor a size or a rate that the header made up."""
    good = riff(chunk(b"LIST", b"odd"), chunk(b"fmt ", header()), chunk(b"data", SAMPLES.tobytes()))
    for at in range(70):
        for value in (0, 1, 7, 127, 128, 255):
            bad = bytearray(good)
            bad[at] = value
            try:
                samples, rate = decode_wav(bytes(bad))
            except ValueError as error:
                assert str(error)
            else:
                assert samples.nbytes <= 4 * len(good) and 1_000 <= rate <= 384_000
