"""Cameras, streams and their clocks, on real substitutes: FFmpeg's test sources and its servers on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import (
    DeviceClock,
    IngestError,
    LiveIngest,
    SoundTrack,
    list_devices,
    log_mel,
    open_live,
)

from .clips import ffmpeg
from .live_devices import played_tone, served, sound_server, x_server
from .live_sources import (
    BEEP,
    FLASH,
    WINDOW,
    comes_true,
    frames_until,
    loudest_hz,
    needs,
    skew_s,
    sounds_throughout,
    threads,
)
from .processes import free_port

pytestmark = pytest.mark.media
PICTURE, TONE = "testsrc2=size=320x180:rate=25[out0]", "sine=440:sample_rate=44100[out1]"
CLIP = "lavfi:" + PICTURE + ";" + TONE


# The clock of a source


def test_a_clock_that_drifts_is_followed_for_an_hour() -> None:
    rng = np.random.default_rng(0)
    clock, drift = DeviceClock(), 400e-6
    errors = []
    for second in np.arange(0.0, 3600.0, 0.1):  # our time; the device's runs fast, from 1000 s on
        clock.observe(1000.0 + second * (1 + drift), second + 0.004 + rng.exponential(0.02))
        errors.append(clock.map(1000.0 + second * (1 + drift)) - (second + 0.004))
    assert clock.drift_ppm == pytest.approx(400, abs=20)
    assert np.abs(errors[600:]).max() < 0.005  # a minute after it began


@pytest.mark.parametrize("jump_s", [-100.0, -3.0, 2.0, 1e6])
def test_a_clock_that_jumps_is_read_anew(jump_s: float) -> None:
    clock = DeviceClock()
    for i in range(100):
        assert not clock.observe(i * 0.04, i * 0.04)
    jumps = [clock.observe(4.0 + i * 0.04 + jump_s, 4.0 + i * 0.04) for i in range(200)]
    assert sum(jumps) == 1
    assert clock.map(20.0 + jump_s) == pytest.approx(20.0, abs=1e-6)


def test_a_clock_that_goes_back_is_read_anew_at_once() -> None:
    """No delay explains it, so it need not last; and packets of the past that are still on their way change nothing."""
    clock = DeviceClock()
    for i in range(100):
        clock.observe(60.0 + i * 0.04, i * 0.04)
    stragglers = [clock.observe(10.0, 4.0), clock.observe(64.0, 4.0), clock.observe(10.04, 4.04)]
    jumps = [clock.observe(10.08 + i * 0.04, 4.08 + i * 0.04) for i in range(3)]
    assert not any(stragglers) and sum(jumps) == 1
    assert clock.map(10.2) == pytest.approx(4.2, abs=1e-6)


@pytest.mark.parametrize("wrong_s", [-1e5, -10.0, 10.0, 1e5])
def test_a_single_wrong_timestamp_is_no_jump(wrong_s: float) -> None:
    clock = DeviceClock()
    for i in range(200):
        is_wrong = i % 50 == 20
        assert not clock.observe(i * 0.04 + (wrong_s if is_wrong else 0.0), i * 0.04)
        assert clock.map(i * 0.04) == pytest.approx(i * 0.04, abs=1e-6)


def test_a_burst_after_a_pause_is_no_jump() -> None:
    clock = DeviceClock()
    for i in range(250):
        now = i * 0.04 if i < 100 else max(i * 0.04, 6.0 + (i - 100) * 0.002)  # two seconds of nothing
        assert not clock.observe(i * 0.04, now)
    assert clock.map(9.0) == pytest.approx(9.0, abs=1e-6)


# Sound on one clock


@pytest.mark.parametrize("drift_ppm", [-500.0, 0.0, 500.0])
def test_sound_of_a_drifting_card_stays_in_its_place(drift_ppm: float) -> None:
    """A click at each second of our clock is found there, though the card counts its own samples."""
    rate, piece = 48_000, 960
    true_rate = rate * (1 + drift_ppm * 1e-6)
    track, misplaced = SoundTrack(), []
    clicks = np.round(np.arange(1, 300) * true_rate).astype(int)
    for first in range(0, int(300 * true_rate) - piece, piece):
        samples = np.zeros(piece, np.float32)
        inside = clicks[(clicks >= first) & (clicks < first + piece)]
        samples[inside - first] = 1.0
        track.push(samples, rate, first / true_rate)
        at_s = (first + piece) / true_rate
        if int(at_s - 0.3) > int(at_s - 0.3 - piece / true_rate) and at_s > 2:
            window, _, end_s, missing = track.window(at_s - 0.1)
            assert missing == 0
            second = np.floor(end_s)
            found = end_s - (WINDOW - np.abs(window).argmax()) / 16_000
            misplaced.append(found - second)
    assert len(misplaced) > 250
    assert np.abs(misplaced).max() < 0.010
    assert np.abs(misplaced[120:]).max() < 0.0005  # 500 ppm x t exp(-t / 20 s), and half a sample
    assert track.drift_ppm == pytest.approx(drift_ppm, abs=10)


def test_sound_finds_its_place_once_the_clock_has_been_read() -> None:
    """In the first half second nobody knows that its packets are 40 ms late; later ones only jitter."""
    rng = np.random.default_rng(0)
    track, piece_s = SoundTrack(), 0.02
    for i in range(250):
        samples = np.zeros(960, np.float32)
        samples[0] = i % 50 == 0  # a click at each second
        late_s = 0.04 if i < 25 else 0.0
        track.push(samples, 48_000, i * piece_s + late_s + rng.uniform(-0.015, 0.015))
    assert abs(track.error_s) < 0.01
    window, _, end_s, missing = track.window(4.5)
    assert missing == 0
    assert end_s - (WINDOW - np.abs(window).argmax()) / 16_000 == pytest.approx(4.0, abs=0.02)


def test_sound_finds_its_place_when_the_clock_is_read_better_later() -> None:
    """For five seconds every packet comes 14 ms late; three seconds later the sound has left that behind."""
    rng = np.random.default_rng(1)
    track, piece_s = SoundTrack(), 0.02
    for i in range(400):
        late_s = 0.014 if i < 250 else 0.0
        track.push(np.zeros(960, np.float32), 48_000, i * piece_s + late_s + rng.uniform(-0.005, 0.005))
    assert abs(track.error_s) < 0.006


def test_a_hole_is_missing_and_not_silence() -> None:
    track = SoundTrack()
    tone = np.sin(np.arange(48_000) * 0.1).astype(np.float32)
    track.push(tone, 16_000, 0.0)  # 3 s, then a hole of half a second
    track.push(tone, 16_000, 3.5)
    samples, mel, end_s, missing = track.window(3.909)
    assert end_s == 3.9 and missing == 8_000
    np.testing.assert_array_equal(samples[-6_400 - 7_900 : -6_400 - 100], 0.0)
    np.testing.assert_array_equal(mel, log_mel(samples))
    track.push(tone, 16_000, 4000.0)  # and one of more than an hour, at once
    samples, _, _, missing = track.window(4000.5)
    assert missing == WINDOW - 8_000
    np.testing.assert_allclose(samples[-8_000 + 64 : -64], tone[64 : 8_000 - 64], atol=2e-3)
    assert track.window(5000.0)[3] == WINDOW


def test_sound_that_comes_twice_is_left_out() -> None:
    track = SoundTrack()
    ramp = np.linspace(0, 1, 32_000, dtype=np.float32)
    track.push(ramp, 16_000, 0.0)
    track.push(ramp, 16_000, 1.0)  # a second of it again
    samples, _, _, missing = track.window(2.9)
    assert missing == 0
    assert samples[-1] == pytest.approx(ramp[int(1.9 * 16_000) - 1], abs=2e-3)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "at_s"),
    [
        (np.zeros((2, 9), np.float32), 16_000, 0.0),
        (np.zeros(9, np.float32), 1, 0.0),
        (np.zeros(9, np.float32), 16_000, np.nan),
    ],
)
def test_bad_sound_is_refused(samples: NDArray[np.float32], rate_hz: int, at_s: float) -> None:
    with pytest.raises(ValueError, match="samples|rate_hz|at_s"):
        SoundTrack().push(samples, rate_hz, at_s)


# Generated sources and files, paced


def test_a_live_source_is_paced_and_has_its_sound() -> None:
    began = time.monotonic()
    with open_live(CLIP, 64, duration_s=1.5) as source:
        assert (source.width, source.height, source.frame_rate, source.has_audio) == (320, 180, 25.0, True)
        frames = list(source)
        assert source.origin_s == pytest.approx(began, abs=1.0)
        assert source.counters["dropped"] <= 2
    assert 1.4 < time.monotonic() - began < 4.0
    assert 30 <= len(frames) <= 40
    times = np.array([frame.pts_s for frame in frames])
    assert (np.diff(times) > 0).all() and np.median(np.diff(times)) == pytest.approx(0.04, abs=0.005)
    last = frames[-1]
    assert last.image.shape == (180, 320, 3) and last.tensor.shape == (3, 64, 64)
    assert last.audio_missing_samples == 0 and last.audio_end_s is not None
    assert 0 <= last.pts_s - last.audio_end_s < 0.01
    assert loudest_hz(last) == pytest.approx(440, abs=1.5)


def test_flash_and_beep_of_a_paced_file_coincide(tmp_path: Path) -> None:
    path = tmp_path / "flash.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        FLASH,
        "-f",
        "lavfi",
        "-i",
        BEEP,
        "-t",
        "5",
        "-c:v",
        "ffv1",
        "-c:a",
        "pcm_s16le",
        path,
    )
    with open_live(str(path), 32) as source:
        frames = list(source)
        assert source.counters["audio_overlap_samples"] == 0
    assert abs(skew_s(frames)) < 0.02


def test_the_newest_picture_wins() -> None:
    with open_live(CLIP, 32) as source:
        next(source)
        time.sleep(0.6)
        frame = next(source)
        assert source.now_s - frame.pts_s < 0.15
        assert source.counters["dropped"] >= 10


def test_a_microphone_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=1000:sample_rate=22050", "-t", "10", path)
    with open_live("lavfi:" + PICTURE.replace("[out0]", ""), 32, mic=str(path), duration_s=1.3) as source:
        frames = list(source)
    assert frames[-1].audio_missing_samples == 0
    assert loudest_hz(frames[-1]) == pytest.approx(1000, abs=1.5)


def test_no_sound_is_said_once_and_is_no_silence() -> None:
    with open_live("lavfi:testsrc2=size=64x64:rate=25", 32, max_frames=5, mic="none") as source:
        assert [frame.log_mel for frame in source] == [None] * 5
        assert not source.has_audio and source.take_notices() == []


def test_looking_for_a_microphone_prints_nothing() -> None:
    """ALSA's library would, a screen full of it where there is no sound card."""
    program = "from refavs_rt.ingest import open_live; next(open_live('lavfi:testsrc2=size=64x64', 32))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stdout + ran.stderr == ""


