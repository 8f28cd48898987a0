"""Overlays pushed to real receivers on loopback, and what becomes of them when those are slow or gone."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from refavs_rt._ingest import Push
from refavs_rt.cli import main
from refavs_rt.ingest import LiveIngest, open_live
from refavs_rt.sink import SinkError, sound_of

from .clips import decode_rgb, ffmpeg, probe, sweep, test_pattern
from .flash_and_beep import skews_s
from .live_servers import SYSTEM_PYTHON, needs_rtsp
from .live_sources import BEEP, FLASH
from .processes import free_port, running
from .tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.media
CAMERA = f"lavfi:{FLASH}[out0];{BEEP}[out1]"
GRAY = np.full((48, 64, 3), 100, np.uint8)


def push_to(url: str, source: LiveIngest) -> Push:
    record = sound_of(source)[1]
    return Push(url, source.width, source.height, frame_rate=source.frame_rate, record=record)


def push_until(push: Push, source: LiveIngest, done: Callable[[], bool], limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < until, (push.counters, push.take_notices())
        frame = source.read(timeout_s=0.5)
        if frame is not None:
            push.write(frame.image, frame.pts_s)


def push_for(push: Push, source: LiveIngest, seconds: float) -> None:
    until = time.monotonic() + seconds
    push_until(push, source, lambda: time.monotonic() > until)


def closing_s(push: Push) -> float:
    began = time.monotonic()
    push.close()
    return time.monotonic() - began


@contextmanager
def receiver(out: Path, *source: str) -> Iterator[subprocess.Popen[str]]:
    """The ffmpeg tool, writing what it gets."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-y",
        *source,
        "-map",
        "0",
        "-c",
        "copy",
        "-flush_packets",
        "1",
        str(out),
    ]
    with running(command) as process:
        yield process


def listening(port: int, *, udp: bool = False) -> None:
    """Until somebody does."""
    until = time.monotonic() + 20
    table = Path("/proc/net/udp" if udp else "/proc/net/tcp")
    while f":{port:04X} 00000000:0000 " not in table.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def check(out: Path, seconds: float) -> None:
    """What has been received: both tracks, key frames, in step."""
    found = {stream["codec_type"]: stream for stream in probe(out, "-show_streams")["streams"]}
    assert (found["video"]["codec_name"], found["audio"]["codec_name"]) == ("h264", "aac")
    assert (found["video"]["width"], found["video"]["height"]) == (64, 64)
    packets = probe(out, "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags")["packets"]
    times = [float(packet["pts_time"]) for packet in packets]
    keys = [float(packet["pts_time"]) for packet in packets if "K" in packet["flags"]]
    assert times[-1] - times[0] > seconds and keys[0] == times[0]
    assert max(np.diff([*keys, times[-1]])) < 1.3, "who comes late sees something within a second or so"
    skews = skews_s(out, 64, 64)
    assert len(skews) >= 2
    assert abs(np.mean(skews)) < 0.02 and max(map(abs, skews)) < 0.045


