"""Make and complete the environment of this checkout: `.venv`, and the system packages that it needs.

    python3 bootstrap.py core    numpy, onnxruntime, tokenizers, the web server and the compiled extension: for `make demo`
    python3 bootstrap.py dev     besides, every extra, and the media that scenes are composed of
    python3 bootstrap.py fuzz    besides, the compiler that `make fuzz` needs

Nothing is done twice: a finished step leaves a stamp in .venv/stamps with the hash of what it was made from. Needs the
standard library only, and Python 3.8 or newer to start; it looks for the Python that .venv is made with by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

LIBRARIES = ("libavformat", "libavcodec", "libavdevice", "libavutil", "libswscale", "libswresample")
"""What the extension links against, by pkg-config name; Debian's packages are called NAME-dev."""

MEDIA = (
    "tuxpaint-stamps-default",
    "gcompris-qt-data",
    "fluidsynth",
    "timgm6mb-soundfont",
    "fluid-soundfont-gm",
    "ffmpeg",
    "pulseaudio",
    "xvfb",
    "chromium",
    "chromium-driver",
    "gstreamer1.0-tools",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gir1.2-gst-rtsp-server-1.0",
    "python3-gi",
    "libgtest-dev",
)
"""Debian packages of pictures and recordings, the programs that tests compare with, and what csrc's own tests are built on."""

FUZZERS = ("clang-14", "libclang-rt-14-dev")
"""Debian packages of Clang and its libFuzzer."""

INTERPRETERS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python3.10")
"""Where to look for a Python, in order of preference."""


class SetupError(Exception):
    """A step failed; the message says which, and what to do."""


