"""Names of hosts that no name server has an answer for: waiting for one can be ended, and is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .processes import free_port

pytestmark = pytest.mark.media

RESOLVER = r"""
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

typedef int resolve(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  int is_numeric = hints && hints->ai_flags & AI_NUMERICHOST;
  if (!is_numeric && host && strstr(host, "hangs.invalid")) {
    if (write(2, "asked\n", 6) < 0) return EAI_SYSTEM;
    sleep(60);
  }
  if (!is_numeric && host && strstr(host, ".invalid")) return EAI_AGAIN;
  return ((resolve *)dlsym(RTLD_NEXT, "getaddrinfo"))(host, port, hints, found);
}
"""
"""A resolver whose name servers are not there: it says so at once, or after a minute."""


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which programs have it."""
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "resolver.c").write_text("#define _GNU_SOURCE\n" + RESOLVER)
    command = ["cc", "-shared", "-fPIC", "-o", folder / "resolver.so", folder / "resolver.c", "-ldl"]
    subprocess.run(command, check=True)
    # A proxy looks names up itself.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return environment | {"LD_PRELOAD": str(folder / "resolver.so")}


@pytest.mark.parametrize("scheme", ["rtsp", "tcp", "srt", "http"])
def test_ctrl_c_does_not_wait_for_a_name_server(resolver: dict[str, str], scheme: str) -> None:
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--text", "dog"]
    command += ["--camera", f"{scheme}://hangs.invalid:{free_port()}/x"]
    child = subprocess.Popen(command, env=resolver, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stderr is not None
    while child.stderr.readline() not in (b"asked\n", b""):
        pass
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=50)[1]
    assert child.returncode == 130 and time.monotonic() - began < 2.0
    assert b"Traceback" not in said


def test_that_none_answers_is_one_clear_error(resolver: dict[str, str]) -> None:
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--text", "dog"]
    command += ["--camera", "rtsp://user:hush@no.invalid/x"]
    child = subprocess.run(command, env=resolver, capture_output=True, text=True, timeout=50)
    assert child.returncode == 1
    assert child.stderr == (
        "error: rtsp://***@no.invalid/x: no name server knows its host now; check the name and the network\n"
    )


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "srt", "tcp"])
def test_closing_a_push_does_not_wait_for_a_name_server(resolver: dict[str, str], scheme: str) -> None:
    code = f"""
import time
from refavs_rt._ingest import Push
push = Push("{scheme}://hangs.invalid:1935/live/key", 64, 48, frame_rate=25.0)
time.sleep(1.0)
began = time.monotonic()
push.close()
assert time.monotonic() - began < 1.0, time.monotonic() - began
push = Push("{scheme}://no.invalid:1935/live/key", 64, 48, frame_rate=25.0)
notices = []
while not notices:
    notices = push.take_notices()
assert "no name server knows its host now" in notices[0][1], notices
push.close()
"""
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, env=resolver, capture_output=True, text=True, timeout=50)
    assert child.returncode == 0, child.stderr
    assert child.stderr == "asked\n"


def test_a_name_that_is_known_is_found(resolver: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--text", "dog"]
    command += ["--camera", f"tcp://localhost:{free_port()}", "--jsonl", str(tmp_path / "x.jsonl")]
    child = subprocess.run(command, env=resolver, capture_output=True, text=True, timeout=50)
    assert child.returncode == 1 and "Connection refused" in child.stderr