def test_rtmp(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out.mkv"
    url = f"rtmp://127.0.0.1:{port}/live/key"
    with receiver(out, "-listen", "1", "-i", url) as process, open_live(CAMERA, 32) as source:
        listening(port)
        push = push_to(url, source)
        push_until(push, source, lambda: push.counters["sent"] > 110)
        assert closing_s(push) < 1.0
        process.wait(20)
    assert push.take_notices() == [] and push.counters["reconnects"] == 0
    check(out, 3.0)


def test_srt(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out.ts"
    with (
        receiver(out, "-i", f"srt://127.0.0.1:{port}?mode=listener") as process,
        open_live(CAMERA, 32) as source,
    ):
        listening(port, udp=True)
        push = push_to(f"srt://127.0.0.1:{port}", source)
        push_until(push, source, lambda: push.counters["sent"] > 110)
        assert closing_s(push) < 1.0
        process.wait(30)
    check(out, 3.0)


def test_udp(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out.ts"
    with (
        receiver(out, "-i", f"udp://127.0.0.1:{port}?timeout=3000000") as process,
        open_live(CAMERA, 32) as source,
    ):
        listening(port, udp=True)
        push = push_to(f"udp://127.0.0.1:{port}", source)
        push_until(push, source, lambda: push.counters["sent"] > 110)
        assert closing_s(push) < 1.0
        process.wait(30)
    check(out, 3.0)


@contextmanager
def rtsp_receiver(port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_receiver.py")), str(port), str(folder)]
    with running(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield server


@needs_rtsp()
def test_rtsp(tmp_path: Path) -> None:
    port = free_port()
    with rtsp_receiver(port, tmp_path), open_live(CAMERA, 32) as source:
        push = push_to(f"rtsp://127.0.0.1:{port}/live", source)
        push_until(push, source, lambda: push.counters["sent"] > 110)
        assert closing_s(push) < 1.0
        assert push.take_notices() == [] and push.counters["reconnects"] == 0
        pictures = tmp_path / "pictures.h264"
        until = time.monotonic() + 20
        while int(probe(pictures, "-count_packets", "-show_streams")["streams"][0]["nb_read_packets"]) < 80:
            assert time.monotonic() < until
            time.sleep(0.1)
        light = decode_rgb(pictures, 64, 64).mean(axis=(1, 2, 3)) > 128
        assert np.count_nonzero(np.diff(light)) >= 4, "two flashes"
        assert (tmp_path / "sound.aac").stat().st_size > 1_000


def test_a_receiver_that_is_killed_and_started_again_is_gone_on_with(tmp_path: Path) -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/s3cretkey"
    with open_live(CAMERA, 32) as source:
        push = push_to(url, source)
        notices: list[str] = []

        def told(beginning: str) -> bool:
            notices.extend(text for _, text in push.take_notices())
            return bool(notices) and notices[-1].startswith(beginning)

        push_until(push, source, lambda: told("not reached: push to rtmp://"))
        with receiver(tmp_path / "first.mkv", "-listen", "1", "-i", url) as process:
            push_until(push, source, lambda: told("back: push to"))
            push_until(push, source, lambda: push.counters["sent"] > 50)
            process.kill()
            push_until(push, source, lambda: told("lost: push to"))
        dropped = push.counters["dropped"]
        push_for(push, source, 1.0)
        assert push.counters["dropped"] > dropped
        with receiver(tmp_path / "second.mkv", "-listen", "1", "-i", url) as process:
            push_until(push, source, lambda: told("back: push to"))
            sent = push.counters["sent"]
            push_until(push, source, lambda: push.counters["sent"] > sent + 110)
            push.close()
            process.wait(20)
        assert push.counters["reconnects"] == 1
        assert [text.split(":")[0] for text in notices] == ["not reached", "back", "lost", "back"]
        assert not any("s3cret" in text for text in notices) and "/live/***" in notices[0]
    check(tmp_path / "second.mkv", 3.0)


@contextmanager
def stalled() -> Iterator[str]:
    """A server that takes connections and reads nothing; gives the address."""
    taken: list[socket.socket] = []
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                taken.append(server.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            accepting.join()
            for connection in taken:
                connection.close()


def test_a_receiver_that_reads_nothing_holds_nothing_up() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    with stalled() as url:
        push = Push(url, 640, 360, frame_rate=25.0)
        began, longest, i = time.monotonic(), 0.0, 0
        told: list[str] = []
        while not told and time.monotonic() < began + 60:
            before = time.monotonic()
            push.write(noise, i / 25)
            longest = max(longest, time.monotonic() - before)
            i += 1
            time.sleep(0.02)
            told = [text for _, text in push.take_notices()]
        assert len(told) == 1 and told[0].startswith("lost: push to tcp://127.0.0.1")
        assert "nothing is taken there" in told[0]
        assert longest < 1.0, "a picture is copied, and that is all"
        counted = push.counters
        assert counted["dropped"] > 50 and counted["sent"] + counted["dropped"] <= i
        assert closing_s(push) < 1.0


def test_closing_is_quick_while_a_receiver_is_stalled_connecting_or_absent() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    with stalled() as url:
        push = Push(url, 640, 360, frame_rate=25.0)
        until = time.monotonic() + 30
        for i in range(10_000):  # until the connection is full
            push.write(noise, i / 25)
            time.sleep(0.01)
            if push.counters["sent"] and push.counters["dropped"] > push.counters["sent"] + 20:
                break
            assert time.monotonic() < until
        assert closing_s(push) < 1.0
        for scheme in ("rtmp", "rtsp"):  # where the handshake is never answered
            push = Push(url.replace("tcp", scheme) + "/live/key", 64, 48, frame_rate=25.0)
            time.sleep(0.3)
            assert closing_s(push) < 1.0
    for url in (f"rtmp://127.0.0.1:{free_port()}/a/b", f"srt://127.0.0.1:{free_port()}"):
        push = Push(url, 64, 48, frame_rate=25.0)
        assert not push.write(GRAY, 0.0)
        time.sleep(0.3)
        assert closing_s(push) < 1.0
        assert not push.write(GRAY, 1.0)
        push.close()


@contextmanager
def taking() -> Iterator[str]:
    """A receiver that reads whatever comes."""

    def read() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                while connection.recv(1 << 16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        reading = threading.Thread(target=read)
        reading.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        reading.join(10.0)
        assert not reading.is_alive()


def test_closing_is_quick_while_the_sound_of_an_hour_is_gone_over(tmp_path: Path) -> None:
    """What a receiver who comes late has missed."""
    path = tmp_path / "hour.wav"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=3600", "-c:a", "pcm_u8", path)
    with taking() as url:
        push = Push(url, 64, 48, frame_rate=25.0, source=str(path))
        until = time.monotonic() + 30
        for i in range(10_000):
            if push.write(GRAY, 3_500 + i / 25):
                break
            time.sleep(0.02)
            assert time.monotonic() < until
        time.sleep(0.3)
        assert push.counters["sent"] == 0, "it is still at it, else this shows nothing"
        assert closing_s(push) < 1.0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtmp://user:pass@host:1935/live/key", "rtmp://***@host:1935/live/***"),
        ("rtmp://host/live/a/b?token=x", "rtmp://host/live/***?***"),
        ("rtmps://host/live", "rtmps://host/live"),
        ("RTMP://host/live/key", "RTMP://host/live/***"),
        ("rtsp://user:p@ss@host/stream?key=1", "rtsp://***@host/stream?***"),
        ("srt://host:9000?mode=caller&passphrase=hush", "srt://host:9000?***"),
        ("udp://127.0.0.1:1234", "udp://127.0.0.1:1234"),
        ("udp://127.0.0.1:1234#x", "udp://127.0.0.1:1234?***"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    push = Push(url.replace("host", "127.0.0.1"), 64, 48, frame_rate=25.0)
    push.close()
    assert push.shown == shown.replace("host", "127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "out.mp4",
        "http://user:hush@host/x",
        "rtmpt://host/live/hush",
        " rtmp://host/live/hush",
        "host/live/hush",
        "file:///tmp/x",
        "rtmp://",
        "rtsp:///live",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(SinkError, match="pushed to|names no host") as refused:
        Push(url, 64, 48, frame_rate=25.0)
    assert "hush" not in str(refused.value)


def test_two_may_close_at_once() -> None:
    for _ in range(20):
        push = Push(f"tcp://127.0.0.1:{free_port()}", 64, 48, frame_rate=25.0)
        closers = [threading.Thread(target=push.close) for _ in range(4)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(10.0)
            assert not closer.is_alive()


def test_pictures_that_cannot_be_taken() -> None:
    push = Push(f"udp://127.0.0.1:{free_port()}", 64, 48, frame_rate=25.0)
    push.write(GRAY, 0.5)
    for pts_s in (0.5, 0.4, -1.0, float("nan"), float("inf")):
        with pytest.raises(SinkError, match="times must rise"):
            push.write(GRAY, pts_s)
    with pytest.raises(ValueError, match="48 high and 64 wide"):
        push.write(np.zeros((64, 48, 3), np.uint8), 1.0)
    with pytest.raises(SinkError, match="size must be positive"):
        Push("udp://127.0.0.1:9", 0, 48, frame_rate=25.0)
    push.close()


def test_the_command_pushes_a_file_with_its_sound_and_tells_no_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip, out, port = tmp_path / "clip.mp4", tmp_path / "out.mkv", free_port()
    # Long enough that the receiver is there before it ends.
    ffmpeg(*test_pattern("64x64", "25", 60.0), *sweep(44_100, 60.0), "-c:v", "libx264", "-c:a", "aac", clip)
    bundle = write_tiny_bundle(tmp_path / "tiny")
    url = f"rtmp://127.0.0.1:{port}/live/s3cretkey"
    with receiver(out, "-listen", "1", "-i", url) as process:
        listening(port)
        words = [
            "--source",
            clip,
            "--bundle",
            bundle.path,
            "--push",
            url,
            "--text",
            "a dog",
            "--threads",
            "1",
        ]
        assert main(["stream", *map(str, words)]) == 0
        process.wait(20)
    said = capfd.readouterr()
    assert f"frames to rtmp://127.0.0.1:{port}/live/***, " in said.out
    assert "s3cret" not in said.out + said.err
    found = {stream["codec_type"]: stream for stream in probe(out, "-show_streams")["streams"]}
    assert (found["video"]["codec_name"], found["audio"]["codec_name"]) == ("h264", "aac")