class Interpreter(NamedTuple):
    """A Python that exists on this machine, and what Debian leaves out of it by default."""

    path: str
    version: tuple[int, int]
    has_headers: bool
    has_ensurepip: bool


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("level", choices=("core", "dev", "fuzz"))
    level = parser.parse_args().level
    started = time.monotonic()
    try:
        changed = _prepare(level)
    except SetupError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on with the step that was not finished", file=sys.stderr)
        return 130
    if changed:
        print(f"==> .venv is ready ({level}), after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _prepare(level: str) -> bool:
    """Bring the environment to `level`. Returns whether anything had to be done."""
    interpreter = _own_interpreter() or _find_interpreter()
    is_dev = level != "core"
    if is_dev and interpreter.version < (3, 11):
        raise SetupError(f"`make dev` needs Python 3.11 or newer, and .venv would have {interpreter.path}")
    changed = _system_packages(interpreter, level)
    changed |= _virtual_environment(interpreter)
    project = (ROOT / "pyproject.toml").read_bytes()
    version = (ROOT / "refavs_rt" / "__init__.py").read_bytes()
    made_from = b"\0".join([project, version, str(ROOT).encode(), repr(interpreter.version).encode()])
    extension = _Stamp("extension", _sources())
    core = _Stamp("core", made_from)
    dev = _Stamp("dev", made_from)
    if not extension.is_fresh():
        # Ninja goes by the age of files, and an unpacked archive or a copied checkout brings new contents with old dates.
        shutil.rmtree(ROOT / "build", ignore_errors=True)
    if not core.is_fresh():
        _pip("installing the build tools", *_build_requirements(project.decode()))
    if is_dev and not dev.is_fresh():
        _pip("installing torch", _torch_requirement(project.decode()))
        _install("installing every extra and building the extension", ".[dev]")
        dev.write()
    elif not core.is_fresh():
        _install("installing the core and building the extension", ".")
    elif not extension.is_fresh():
        _install("building the extension again", ".", "--no-deps")
    else:
        return changed
    core.write()
    extension.write()
    return True


# --- Python ---


def _own_interpreter() -> Interpreter | None:
    """The Python of the .venv that is there already."""
    if not VENV.exists():
        return None
    found = _inspect(str(PYTHON))
    if found is None:
        raise SetupError(f"{PYTHON} does not run; remove the folder {VENV} and try again")
    if not _is_suitable(found):
        raise SetupError(
            f"{VENV} was made with Python {_dotted(found)}; {_wanted()}. Remove the folder and try again"
        )
    return found


def _find_interpreter() -> Interpreter:
    asked_for = os.environ.get("PYTHON")
    for name in (asked_for,) if asked_for else INTERPRETERS:
        path = shutil.which(name)
        found = _inspect(path) if path else None
        if found is not None and _is_suitable(found):
            return found
    where = f"PYTHON={asked_for} is not one" if asked_for else f"none of {', '.join(INTERPRETERS)} is one"
    raise SetupError(
        f"{_wanted()}, and {where}.\n"
        "On Ubuntu 22.04: sudo apt-get install python3.11 python3.11-venv python3.11-dev; then try again.\n"
        "A Python elsewhere is named by PYTHON: make demo PYTHON=/path/to/python3.11"
    )


def _is_suitable(found: Interpreter) -> bool:
    oldest = (3, 10) if platform.machine() == "aarch64" else (3, 11)
    return oldest <= found.version <= (3, 14)


def _wanted() -> str:
    oldest = "3.10" if platform.machine() == "aarch64" else "3.11"
    return f"Python {oldest} to 3.14 is needed"


def _dotted(interpreter: Interpreter) -> str:
    return ".".join(map(str, interpreter.version))


def _inspect(path: str) -> Interpreter | None:
    """What the Python at `path` has, or None if it does not run."""
    question = (
        "import importlib.util as u, os, sys, sysconfig;"
        "print(*sys.version_info[:2], os.path.exists(sysconfig.get_path('include') + '/Python.h'),"
        " u.find_spec('ensurepip') is not None)"
    )
    try:
        answer = subprocess.run(
            [path, "-c", question], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, headers, ensurepip = answer.stdout.split()
    return Interpreter(path, (int(major), int(minor)), headers == "True", ensurepip == "True")


def _virtual_environment(interpreter: Interpreter) -> bool:
    """Make .venv, with pip in it. Returns whether it had to be made."""
    if VENV.exists():
        return False
    # A Jetson's TensorRT is a package of the system.
    see_system = ["--system-site-packages"] if platform.machine() == "aarch64" else []
    try:
        _run(
            f"making .venv with Python {_dotted(interpreter)}",
            [interpreter.path, "-m", "venv", *see_system, str(VENV)],
            "Another Python is taken with: make demo PYTHON=/path/to/python3.11",
        )
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)  # half of one would look like a whole one next time
        raise
    return True


# --- system packages ---


def _system_packages(interpreter: Interpreter, level: str) -> bool:
    """Install the system packages that are missing. Returns whether there were any."""
    missing = _missing_for_core(interpreter)
    if level != "core":
        missing += _missing_packages(MEDIA)
    if level == "fuzz":
        missing += _missing_packages(FUZZERS)
    if not missing:
        return False
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"these are missing, under their Debian names; install them and try again: {' '.join(missing)}"
        )
    if os.geteuid() == 0:
        sudo = []
    elif _sudo_asks_nothing():
        sudo = ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    else:
        raise SetupError(f"system packages are missing. Run this line, then try again:\n\n    sudo {line}\n")
    mend = f"Run it by hand, then try again:\n\n    sudo apt-get update && sudo {line}\n"
    _run("reading the list of system packages", [*sudo, "apt-get", "update"], mend)
    _run(f"installing system packages: {' '.join(missing)}", [*sudo, *line.split()], mend)
    return True


