"""Servers on loopback for the tests of live sources: FFmpeg's, GStreamer's, and MPEG-TS files sent at their own pace."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.ingest import Frame, IngestError, LiveIngest, open_live

from .clips import ffmpeg, probe
from .processes import running

CLOCK = (
    "color=black:size=128x64:rate=25,settb=1/1000,setpts=RTCTIME/1000,"
    "geq=lum='16+219*mod(floor(T*1000/pow(2,floor(X/16)+8*floor(Y/16))),2)':cb=128:cr=128,setpts=N*40"
)
"""Pictures of FFmpeg that tell when they were made: 32 blocks, the bits of the wall clock in milliseconds."""

SYSTEM_PYTHON = "/usr/bin/python3"
"""The Python that the distribution's bindings of GStreamer are for."""


def age_s(frame: Frame) -> float:
    """How long ago a picture of CLOCK was made, by the wall clock."""
    blocks = frame.image[..., 1].reshape(4, 16, 8, 16).mean(axis=(1, 3)).ravel() > 128
    made_ms = int((blocks * 2.0 ** np.arange(32)).sum())
    return ((int(time.time() * 1e3) - made_ms) % 2**32) / 1e3


@functools.cache
def rtsp_is_here() -> bool:
    program = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not os.path.exists(SYSTEM_PYTHON):
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", program], capture_output=True, check=False).returncode == 0


def needs_rtsp() -> pytest.MarkDecorator:
    absent = not os.environ.get("REFAVS_REQUIRE_MEDIA") and not rtsp_is_here()
    return pytest.mark.skipif(absent, reason="gir1.2-gst-rtsp-server-1.0 or python3-gi is not installed")


@contextmanager
def rtsp_server(port: int, *account: str) -> Iterator[subprocess.Popen[str]]:
    """rtsp://127.0.0.1:PORT/live, see rtsp_server.py."""
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(port), *account]
    with running(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield server


@contextmanager
def ffmpeg_server(*output: str) -> Iterator[subprocess.Popen[str]]:
    """CLOCK in H.264, and a tone of 440 Hz, as they are made."""
    pictures = [
        "-re",
        "-f",
        "lavfi",
        "-i",
        CLOCK,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
    ]
    sound = ["-re", "-f", "lavfi", "-i", "sine=440:sample_rate=44100", "-c:a", "aac"]
    inputs = [*pictures[:5], *sound[:5], *pictures[5:], "-g", "12", "-pix_fmt", "yuv420p", *sound[5:]]
    with running(["ffmpeg", "-v", "error", "-nostdin", *inputs, *output]) as server:
        yield server


def open_when_ready(address: str, **options: object) -> LiveIngest:
    """A server's stream, as soon as it listens."""
    until = time.monotonic() + 20
    while True:
        try:
            return open_live(address, 32, **options)
        except IngestError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@dataclass(frozen=True)
class Part:
    """Bytes of a stream, and when they are due: seconds from its beginning, and where what is due then ends."""

    data: bytes
    seconds: float
    due: list[tuple[float, int]]


def part_of(path: Path, seconds: float, begins_s: float = 0.0) -> Part:
    data = path.read_bytes()
    packets = probe(path, "-show_entries", "packet=pos,dts_time")["packets"]
    starts = sorted((int(p["pos"]), float(p["dts_time"])) for p in packets if "pos" in p)
    ends = [pos for pos, _ in starts[1:]] + [len(data)]
    return Part(data, seconds, [(dts - begins_s, end) for (_, dts), end in zip(starts, ends, strict=True)])


def pattern(
    path: Path,
    seconds: float,
    *,
    size: str = "160x120",
    rate: int = 44_100,
    at_s: float = 0.0,
    pictures_s: float | None = None,
    sound: tuple[float, float] | None = None,
    gop: int = 5,
) -> Part:
    """MPEG-TS of a test pattern at 25 frames a second, for `pictures_s`, and a tone of 440 Hz, from when to when."""
    begin, end = sound or (0.0, seconds)
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={pictures_s or seconds}"]
    inputs += [
        "-itsoffset",
        f"{begin}",
        "-f",
        "lavfi",
        "-i",
        f"sine=440:sample_rate={rate}:duration={end - begin}",
    ]
    codecs = ["-c:v", "mpeg2video", "-g", str(gop), "-q:v", "4", "-c:a", "mp2"]
    # Times as they are written here; 1 s, so that what B-frames and encoders put before is after 0.
    times = ["-output_ts_offset", f"{at_s + 1}", "-muxdelay", "0", "-muxpreload", "0"]
    ffmpeg(*inputs, "-t", seconds, *codecs, *times, path)
    return part_of(path, seconds, at_s + 1)


@contextmanager
def sent(*parts: Part, speed: float = 1.0) -> Iterator[str]:
    """The parts one after the other, to each who connects, `speed` times as fast as they were recorded; gives the address."""
    ended = threading.Event()

    def send(connection: socket.socket) -> None:
        began = time.monotonic()
        with connection, contextlib.suppress(OSError):
            for part in parts:
                done = 0
                for due_s, end in part.due:
                    if ended.wait(max(0.0, began + due_s / speed - time.monotonic())):
                        return
                    connection.sendall(part.data[done:end])
                    done = max(done, end)
                began += part.seconds / speed
            ended.wait(60)

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                send(server.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            accepting.join()


@contextmanager
def http_server(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Gives the address, without a slash at its end."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()
