"""Checks of FFmpeg, GStreamer, and of cameras, microphones and screens."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from pathlib import Path

from .check import BROKEN, MISSING, OK, Finding

_PROTOCOLS = ("srt", "rtmp", "https")
_GSTREAMER = ("libgstreamer-1.0.so.0", "libgstapp-1.0.so.0", "libgstvideo-1.0.so.0")


def encoder() -> Finding:
    """Encodes two pictures."""
    import numpy as np

    from ..sink import OverlayWriter

    with tempfile.TemporaryDirectory() as folder:
        with OverlayWriter(Path(folder) / "a.mp4", 64, 64) as writer:
            for index in range(2):
                writer.write(np.zeros((64, 64, 3), np.uint8), index / 25)
    if writer.notes:
        return Finding(MISSING, f"no H.264; {writer.encoder} in its place")
    return Finding(OK, writer.encoder)


def protocols() -> Finding:
    """What the FFmpeg that the extension has loaded was built with."""
    library = _loaded_libavformat()
    if library is None:
        return Finding(BROKEN, "FFmpeg's libavformat is not found among what is loaded")
    known = _input_protocols(library)
    library.av_find_input_format.restype = ctypes.c_void_p
    here = {name: name in known for name in _PROTOCOLS}
    here = {"rtsp": bool(library.av_find_input_format(b"rtsp")), **here}
    missing = [name for name, is_here in here.items() if not is_here]
    if missing:
        return Finding(MISSING, f"not {', '.join(missing)}")
    return Finding(OK, ", ".join(here))


def cameras() -> Finding:
    return _devices("camera", "", sorted(Path("/dev").glob("video[0-9]*")), "video")


def microphones() -> Finding:
    return _devices("microphone", "pulse:|CARD=", sorted(Path("/dev/snd").glob("pcm*c")), "audio")


def screen() -> Finding:
    """A picture of the X11 screen."""
    from ..ingest import IngestError, open_live

    display = os.environ.get("DISPLAY")
    if not display:
        return Finding(MISSING, "DISPLAY is not set")
    try:
        with open_live(f"screen:{display}", 32, mic="none", max_frames=1) as source:
            for frame in source:
                return Finding(OK, f"{display}, {frame.width} x {frame.height}")
    except IngestError as error:
        return Finding(BROKEN, str(error).splitlines()[0])
    return Finding(BROKEN, f"{display} gives no picture")


def gstreamer() -> Finding:
    """Its libraries, found as `csrc/gst_library.cpp` finds them."""
    try:
        core, *_ = [ctypes.CDLL(name) for name in _GSTREAMER]
    except OSError as error:
        return Finding(MISSING, str(error))
    core.gst_version_string.restype = ctypes.c_char_p
    return Finding(OK, core.gst_version_string().decode())


def _devices(medium: str, real: str, nodes: list[Path], group: str) -> Finding:
    """Those listed whose address matches `real`: ALSA lists its plugins too, which no sound comes from."""
    from ..ingest import list_devices

    found = [address for kind, address, _ in list_devices() if kind == medium and re.search(real, address)]
    if found:
        return Finding(OK, ", ".join(found))
    closed = [str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        mend = f"sudo usermod -aG {group} $USER, then log in again"
        return Finding(BROKEN, f"{', '.join(closed)} may not be opened", mend)
    return Finding(MISSING, "none")


def _loaded_libavformat() -> ctypes.CDLL | None:
    from .. import ingest  # noqa: F401 # it loads the library

    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if "/libavformat.so." in path:  # packages bring others, under names of their own
            return ctypes.CDLL(f"/{path}")
    return None


def _input_protocols(library: ctypes.CDLL) -> set[str]:
    library.avio_enum_protocols.restype = ctypes.c_char_p
    state, names = ctypes.c_void_p(), set()
    while name := library.avio_enum_protocols(ctypes.byref(state), 0):
        names.add(name.decode())
    return names
