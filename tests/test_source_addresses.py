"""What `--source` takes beside files: streams and FFmpeg's test sources, every frame of them, as fast as they are used."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from refavs_rt import cli
from refavs_rt.ingest import IngestError, open_source

from .clips import ffmpeg, sweep, test_pattern

pytestmark = pytest.mark.media


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.ts"
    ffmpeg(*test_pattern("160x120", "25", 4), *sweep(44_100, 4), "-c:v", "mpeg2video", "-c:a", "mp2", path)
    return path


@contextmanager
def sender(data: bytes, reset: bool) -> Iterator[str]:
    """A server that sends this to whoever comes first, then closes, or breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(data)
            if reset:
                time.sleep(0.5)  # a reset throws away what the other side has not read yet
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


def test_generated_pictures_are_not_paced() -> None:
    address = "lavfi:testsrc2=size=64x48:rate=25:duration=20[out0];sine=440:duration=20[out1]"
    began = time.monotonic()
    with open_source(address, 32) as source:
        assert not source.is_file and source.has_audio
        frames = list(source)
    assert [frame.pts_s for frame in frames] == [i / 25 for i in range(500)]
    assert all(frame.audio_missing_samples == 0 for frame in frames[25:])
    assert time.monotonic() - began < 15  # of 20 s


def test_a_file_behind_http_is_the_file(clip: Path) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(clip.parent))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://me:secret@127.0.0.1:{server.server_port}/clip.ts", 32) as source:
            assert source.path == f"http://***@127.0.0.1:{server.server_port}/clip.ts"
            found = list(source)
        server.shutdown()
    with open_source(clip, 32) as source:
        wanted = list(source)
    assert len(found) == len(wanted) == 100
    for a, b in zip(found, wanted, strict=True):
        assert a.pts_s == b.pts_s
        np.testing.assert_array_equal(a.tensor, b.tensor)
        np.testing.assert_array_equal(a.log_mel, b.log_mel)


def test_a_stream_that_ends_has_ended(clip: Path) -> None:
    with sender(clip.read_bytes(), reset=False) as address, open_source(address, 32) as source:
        assert len(list(source)) == 100


def test_a_stream_that_breaks_off_gives_what_it_has_sent(clip: Path) -> None:
    data = clip.read_bytes()
    frames = []
    with sender(data[: len(data) // 2], reset=True) as address, open_source(address, 32) as source:
        with pytest.raises(
            IngestError, match=r"^tcp://127.0.0.1:\d+: broke off \(Connection reset by peer\)"
        ):
            for frame in source:
                frames.append(frame)
    assert 30 < len(frames) < 60


@pytest.mark.parametrize("address", ["0", "/dev/video7", "screen::99"])
def test_what_is_live_is_not_read_at_leisure(address: str) -> None:
    with pytest.raises(IngestError, match=r"is live: name it with --camera, or open it with open_live"):
        open_source(address)


def test_a_path_is_a_file_whatever_it_is_called(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.link(clip, "0")
    with open_source(Path("0"), 32, max_frames=1) as source:
        assert source.is_file and len(list(source)) == 1


def test_ctrl_c_ends_an_attempt_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        code = (
            f"from refavs_rt.ingest import open_source; print('open', flush=True); open_source({address!r})"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "open\n"
        silent.settimeout(10)
        connection, _ = silent.accept()
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = child.communicate(timeout=20)
        connection.close()
    assert time.monotonic() - began < 2 and "KeyboardInterrupt" in errors


def test_the_command_line_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, overlay = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    arguments = ["stream", "--source", "lavfi:testsrc2=size=64x48:rate=5:duration=1", "--text", "the dog"]
    assert cli.main([*arguments, "--jsonl", str(records), "--out", str(overlay)]) == 0
    assert len(records.read_text().splitlines()) == 5 and overlay.stat().st_size > 0
    assert cli.main(["stream", "--source", "0", "--text", "the dog"]) == 1
    assert "name it with --camera" in capsys.readouterr().err