def test_a_camera_that_ends_ends_the_stream() -> None:
    with open_live("lavfi:testsrc2=size=64x64:rate=25:duration=0.4", 32, mic="none") as source:
        assert 5 <= len(list(source)) <= 10
        with pytest.raises(StopIteration):
            source.read(timeout_s=1.0)


# Servers that fail


def opened(port: int, **options: object) -> LiveIngest:
    """The server's stream, as soon as it listens."""
    until = time.monotonic() + 10
    while True:
        try:
            return open_live(f"tcp://127.0.0.1:{port}", 32, **options)
        except IngestError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_a_server_that_is_killed_and_started_again_is_gone_on_with() -> None:
    port = free_port()
    with served(port) as server, opened(port) as source:
        before = frames_until(source, lambda frame: frame is not None and frame.audio_missing_samples == 0, 8)
        server.kill()
        frames_until(source, lambda frame: frame is None, 5)
        with served(port, size="200x100", rate=32_000):  # another size and rate: the first size stays
            after = frames_until(source, lambda frame: frame is not None, 15)
            after += frames_until(
                source, lambda frame: frame is not None and frame.audio_missing_samples == 0, 8
            )
            notices = [text for _, text in source.take_notices()]
        assert after[-1].image.shape == before[0].image.shape == (120, 160, 3)
        times = [frame.pts_s for frame in before + after]
        assert times == sorted(times)
        assert source.counters["reconnects"] >= 1
    assert [text.split(":")[0] for text in notices] == ["lost", "back"], notices


