"""Live sources that need no device: servers on loopback, a screen and a sound card in user space."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import running


@contextmanager
def served(port: int, size: str = "160x120", rate: int = 44_100) -> Iterator[subprocess.Popen[str]]:
    """FFmpeg as a live server of one viewer."""
    command = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25", "-re"]
    command += ["-f", "lavfi", "-i", f"sine=440:sample_rate={rate}"]
    command += ["-c:v", "mpeg2video", "-g", "5", "-c:a", "mp2"]
    command += ["-f", "mpegts", "-flush_packets", "1", f"tcp://127.0.0.1:{port}?listen=1"]
    with running(command) as server:
        yield server


@contextmanager
def x_server(size: str) -> Iterator[str]:
    """An X server without a screen, in one colour; gives its display."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{size}x24"]
    command += ["-nolisten", "tcp", "-ac", "-wr"]
    with running(command, pass_fds=[write]):
        os.close(write)
        with os.fdopen(read) as numbers:
            yield f":{numbers.readline().strip()}"


@contextmanager
def sound_server(folder: Path) -> Iterator[str]:
    """A PulseAudio server with a sink that sounds nowhere; gives its address."""
    socket_path = folder / "pulse.socket"
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
    command += ["--use-pid-file=no", "--disable-shm=yes"]
    command += ["-L", "module-null-sink sink_name=nowhere rate=48000"]
    command += ["-L", f"module-native-protocol-unix auth-anonymous=1 socket={socket_path}"]
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    with running(command, env=environment) as server:
        until = time.monotonic() + 10
        while not socket_path.exists():
            assert time.monotonic() < until and server.poll() is None, "pulseaudio does not start"
            time.sleep(0.05)
        yield f"unix:{socket_path}"


@contextmanager
def played_tone(hertz: float) -> Iterator[None]:
    """A tone, played into the sink of the sound server that PULSE_SERVER names."""
    command = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", f"sine={hertz}:sample_rate=48000"]
    command += ["-f", "pulse", "-device", "nowhere", "tone"]
    with running(command):
        yield
