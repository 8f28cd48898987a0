"""`refavs-rt doctor`: what its checks find, and that none of them can hang it or take it along."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from refavs_rt.bundle import Bundle, BundleError, embedded_bundle
from refavs_rt.cli import main
from refavs_rt.doctor import checks, machine, media, software
from refavs_rt.doctor.check import BROKEN, MISSING, OK, Check, Finding
from refavs_rt.doctor.examine import examine
from refavs_rt.ingest import ffmpeg_version

from .live_devices import x_server
from .live_sources import needs

ROOT = Path(__file__).resolve().parents[1]
PATIENTS = """\
import ctypes, os, pathlib, sys, time
from refavs_rt.doctor.check import Finding, OK, MISSING

def fine():
    return Finding(OK, "well")
def chatty():
    print("to stdout"); os.write(1, b"and from C"); print("to stderr", file=sys.stderr)
    return Finding(OK, "well")
def absent():
    return Finding(MISSING, "not here", "a mend of its own")
def raises():
    raise RuntimeError("first line\\nsecond line")
def lacks():
    import no_such_module
def crashes():
    ctypes.string_at(0)
def leaves():
    print("the reason", file=sys.stderr)
    os._exit(3)
def hangs():
    path = pathlib.Path(__file__).with_suffix(".pid.part")
    path.write_text(str(os.getpid()))
    path.rename(path.with_suffix(""))
    while True:
        time.sleep(3600)