def test_a_server_that_falls_silent_is_lost() -> None:
    port = free_port()
    with served(port) as server, opened(port, silence_s=0.7) as source:
        frames_until(source, lambda frame: frame is not None, 5)
        server.send_signal(signal.SIGSTOP)
        try:
            frames_until(
                source, lambda _: any("sends nothing" in text for _, text in source.take_notices()), 5
            )
        finally:
            server.send_signal(signal.SIGCONT)


def test_garbage_in_the_middle_is_counted_and_survived(tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25", "-t", "3", "-c:v", "mpeg2video", "-g", "5", path
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    with open_live(str(path), 32, mic="none") as source:
        frames = list(source)
        assert source.counters["corrupt"] > 0
    assert len(frames) > 40


@pytest.mark.parametrize("state", ["open", "lost"])
def test_closing_is_fast_and_leaves_nothing(state: str) -> None:
    port, before = free_port(), threads()
    with served(port) as server:
        source = opened(port)
        next(source)
        if state == "lost":
            server.kill()
            frames_until(source, lambda _: any("lost" in text for _, text in source.take_notices()), 5)
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 1.0
        source.close()
        with pytest.raises(StopIteration):
            next(source)
    assert comes_true(lambda: threads() <= before, 10), "a thread stays"


def test_ctrl_c_ends_a_connection_that_says_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--camera"]
        command += [f"tcp://127.0.0.1:{deaf.getsockname()[1]}", "--text", "dog"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deaf.settimeout(60)
        connection, _ = deaf.accept()
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
        connection.close()
    assert child.returncode == 130 and time.monotonic() - began < 2.0
    assert "Traceback" not in said


def test_a_stream_that_is_lost_is_told_and_summed_up(tmp_path: Path) -> None:
    """The command goes on by itself when its server is killed and started again."""
    port, records = free_port(), tmp_path / "live.jsonl"
    with served(port) as server:
        command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--camera", f"tcp://127.0.0.1:{port}"]
        command += ["--text", "the dog", "--duration", "9", "--jsonl", str(records)]
        time.sleep(1.0)  # it listens
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 30
        while not (records.exists() and records.stat().st_size) and time.monotonic() < until:
            time.sleep(0.1)
        server.kill()
    time.sleep(1.0)
    with served(port):
        out, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert "lost: " in said and "back: " in said and said.count("lost: ") == 1
    assert "1 reconnects" in out and "latency from capture to result" in out
    times = [json.loads(line)["pts_s"] for line in records.read_text().splitlines()]
    assert times == sorted(times) and max(np.diff(times)) > 1.0


def test_a_waiting_reader_is_let_go_by_close() -> None:
    source = open_live("lavfi:testsrc2=size=64x64:rate=1", 32, mic="none")
    next(source)
    ended = threading.Event()

    def read() -> None:
        for _ in source:
            pass
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    source.close()
    assert ended.wait(1.0)
    reader.join()


# Addresses


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "empty"),
        ("gopher://x/y", "gopher:// is not known here"),
        ("rtsp:///live", "names no host"),
        ("screen::0?sise=1x1", "'sise' is no option"),
        ("/dev/video77", "/dev/video77: cannot be opened"),
        ("lavfi:nosuchfilter", "FFmpeg does not take it"),
        ("no such file.mp4", "no such file"),
        ("tcp://127.0.0.1:1", "cannot be opened"),
    ],
)
def test_an_address_that_is_none_is_one_clear_error(address: str, message: str) -> None:
    with pytest.raises(IngestError, match=message) as raised:
        open_live(address, 32, mic="none")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:hunter2@127.0.0.1:1/live",
        "rtsp://admin:hun/ter2@127.0.0.1:1/live",
        "http://127.0.0.1:1/live?token=hunter2&x=1",
        "http://127.0.0.1:1/live?x=1&PassWord=hunter2",
        "srt://127.0.0.1:1?passphrase=hunter2hunter2",
    ],
)
def test_secrets_are_not_told(address: str) -> None:
    with pytest.raises(IngestError) as raised:
        open_live(address, 32, mic="none", silence_s=0.5)
    text = str(raised.value)
    assert "hunter2" not in text and "hun/ter2" not in text and "admin" not in text and "127.0.0.1" in text


