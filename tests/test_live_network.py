"""Streams of the network from real servers on loopback, and what becomes of them when something goes wrong."""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from refavs_rt.ingest import Frame, IngestError, LiveIngest, open_live

from .clips import ffmpeg
from .live_servers import (
    age_s,
    ffmpeg_server,
    http_server,
    needs_rtsp,
    open_when_ready,
    part_of,
    pattern,
    rtsp_server,
    sent,
)
from .live_sources import frames_until, loudest_hz
from .processes import free_port

pytestmark = pytest.mark.media

LATENCY_S = 0.2
"""`open_live`'s default."""
ON_THE_WAY_S = 0.8
"""More than encoder, protocol and decoder take on a busy machine."""


def is_frame(frame: Frame | None) -> bool:
    return frame is not None


def has_sound(frame: Frame | None) -> bool:
    return frame is not None and frame.audio_missing_samples == 0


def frames_for(source: LiveIngest, seconds: float) -> list[Frame]:
    until = time.monotonic() + seconds
    return frames_until(source, lambda _: time.monotonic() > until, seconds + 5)


def latencies(source: LiveIngest, seconds: float) -> list[float]:
    """Of each frame in the next `seconds`, by the stream's own clock."""
    found: list[float] = []

    def note(frame: Frame | None) -> bool:
        if frame is not None:
            found.append(source.now_s - frame.pts_s)
        return time.monotonic() > until

    until = time.monotonic() + seconds
    frames_until(source, note, seconds + 5)
    return found


def told(source: LiveIngest) -> list[str]:
    """What has been told since the last call, without addresses and numbers."""
    return [re.sub(r"\w+://\S+", "URL", text).split("(")[0] for _, text in source.take_notices()]


def wait_until_told(source: LiveIngest, what: str, limit_s: float) -> str:
    said: list[str] = []

    def is_told(_: Frame | None) -> bool:
        said.extend(text for _, text in source.take_notices())
        return any(text.startswith(what) for text in said)

    frames_until(source, is_told, limit_s)
    assert len(said) == 1, said
    return said[0]


# RTSP


@needs_rtsp()
def test_rtsp_goes_over_tcp_and_its_latency_is_small_and_stays_so() -> None:
    port = free_port()
    with rtsp_server(port), open_when_ready(f"rtsp://127.0.0.1:{port}/live") as source:
        assert (source.width, source.height, source.video_codec, source.has_audio) == (128, 64, "h264", True)
        assert not udp_sockets()
        frames_until(source, has_sound, 8)
        ages: list[float] = []
        until = time.monotonic() + 3

        def note(frame: Frame | None) -> bool:
            if frame is not None:
                ages.append(age_s(frame))
                assert 0 <= source.now_s - frame.pts_s < LATENCY_S + ON_THE_WAY_S
            return time.monotonic() > until

        last = frames_until(source, note, 10)[-1]
        assert np.median(ages) < LATENCY_S + ON_THE_WAY_S
        assert np.median(ages[-20:]) < np.median(ages[:20]) + 0.1
        assert len(ages) > 50 and loudest_hz(last) == pytest.approx(440, abs=2)
        assert source.counters["clock_jumps"] == source.counters["corrupt"] == source.counters["late"] == 0
        assert abs(source.counters["sound_error_s"]) < 0.02 and source.take_notices() == []
        assert source.counters["repaired_pts"] <= 2  # also what had come while it was opened has its place


def udp_sockets() -> list[str]:
    """Of this process."""
    own = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            own.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue  # that of the listing itself
    rows = Path("/proc/net/udp").read_text().splitlines()[1:]
    return [row for row in rows if f"socket:[{row.split()[9]}]" in own]


@needs_rtsp()
def test_an_rtsp_server_that_is_killed_and_started_again_is_gone_on_with() -> None:
    port = free_port()
    with rtsp_server(port) as server, open_when_ready(f"rtsp://127.0.0.1:{port}/live") as source:
        before = frames_until(source, has_sound, 8)
        server.kill()
        server.wait()
        lost = wait_until_told(source, "lost: ", 5)
        assert lost.startswith(f"lost: rtsp://127.0.0.1:{port}/live: ")
        with rtsp_server(port):
            wait_until_told(source, "back: ", 15)
            after = frames_until(source, has_sound, 8)
            assert age_s(after[-1]) < LATENCY_S + ON_THE_WAY_S
            assert source.counters["reconnects"] == 1
    times = [frame.pts_s for frame in before + after]
    assert times == sorted(times)