def _missing_for_core(interpreter: Interpreter) -> list[str]:
    python = "python" + _dotted(interpreter)
    missing = []
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        missing.append("g++")
    if shutil.which("pkg-config") is None:
        missing.append("pkg-config")
        missing += [f"{name}-dev" for name in LIBRARIES]
    else:
        missing += [f"{name}-dev" for name in LIBRARIES if not _succeeds("pkg-config", "--exists", name)]
    if not interpreter.has_headers:
        missing.append(f"{python}-dev")
    if not interpreter.has_ensurepip and not VENV.exists():
        missing.append(f"{python}-venv")
    return missing


def _missing_packages(names: tuple[str, ...]) -> list[str]:
    if shutil.which("dpkg-query") is None:
        print(f"note: not a Debian or Ubuntu, so what needs these is left out: {' '.join(names)}", flush=True)
        return []
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *names]
    known = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return [name for name in names if f"{name} installed" not in known]


def _sudo_asks_nothing() -> bool:
    return shutil.which("sudo") is not None and _succeeds("sudo", "-n", "true")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# --- Python packages ---


def _install(what: str, target: str, *options: str) -> None:
    """Install the checkout itself, editable. While its sources stay the same the build folder is kept, and nothing compiled."""
    _pip(what, *options, "--no-build-isolation", "--editable", target)


def _pip(what: str, *arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    _run(what, command, "If the network failed, try again: it goes on from here.")


def _build_requirements(project: str) -> list[str]:
    """What building in .venv takes; read with a pattern because Python 3.10 has no reader of TOML."""
    lists = re.findall(r"^(?:requires|build) = \[(.*)\]$", project, re.MULTILINE)
    if len(lists) != 2:
        _broken("build-system.requires and dependency-groups.build, each on one line")
    return [requirement for listed in lists for requirement in re.findall(r'"([^"]+)"', listed)]


def _torch_requirement(project: str) -> str:
    """The pin of torch, which goes first: once it is there, no other package can ask for another build of it."""
    listed = re.search(r'"(torch==[^"]+)"', project)
    return listed.group(1) if listed else _broken("the pin of torch")


def _broken(what: str) -> NoReturn:
    raise SetupError(f"pyproject.toml does not hold {what} where bootstrap.py looks for it")


def _sources() -> bytes:
    """The bytes of all that the extension is built from; csrc/tests/ is no part of it."""
    files = [ROOT / "CMakeLists.txt", *sorted(path for path in (ROOT / "csrc").glob("*") if path.is_file())]
    return b"\0".join(
        str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() for path in files if path.exists()
    )


# --- running a step ---


class _Stamp:
    """The mark of a finished step, and of what it was made from."""

    def __init__(self, name: str, made_from: bytes) -> None:
        self._path = VENV / "stamps" / name
        self._digest = hashlib.sha256(made_from).hexdigest()

    def is_fresh(self) -> bool:
        return self._path.is_file() and self._path.read_text() == self._digest

    def write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(self._digest)


_NEWS = re.compile(r"^\s*(Downloading|Building wheel|Building editable|Installing|Need to get)\b")
"""Lines of pip and apt-get that show how far it is."""
_SMALL_NEWS = re.compile(r"^(Get:|Unpacking|Setting up)")
"""Lines that come by the hundred: one is shown every few seconds."""
_SMALL_NEWS_S = 5.0


def _run(what: str, command: list[str], mend: str) -> None:
    """Run one step, showing its news; its whole output is shown only if it fails.

    Raises:
        SetupError: it exited with another status than 0.
    """
    print(f"==> {what}", flush=True)
    started = shown_s = time.monotonic()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        errors="replace", env=environment, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            is_due = _SMALL_NEWS.match(line) and time.monotonic() > shown_s + _SMALL_NEWS_S
            if is_due or _NEWS.match(line):
                print(f"    {line.strip()[:100]}", flush=True)
                shown_s = time.monotonic()
    if process.returncode != 0:
        shown = "\n".join(f"    {line}" for line in lines[-25:])
        raise SetupError(
            f"{what} failed (exit status {process.returncode}): {' '.join(command)}\n{shown}\n{mend}"
        )
    print(f"    done in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