def test_a_playlist_of_the_network_reaches_no_file(tmp_path: Path) -> None:
    """An HLS playlist served over HTTP names a file of this machine, and another host's loopback address."""
    import functools
    import http.server

    clip = tmp_path / "secret.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-t", "2", "-c:v", "mpeg2video", clip)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.headers['Host']}{self.path}")
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
    try:
        for name, part in (
            ("file", f"file://{clip}"),
            ("bare", str(clip)),
            ("other", f"http://127.0.0.2:{port}/secret.ts"),
        ):
            (tmp_path / f"{name}.m3u8").write_text(head + part + "\n#EXT-X-ENDLIST\n")
            with pytest.raises(IngestError):
                open_live(f"http://127.0.0.1:{port}/{name}.m3u8", 32, mic="none", silence_s=1.0)
        assert not any("127.0.0.2" in request for request in asked), asked
        (tmp_path / "good.m3u8").write_text(head + "secret.ts\n#EXT-X-ENDLIST\n")
        with open_live(f"http://127.0.0.1:{port}/good.m3u8", 32, mic="none") as source:
            assert next(source).image.shape == (64, 64, 3)
    finally:
        server.shutdown()
        server.server_close()


def test_a_hardware_decoder_that_is_not_there_is_not_left_out_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-t", "1", "-c:v", "libx264", path)
    with pytest.raises(IngestError, match="hwaccel 'nonsense' is not known"):
        open_live(str(path), 32, mic="none", hwaccel="nonsense")