@needs_rtsp()
def test_an_rtsp_server_that_does_not_answer_for_a_while_is_lost_and_comes_back() -> None:
    port = free_port()
    address = f"rtsp://127.0.0.1:{port}/live"
    with rtsp_server(port) as server, open_when_ready(address, silence_s=1.5) as source:
        frames_until(source, has_sound, 8)
        server.send_signal(signal.SIGSTOP)
        try:
            assert "sends nothing" in wait_until_told(source, "lost: ", 8)
        finally:
            server.send_signal(signal.SIGCONT)
        wait_until_told(source, "back: ", 15)
        frames = frames_until(source, has_sound, 8)
        assert age_s(frames[-1]) < LATENCY_S + ON_THE_WAY_S
        assert source.counters["reconnects"] == 1
        assert_closes_while_silent(source, server)


def assert_closes_while_silent(source: LiveIngest, server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGSTOP)
    frames_until(source, lambda frame: frame is None, 5)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1.0


@needs_rtsp()
@pytest.mark.parametrize(
    ("account", "path", "message"),
    [("admin:hunter2", "nothing", "404"), ("admin:wrong1", "live", "401"), ("", "live", "401")],
)
def test_what_an_rtsp_server_refuses_is_one_clear_error(account: str, path: str, message: str) -> None:
    port = free_port()
    with rtsp_server(port, "admin:hunter2"):
        with pytest.raises(IngestError, match=message) as raised:
            open_live(f"rtsp://{account}{'@' if account else ''}127.0.0.1:{port}/{path}", 32, mic="none")
        with open_live(f"rtsp://admin:hunter2@127.0.0.1:{port}/live", 32, mic="none") as source:
            assert is_frame(next(source)) and source.path == f"rtsp://***@127.0.0.1:{port}/live"
    text = str(raised.value)
    assert "\n" not in text and f"127.0.0.1:{port}/{path}" in text
    assert not any(secret in text for secret in ("hunter2", "wrong1", "admin"))


# RTMP, SRT and UDP


@pytest.mark.parametrize("scheme", ["rtmp", "srt"])
def test_a_server_of_another_protocol_is_gone_on_with(scheme: str) -> None:
    port = free_port()
    address = f"rtmp://127.0.0.1:{port}/live/x" if scheme == "rtmp" else f"srt://127.0.0.1:{port}"
    output = ["-f", "flv", "-listen", "1", address]
    if scheme == "srt":
        output = ["-f", "mpegts", "-pes_payload_size", "0", f"{address}?mode=listener"]
    with ffmpeg_server(*output) as server, open_when_ready(address, silence_s=2.0) as source:
        assert (source.width, source.height, source.video_codec) == (128, 64, "h264")
        before = frames_until(source, has_sound, 10)
        assert loudest_hz(before[-1]) == pytest.approx(440, abs=2)
        server.kill()
        server.wait()
        wait_until_told(source, "lost: ", 10)
        with ffmpeg_server(*output) as again:
            wait_until_told(source, "back: ", 25)
            after = frames_until(source, has_sound, 10)
            assert source.counters["reconnects"] == 1
            assert max(latencies(source, 1.0)) < LATENCY_S + ON_THE_WAY_S
            assert_closes_while_silent(source, again)
    times = [frame.pts_s for frame in before + after]
    assert times == sorted(times)


def test_pictures_wait_for_sound_that_comes_in_bursts() -> None:
    """An MPEG-TS of FFmpeg packs six frames of AAC together: 130 ms of sound at once, for three pictures that came before."""
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        ffmpeg_server("-f", "mpegts", "-flush_packets", "1", f"{address}?listen=1"),
        open_when_ready(address, latency_s=0.4) as source,
    ):
        frames_until(source, has_sound, 10)
        before = source.counters
        frames = frames_for(source, 4.0)
        after = source.counters
    came = after["decoded"] - before["decoded"]
    assert came >= 60
    assert len(frames) >= 0.85 * came, f"{len(frames)} of {came} pictures"
    assert sum(has_sound(frame) for frame in frames) >= 0.9 * len(frames)
    times = [frame.pts_s for frame in frames]
    assert times == sorted(times)