"""


@pytest.fixture
def patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of checks that misbehave."""
    (tmp_path / "patients_of_tests.py").write_text(PATIENTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("patients_of_tests")
    del sys.modules["patients_of_tests"]


def check(look: Callable[[], Finding], limit_s: float = 60.0) -> Check:
    return Check(look.__name__, "tests", look, "mend it", limit_s)


# One at a time


def test_each_finding_comes_in_order_whatever_the_others_do(patients: ModuleType) -> None:
    looks = ("raises", "hangs", "fine", "crashes", "chatty", "leaves", "absent", "lacks", "fine")
    asked = [check(getattr(patients, name), 4.0 if name == "hangs" else 60.0) for name in looks]
    found = {check.name: finding for check, finding in examine(asked)}
    assert list(found) == list(dict.fromkeys(looks))
    assert found["fine"] == found["chatty"] == Finding(OK, "well")
    assert found["absent"] == Finding(MISSING, "not here", "a mend of its own")
    assert found["raises"] == Finding(BROKEN, "first line", "mend it")
    assert found["lacks"] == Finding(MISSING, "No module named 'no_such_module'", "mend it")
    assert found["hangs"] == Finding(BROKEN, "no answer within 4 s", "mend it")
    assert found["crashes"].status == BROKEN and "SIGSEGV" in found["crashes"].found
    assert found["leaves"] == Finding(BROKEN, "it crashes with exit code 3: the reason", "mend it")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_leaves_no_check_behind(patients: ModuleType, tmp_path: Path) -> None:
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import patients_of_tests
from refavs_rt import cli
from refavs_rt.doctor import checks
from refavs_rt.doctor.check import Check
checks.CHECKS = [Check(checks.JOB, "tests", patients_of_tests.hangs, "mend it", 600.0)]
sys.exit(cli.main(["doctor"]))
"""
    doctor = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    told, until = tmp_path / "patients_of_tests.pid", time.monotonic() + 60
    while not told.exists():
        assert doctor.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    doctor.terminate()
    _, said = doctor.communicate(timeout=60)
    assert doctor.returncode == 143 and said == "interrupted\n"
    assert not is_running(int(told.read_text()))


# The command


def use(monkeypatch: pytest.MonkeyPatch, *asked: Check) -> None:
    monkeypatch.setattr(checks, "CHECKS", asked)


def test_the_main_job_alone_decides(
    patients: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(look: Callable[[], Finding]) -> Check:
        return Check(checks.JOB, "the job", look, "mend it")

    use(monkeypatch, check(patients.raises), job(patients.fine))
    assert main(["doctor"]) == 0
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first == "broken   raises    first line; for tests -> mend it"
    assert second == "ok       main job  well; for the job"
    assert last.endswith(" works here.")

    use(monkeypatch, check(patients.fine), job(patients.absent))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "missing  main job  not here; for the job -> a mend of its own" in said
    assert said.endswith(" does not work here.\n")
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is False
    assert told["checks"][1] == {
        "name": "main job",
        "status": "missing",
        "found": "not here",
        "mend": "a mend of its own",
        "purpose": "the job",
    }


def test_this_machine_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All checks but those that import for seconds."""
    slow = {"torch", "triton", "transformers", "TensorRT"}
    monkeypatch.delenv("DISPLAY", raising=False)
    every = [check.name for check in checks.CHECKS]
    use(monkeypatch, *(check for check in checks.CHECKS if check.name not in slow))
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {row["name"]: row for row in told["checks"]}
    assert told["works"] is True and list(found) == [name for name in every if name not in slow]
    assert found["Python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert f"numpy {importlib.metadata.version('numpy')}" in found["packages"]["found"]
    assert found["extension"]["found"].endswith(ffmpeg_version())
    assert "CPU" in found["onnxruntime"]["found"]
    assert Bundle.open(embedded_bundle()).digest[:12] in found["bundle"]["found"]
    assert found["main job"]["found"].startswith("a mask in frame ")
    assert "websockets " in found["page"]["found"]
    assert found["screen"]["status"] == MISSING and "DISPLAY" in found["screen"]["found"]
    for row in found.values():
        assert row["purpose"] and bool(row["mend"]) == (row["status"] != OK), row


def test_every_check_has_what_it_tells() -> None:
    names = [check.name for check in checks.CHECKS]
    assert len(set(names)) == len(names) and checks.JOB in names
    for one in checks.CHECKS:
        assert one.purpose and one.mend and 0 < one.limit_s <= 120
        module = sys.modules[one.look.__module__]
        assert getattr(module, one.look.__qualname__) is one.look  # it is found by name in another process


def test_it_comes_where_numpy_itself_is_broken(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('numpy is of another Python')")
    paths = os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "refavs_rt.cli", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr
    found = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    assert found["packages"]["status"] == MISSING
    assert found["packages"]["found"] == "numpy is of another Python"
    assert found["main job"]["status"] != OK and found["Python"]["status"] == OK
    assert found["disk"]["status"] == OK


# What the checks see, beside what other programs say


@needs("ffmpeg")
def test_protocols_are_those_of_ffmpeg() -> None:
    listed = subprocess.run(
        ["ffmpeg", "-v", "quiet", "-protocols"], capture_output=True, text=True, check=True
    )
    inputs = set(listed.stdout.partition("Input:")[2].partition("Output:")[0].split())
    library = media._loaded_libavformat()
    assert library is not None and media._input_protocols(library) == inputs
    found = media.protocols()
    assert (found.status == OK) == ({"srt", "rtmp", "https"} <= inputs)


@needs("gst-launch-1.0")
def test_gstreamer_has_the_version_it_says() -> None:
    said = subprocess.run(["gst-launch-1.0", "--version"], capture_output=True, text=True, check=True).stdout
    assert media.gstreamer() == Finding(
        OK, next(line for line in said.splitlines() if line.startswith("GStreamer"))
    )


def test_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_GSTREAMER", ("libno-such-thing.so.0",))
    found = media.gstreamer()
    assert found.status == MISSING and "libno-such-thing" in found.found


def test_an_encoder_that_browsers_cannot_read_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:
        encoder, notes = "mpeg4", ("no H.264",)

        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> Writer:
            return self

        def __exit__(self, *_: object) -> None: ...
        def write(self, *_: Any) -> None: ...

    assert media.encoder().status == OK
    monkeypatch.setattr("refavs_rt.sink.OverlayWriter", Writer)
    assert media.encoder() == Finding(MISSING, "no H.264; mpeg4 in its place")


@needs("Xvfb")
def test_a_screen_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with x_server("320x200") as display:
        monkeypatch.setenv("DISPLAY", display)
        assert media.screen() == Finding(OK, f"{display}, 320 x 200")
    assert media.screen().status == BROKEN


def test_devices_that_are_listed_closed_or_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = [("camera", "0", "Webcam"), ("microphone", "alsa:null", "Nothing")]
    listed += [("microphone", "alsa:hw:CARD=Webcam,DEV=0", "Card"), ("microphone", "pulse:x.monitor", "Sink")]
    monkeypatch.setattr("refavs_rt.ingest.list_devices", lambda: listed)
    assert media._devices("camera", "", [], "video") == Finding(OK, "0")
    assert media.microphones() == Finding(OK, "alsa:hw:CARD=Webcam,DEV=0, pulse:x.monitor")
    monkeypatch.setattr("refavs_rt.ingest.list_devices", lambda: listed[1:2])
    assert media.microphones().status == MISSING
    assert media._devices("camera", "", [], "video") == Finding(MISSING, "none")
    node = tmp_path / "video0"
    node.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = media._devices("camera", "", [node], "video")
    assert found.status == BROKEN and str(node) in found.found and "usermod -aG video" in found.mend


def test_a_model_that_finds_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(masks=np.zeros((2, 4, 4), bool), index=0)
    model = SimpleNamespace(
        stream=lambda clip, texts, max_frames: iter([empty] * max_frames),
        engine=SimpleNamespace(device="CPU"),
    )
    monkeypatch.setattr("refavs_rt.session.load", lambda name: model)
    assert software.job() == Finding(BROKEN, "no mask in 50 frames of clip.mp4")


def test_a_damaged_bundle_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "edge"
    shutil.copytree(embedded_bundle(), copy)
    data = bytearray((copy / "audio.onnx").read_bytes())
    data[1000] ^= 1
    (copy / "audio.onnx").write_bytes(data)
    monkeypatch.setattr("refavs_rt.bundle.embedded_bundle", lambda: copy)
    with pytest.raises(BundleError, match=r"audio\.onnx: damaged"):
        software.bundle()


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ("fpu sse2 avx2 avx512_vnni", OK, "AVX2, AVX-512 VNNI"),
        ("fpu avx2", MISSING, "AVX2"),
        ("fpu sse2", MISSING, "plain"),
        ("fp asimd asimddp", OK, "NEON, dot products"),
    ],
)
def test_what_the_processor_can(monkeypatch: pytest.MonkeyPatch, flags: str, status: str, words: str) -> None:
    monkeypatch.setattr(machine, "_cpu_flags", lambda: set(flags.split()))
    found = machine.cpu()
    assert (found.status, found.found) == (status, f"{len(os.sched_getaffinity(0))} cores, {words}")


@pytest.mark.skipif(shutil.which("lscpu") is None, reason="lscpu is not installed")
def test_flags_are_those_of_lscpu() -> None:
    said = subprocess.run(
        ["lscpu"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    listed = re.search(r"^Flags:\s*(.*)$", said, re.MULTILINE)
    assert listed is not None and machine._cpu_flags() == set(listed[1].split())


def test_a_full_disk_and_small_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine._room(Path("/nowhere"), 1.0).status == MISSING
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=64e6))
    assert machine.disk().status == MISSING
    assert machine.shared_memory() == Finding(MISSING, "0.1 GB free in /dev/shm")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3e9))
    assert machine.disk().status == machine.shared_memory().status == OK


def test_a_gpu_is_named_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from refavs_rt.engines.base import EngineError

    monkeypatch.setattr(
        "refavs_rt.engines.cuda.Cuda", lambda: SimpleNamespace(name="NVIDIA Card", capability=87)
    )
    assert machine.gpu() == Finding(OK, "NVIDIA Card (sm87)")

    def none() -> None:
        raise EngineError("no NVIDIA GPU that CUDA can use (a reason); install them")

    monkeypatch.setattr("refavs_rt.engines.cuda.Cuda", none)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert machine.gpu() == Finding(MISSING, "no NVIDIA GPU that CUDA can use (a reason)")
    monkeypatch.setattr(Path, "exists", lambda path: True)  # the driver's devices are there
    assert machine.gpu().status == BROKEN