@pytest.mark.parametrize(
    "options",
    [
        {"latency_s": 11.0},
        {"silence_s": 0.1},
        {"max_frames": 0},
        {"duration_s": 0.0},
        {"decode_threads": -1},
        {"audio_offset_s": float("-inf")},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        open_live(CLIP, 32, **options)


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300, -1.0, float("nan")])
def test_no_timeout_is_too_long(timeout_s: float) -> None:
    with open_live("lavfi:testsrc2=size=64x64:rate=25:duration=0.5", 32, mic="none") as source:
        if timeout_s != timeout_s:
            with pytest.raises(ValueError, match="timeout_s"):
                source.read(timeout_s)
        elif timeout_s < 0:
            next(source)
            assert source.read(timeout_s) is None
        else:
            with pytest.raises(StopIteration):
                while True:
                    assert source.read(timeout_s) is not None, "it waits for the next frame or the end"


def test_a_machine_without_sound_is_told_in_one_line() -> None:
    """ALSA's library would print its own."""
    command = [
        sys.executable,
        "-m",
        "refavs_rt.cli",
        "stream",
        "--camera",
        "lavfi:testsrc2=size=64x64:rate=25",
    ]
    command += ["--text", "dog", "--max-frames", "2", "--jsonl", os.devnull]
    nowhere = {**os.environ, "PULSE_SERVER": "unix:/nowhere"}
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, env=nowhere).stderr
    assert "ALSA lib" not in said and said.count("no sound") <= 1


def test_devices_are_listed_as_the_flags_take_them() -> None:
    for medium, address, name in list_devices():
        assert medium in ("camera", "microphone", "screen") and address and isinstance(name, str)


# Devices in user space


@needs("Xvfb")
def test_a_screen_is_a_camera() -> None:
    with x_server("320x200") as display:
        address = f"screen:{display}.0+10,20?size=160x120&rate=20&cursor=0"
        with open_live(address, 32, mic="none", max_frames=10) as source:
            frames = list(source)
    assert frames[0].image.shape == (120, 160, 3) and frames[0].image.min() == 255  # -wr: white
    assert np.median(np.diff([frame.pts_s for frame in frames])) == pytest.approx(0.05, abs=0.01)


@needs("pulseaudio")
def test_a_pulseaudio_monitor_is_a_microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sound_server(tmp_path) as address:
        monkeypatch.setenv("PULSE_SERVER", address)
        with played_tone(1000):
            picture = "lavfi:testsrc2=size=64x64:rate=25"
            with open_live(picture, 32, mic="pulse:nowhere.monitor") as source:
                frames = frames_until(
                    source,
                    lambda frame: (
                        frame is not None and frame.audio_missing_samples == 0 and sounds_throughout(frame)
                    ),
                    10,
                )
                counters = source.counters
            with open_live(picture, 32, max_frames=3) as source:  # the default one
                assert source.has_audio and len(list(source)) == 3
    assert loudest_hz(frames[-1]) == pytest.approx(1000, abs=2)
    assert abs(counters["sound_error_s"]) < 0.02


@needs("pulseaudio")
def test_a_sound_server_that_is_killed_leaves_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as servers:
        monkeypatch.setenv("PULSE_SERVER", servers.enter_context(sound_server(tmp_path)))
        source = servers.enter_context(
            open_live("lavfi:testsrc2=size=64x64:rate=25", 32, mic="pulse:nowhere.monitor", silence_s=1.0)
        )
        frames_until(source, lambda frame: frame is not None and frame.log_mel is not None, 5)
        servers_socket = tmp_path / "pulse.socket"
        subprocess.run(["pkill", "-9", "-f", f"socket={servers_socket}"], check=True)
        frames_until(source, lambda frame: frame is not None and frame.log_mel is None, 6)
        assert any("lost: pulse:nowhere.monitor" in text for _, text in source.take_notices())
        servers_socket.unlink(missing_ok=True)
        servers.enter_context(sound_server(tmp_path))
        frames_until(source, lambda frame: frame is not None and frame.log_mel is not None, 15)
        assert source.counters["reconnects"] >= 1