class Relay:
    """Passes datagrams on, all but every `lose`th; none at all where that is 1."""

    def __init__(self, inward: socket.socket, outward: int) -> None:
        self.lose = 0
        self.lost = 0
        self.ended = threading.Event()
        self._inward, self._outward = inward, ("127.0.0.1", outward)

    def run(self) -> None:
        count = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not self.ended.is_set():
                try:
                    datagram = self._inward.recv(65_536)
                except TimeoutError:
                    continue
                count += 1
                if self.lose and count % self.lose == 0:
                    self.lost += 1
                else:
                    out.sendto(datagram, self._outward)


@contextmanager
def relayed(outward: int) -> Iterator[tuple[int, Relay]]:
    """A port whose datagrams go on to another, and who passes them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inward:
        inward.bind(("127.0.0.1", 0))
        inward.settimeout(0.1)
        relay = Relay(inward, outward)
        passing = threading.Thread(target=relay.run)
        passing.start()
        try:
            yield inward.getsockname()[1], relay
        finally:
            relay.ended.set()
            passing.join()


def test_lost_datagrams_are_counted_and_survived() -> None:
    port = free_port()
    with relayed(port) as (inward, relay):
        output = ["-f", "mpegts", "-pes_payload_size", "0", f"udp://127.0.0.1:{inward}?pkt_size=1316"]
        with ffmpeg_server(*output), open_live(f"udp://127.0.0.1:{port}", 32, silence_s=1.5) as source:
            frames_until(source, has_sound, 10)
            intact = source.counters["corrupt"]
            relay.lose = 10
            damaged = frames_for(source, 3.0)
            assert relay.lost >= 5 and source.counters["corrupt"] > intact
            assert len(damaged) > 20 and source.take_notices() == []
            relay.lose = 1
            assert "sends nothing" in wait_until_told(source, "lost: ", 8)
            relay.lose = 0
            wait_until_told(source, "back: ", 20)
            frames_until(source, has_sound, 10)
            assert max(latencies(source, 1.0)) < LATENCY_S + ON_THE_WAY_S
            assert source.counters["reconnects"] == 1


# HTTP


@functools.cache
def jpegs(folder: Path) -> list[bytes]:
    path = folder / "pictures.mjpeg"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25", "-frames:v", "50", path)
    return [b"\xff\xd8\xff" + picture for picture in path.read_bytes().split(b"\xff\xd8\xff")[1:]]


class Camera(http.server.BaseHTTPRequestHandler):
    """Motion JPEG at 10 pictures a second, as a browser takes it. The first connection breaks in the middle of picture 15."""

    pictures: ClassVar[list[bytes]] = []
    connections: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self.connections.append(0)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        due = time.monotonic()
        for number, picture in enumerate(self.pictures):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            if number == 15 and len(self.connections) == 1:
                self.wfile.write(head + picture[: len(picture) // 2])
                return
            try:
                self.wfile.write(head + picture + b"\r\n")
            except OSError:
                return
            due += 0.1
            time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, *_: object) -> None:
        pass


def test_motion_jpeg_that_breaks_in_the_middle_of_a_picture(tmp_path: Path) -> None:
    Camera.pictures, Camera.connections = jpegs(tmp_path), []
    with http_server(Camera) as address, open_live(f"{address}/video", 32, mic="none") as source:
        assert max(latencies(source, 1.0)) < 0.4
        wait_until_told(source, "lost: ", 5)
        wait_until_told(source, "back: ", 10)
        late = latencies(source, 2.5)
        # No picture tells its time; at 25 a second, as FFmpeg counts them, they would fall behind by 0.6 s each second.
        assert max(late) < 0.4 and 10 <= len(late) <= 30
        assert source.counters["corrupt"] >= 1 and source.counters["reconnects"] == 1
        assert source.counters["clock_jumps"] == 0 and source.take_notices() == []


class Folder(http.server.SimpleHTTPRequestHandler):
    """A folder, from which segments may be missing."""

    missing = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith(".ts") and self.missing.is_set():
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def even_second(source: LiveIngest) -> list[Frame]:
    """Frames of a second that come one by one, and not a segment at a time; a busy machine may have some that are not so."""
    for _ in range(12):
        frames = frames_for(source, 1.0)
        if len(frames) > 10 and np.max(np.diff([frame.pts_s for frame in frames])) < 0.5:
            return frames
    raise AssertionError("no second of even frames")


@pytest.mark.parametrize("options", [["-hls_segment_options", "pes_payload_size=0"], ["-an"]])
def test_hls_comes_at_its_own_pace_and_outlives_missing_segments(tmp_path: Path, options: list[str]) -> None:
    playlist, mic = tmp_path / "live.m3u8", "none" if "-an" in options else "auto"
    output = [
        "-g",
        "25",
        "-f",
        "hls",
        "-hls_time",
        "1",
        "-hls_list_size",
        "5",
        "-hls_flags",
        "delete_segments",
    ]
    Folder.missing.clear()
    with (
        ffmpeg_server(*output, *options, str(playlist)),
        http_server(functools.partial(Folder, directory=str(tmp_path))) as address,
    ):
        until = time.monotonic() + 20
        while not (playlist.exists() and playlist.read_text().count(".ts") >= 3):
            assert time.monotonic() < until
            time.sleep(0.1)
        with open_live(f"{address}/live.m3u8", 32, mic=mic, silence_s=5.0) as source:
            is_whole = has_sound if mic == "auto" else is_frame
            frames_until(source, is_whole, 8)
            age = age_s(even_second(source)[-1])
            Folder.missing.set()
            frames_until(source, lambda frame: frame is None, 6)
            time.sleep(1.0)
            Folder.missing.clear()
            # What was missed is not waited for; a picture or two were held from before.
            frames_until(source, lambda frame: frame is not None and age_s(frame) < age + 0.5, 10)
            frames_until(source, is_whole, 8)
            assert age_s(even_second(source)[-1]) < age + 0.5
            assert source.take_notices() == [] and source.counters["reconnects"] == 0


def test_a_recording_behind_a_url_is_played_at_its_pace_and_ends(tmp_path: Path) -> None:
    pattern(tmp_path / "recording.ts", 3.0)
    Folder.missing.clear()
    with http_server(functools.partial(Folder, directory=str(tmp_path))) as address:
        (tmp_path / "recording.mpg").write_bytes((tmp_path / "recording.ts").read_bytes())
        began = time.monotonic()
        with open_live(f"{address}/recording.mpg", 32) as source:
            frames = list(itertools.islice(source, 200))
            assert source.take_notices() == [] and source.counters["late"] == 0
        assert 2.5 < time.monotonic() - began < 8.0
    assert len(frames) > 30


# MPEG-TS that changes


@pytest.mark.timeout(60)
def test_the_first_picture_does_not_wait_for_a_second_key_frame(tmp_path: Path) -> None:
    with sent(pattern(tmp_path / "long.ts", 12.0, gop=1000)) as address:
        began = time.monotonic()
        with open_live(address, 32, mic="none") as source:
            assert is_frame(next(source)) and time.monotonic() - began < 5.0
            frames_for(source, 1.0)
            assert max(latencies(source, 1.0)) < LATENCY_S + ON_THE_WAY_S
            assert source.counters["clock_jumps"] == 0


def test_size_and_rate_may_change_in_the_middle(tmp_path: Path) -> None:
    parts = (
        pattern(tmp_path / "a.ts", 2.5),
        pattern(tmp_path / "b.ts", 6.0, size="200x100", rate=32_000, at_s=2.5),
    )
    with sent(*parts) as address, open_live(address, 32) as source:
        frames = frames_until(source, has_sound, 5)
        frames += frames_for(source, 4.5)
        assert {frame.image.shape for frame in frames} == {(120, 160, 3)}
        assert frames[-1].audio_missing_samples == 0 and loudest_hz(frames[-1]) == pytest.approx(440, abs=2)
        assert max(np.diff([frame.pts_s for frame in frames])) < 1.5
        assert source.counters["reconnects"] == source.counters["clock_jumps"] == 0
        assert abs(source.counters["sound_error_s"]) < 0.02


@pytest.mark.parametrize(("before_s", "after_s"), [(0.0, 100.0), (50.0, 0.0)])
def test_timestamps_may_jump(tmp_path: Path, before_s: float, after_s: float) -> None:
    parts = pattern(tmp_path / "a.ts", 2.5, at_s=before_s), pattern(tmp_path / "b.ts", 6.0, at_s=after_s)
    with sent(*parts) as address, open_live(address, 32) as source:
        frames = frames_until(source, has_sound, 5)
        assert max(latencies(source, 5.0)) < LATENCY_S + ON_THE_WAY_S
        frames += frames_until(source, has_sound, 2)
        assert told(source) == ["URL its timestamps have jumped; going on by the clock here"]
        assert source.counters["clock_jumps"] == 1 and source.counters["reconnects"] == 0
    times = [frame.pts_s for frame in frames]
    assert times == sorted(times)


def test_sound_may_begin_late_and_end_early(tmp_path: Path) -> None:
    with (
        sent(pattern(tmp_path / "late.ts", 9.0, sound=(2.5, 5.0))) as address,
        open_live(address, 32) as source,
    ):
        assert source.has_audio and source.take_notices() == []
        first = next(source)
        assert first.log_mel is None
        frames = frames_until(source, has_sound, 8)
        assert loudest_hz(frames[-1]) == pytest.approx(440, abs=2)
        frames = frames_until(source, lambda frame: frame is not None and frame.log_mel is None, 8)
        assert max(latencies(source, 1.0)) < LATENCY_S + ON_THE_WAY_S
        assert source.take_notices() == [] and source.counters["clock_jumps"] == 0


def test_a_camera_whose_pictures_stand_still_is_lost_though_its_sound_goes_on(tmp_path: Path) -> None:
    still = pattern(tmp_path / "still.ts", 9.0, pictures_s=2.0)
    with sent(still) as address, open_live(address, 32, silence_s=1.5) as source:
        frames_until(source, has_sound, 5)
        assert "sends sound and no pictures" in wait_until_told(source, "lost: ", 8)
        wait_until_told(source, "back: ", 8)
        frames_until(source, has_sound, 5)
        assert source.counters["reconnects"] == 1


def test_what_cannot_be_decoded_in_time_is_skipped(tmp_path: Path) -> None:
    """JPEG 2000 takes a fifth of a second a picture, 30 of which come each second."""
    few, many = tmp_path / "few.mkv", tmp_path / "many.mkv"
    noise = "testsrc2=size=848x480:rate=30,noise=alls=40:allf=t"
    ffmpeg("-f", "lavfi", "-i", noise, "-frames:v", "3", "-c:v", "jpeg2000", few)
    ffmpeg("-stream_loop", "79", "-i", few, "-c", "copy", many)
    with sent(part_of(many, 8.0)) as address, open_live(address, 32, mic="none") as source:
        frames_for(source, 3.0)
        assert max(latencies(source, 3.0)) < LATENCY_S + ON_THE_WAY_S + 0.5
        assert source.counters["late"] > 20 and source.counters["clock_jumps"] == 0


def test_a_source_that_is_faster_than_it_says_is_kept_up_with(tmp_path: Path) -> None:
    with sent(pattern(tmp_path / "fast.ts", 16.0), speed=4.0) as address, open_live(address, 32) as source:
        frames_for(source, 0.5)
        late = latencies(source, 1.5)
        assert max(late) < LATENCY_S + ON_THE_WAY_S and len(late) > 30
        assert source.counters["clock_jumps"] == 0 and source.counters["audio_overlap_samples"] > 16_000


def test_a_source_that_is_slower_than_it_says_does_not_fall_behind_for_ever(tmp_path: Path) -> None:
    with sent(pattern(tmp_path / "slow.ts", 12.0), speed=0.25) as address, open_live(address, 32) as source:
        late: list[float] = []
        until = time.monotonic() + 20
        while source.counters["clock_jumps"] < 2 and time.monotonic() < until:
            late += latencies(source, 0.2)
        assert max(late) < 3.5
        assert max(latencies(source, 1.5)) < LATENCY_S + ON_THE_WAY_S
        assert told(source) == [
            "URL its timestamps have jumped; going on by the clock here",
            "URL its timestamps do not keep time; going by when it arrives",
        ]
