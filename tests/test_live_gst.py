"""GStreamer pipelines as live sources. GStreamer's own tools are the oracle of what comes out of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import IngestError, open_live

from .clips import ffmpeg
from .live_sources import BEEP, FLASH, comes_true, frames_until, loudest_hz, needs, skew_s, sound_of
from .processes import free_port

pytestmark = [pytest.mark.media, needs("gst-launch-1.0")]

LIVE = "gst:videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=25/1"
TONE = "audiotestsrc is-live=true freq=440 samplesperbuffer=441 ! audio/x-raw,rate=44100"


def test_a_live_pipeline_is_a_camera() -> None:
    began = time.monotonic()
    with open_live(LIVE, 64, mic="none", duration_s=1.2) as source:
        assert (source.width, source.height, source.frame_rate) == (320, 180, 25.0)
        assert not source.has_audio and source.video_codec == "raw" and source.pixel_aspect == (1, 1)
        frames = list(source)
        assert source.counters["corrupt"] == source.counters["late"] == 0
    assert 1.1 < time.monotonic() - began < 6.0
    times = np.array([frame.pts_s for frame in frames])
    assert 20 <= len(frames) <= 32 and np.median(np.diff(times)) == pytest.approx(0.04, abs=0.005)
    assert frames[0].image.shape == (180, 320, 3) and frames[0].tensor.shape == (3, 64, 64)
    moved = [np.abs(a.image.astype(int) - b.image).max() for a, b in itertools.pairwise(frames)]
    assert min(moved) > 100  # the ball: no picture is another's memory


def test_the_newest_picture_of_a_pipeline_wins() -> None:
    with open_live(LIVE, 32, mic="none") as source:
        next(source)
        time.sleep(0.6)
        frame = next(source)
        assert source.now_s - frame.pts_s < 0.15
        assert source.counters["dropped"] >= 10 and source.counters["late"] == 0


def test_a_pipeline_may_have_sound_beside_its_pictures() -> None:
    both = f"{LIVE} ! appsink name=picture {TONE},format=S16LE,channels=2 ! appsink name=sound"
    with open_live(both, 32) as source:
        assert source.has_audio
        frames = frames_until(source, lambda frame: bool(frame and frame.audio_missing_samples == 0), 8)
        assert loudest_hz(frames[-1]) == pytest.approx(440, abs=1.5)
        assert 0 <= frames[-1].pts_s - (frames[-1].audio_end_s or 0) < 0.01
        assert source.counters["sound_error_s"] == pytest.approx(0.0, abs=0.05)
    with open_live(both, 32, mic="none", max_frames=15) as source:  # the sound is there, and not asked for
        assert len(list(source)) == 15 and not source.has_audio


@pytest.mark.parametrize(
    "sound", ["format=F32LE,channels=1", "format=S32LE,channels=6", "format=S24LE,channels=2"]
)
def test_a_pipeline_is_a_microphone(sound: str) -> None:
    with open_live("lavfi:testsrc2=size=64x64:rate=25", 32, mic=f"gst:{TONE},{sound}") as source:
        frames = frames_until(source, lambda frame: bool(frame and frame.audio_missing_samples == 0), 8)
    assert loudest_hz(frames[-1]) == pytest.approx(440, abs=1.5)
    assert np.abs(sound_of(frames[-1])[-8000:]).max() == pytest.approx(0.8, abs=0.05)  # audiotestsrc's volume


def gst_rgb(source: str, width: int, height: int, between: str) -> NDArray[np.uint8]:
    """[H, W, 3]: the first picture of a pipeline, turned into RGB by GStreamer, exactly where it goes by 16 bits a value."""
    turn = f"{source} ! {between} videoconvert ! video/x-raw,format=RGB ! fdsink"
    raw = subprocess.run(
        ["gst-launch-1.0", "-q", *turn.split()], stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout
    stride = -(-width * 3 // 4) * 4
    return np.frombuffer(raw, np.uint8).reshape(height, stride)[:, : width * 3].reshape(height, width, 3)


def flat(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[H, W]: where all within 4 pixels is of one colour, so that no filter of chroma matters."""
    varied = np.zeros(picture.shape[:2], bool)
    for dy, dx in itertools.product(range(-4, 5), repeat=2):
        varied |= (np.roll(picture, (dy, dx), (0, 1)) != picture).any(axis=2)
    varied[:4] = varied[-4:] = True
    varied[:, :4] = varied[:, -4:] = True
    return ~varied


RGB = ["RGB", "BGR", "RGBx", "BGRx", "xRGB", "xBGR", "RGBA", "BGRA", "ARGB", "ABGR", "GRAY8", "GRAY16_LE"]
YUV = ["I420", "NV12", "NV21", "YUY2", "UYVY", "Y42B", "Y444", "I420_10LE", "P010_10LE", "YV12", "Y41B"]
"""The last two are none that FFmpeg has: GStreamer converts them."""


@pytest.mark.parametrize(
    ("name", "height", "colorimetry"),
    [
        *((name, 241, "") for name in RGB + YUV),
        *((name, 722, "") for name in ("NV12", "Y444", "GRAY8")),
        ("Y444", 241, ",colorimetry=(string)1:4:7:1"),
        ("Y444", 241, ",colorimetry=(string)bt2020"),
    ],
)
def test_colours_are_those_that_gstreamer_makes_of_them(name: str, height: int, colorimetry: str) -> None:
    """At odd sizes, whose rows are padded. YUV is BT.601's up to 576 rows, else BT.709's, or as it says."""
    width = 323
    caps = f"video/x-raw,format={name},width={width},height={height},framerate=5/1{colorimetry}"
    with open_live(
        f"gst:videotestsrc pattern=smpte100 is-live=true ! {caps}", 32, mic="none", max_frames=1
    ) as source:
        picture = next(source).image
    exact = "videoconvert ! video/x-raw,format=AYUV64 !" if name in YUV else ""
    expected = gst_rgb(f"videotestsrc pattern=smpte100 num-buffers=1 ! {caps}", width, height, exact)
    assert picture.shape == expected.shape
    same = flat(expected)
    assert same.mean() > 0.5
    assert np.abs(picture.astype(int) - expected)[same].max() <= 2


# Ends, errors and what is missing


def flash_and_beep(folder: Path) -> Path:
    path = folder / "flash.avi"
    streams = ["-f", "lavfi", "-i", FLASH, "-f", "lavfi", "-i", BEEP, "-t", "4"]
    ffmpeg(*streams, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le", path)
    return path


def test_flash_and_beep_of_a_pipeline_coincide_and_a_file_ends_it(tmp_path: Path) -> None:
    """What is not live is held to its own times by GStreamer."""
    file = f"gst:filesrc location={flash_and_beep(tmp_path)} ! avidemux name=d"
    picture = "d.video_0 ! queue ! jpegdec ! appsink name=picture"
    sound = "d.audio_0 ! queue ! audioconvert ! appsink name=sound"
    began = time.monotonic()
    with open_live(f"{file} {picture} {sound}", 32) as source:
        frames = list(itertools.islice(source, 200))
        assert source.take_notices() == [] and source.counters["reconnects"] == 0
    assert 3.5 < time.monotonic() - began < 8.0
    assert len(frames) > 80 and abs(skew_s(frames)) < 0.02


def test_a_live_pipeline_that_ends_is_opened_again() -> None:
    with open_live(LIVE.replace("is-live=true", "is-live=true num-buffers=20"), 32, mic="none") as source:
        frames = frames_until(source, lambda _: source.counters["reconnects"] >= 1, 10)
        frames += frames_until(source, lambda frame: frame is not None, 5)
        notices = [text for _, text in source.take_notices()]
    assert [text.split(":")[0] for text in notices] == ["lost", "back"]
    assert "has closed it" in notices[0]
    times = [frame.pts_s for frame in frames]
    assert times == sorted(times) and 15 <= len(frames) <= 25


@contextmanager
def datagrams(port: int, colour: str, folder: Path) -> Iterator[Callable[[str | None], None]]:
    """A JPEG picture of one colour to a port, 25 times a second; what is given changes the colour, or ends it (None)."""
    pictures: dict[str | None, bytes] = {None: b""}
    for name in ("black", "white"):
        path = folder / f"{name}.jpg"
        ffmpeg("-f", "lavfi", "-i", f"color={name}:size=64x64", "-frames:v", "1", path)
        pictures[name] = path.read_bytes()
    present: list[str | None] = [colour]
    ended = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not ended.wait(0.04):
                if picture := pictures[present[0]]:
                    out.sendto(picture, ("127.0.0.1", port))

    def change(colour: str | None) -> None:
        present[0] = colour

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield change
    finally:
        ended.set()
        sender.join()


def receiver(port: int) -> str:
    return f"gst:udpsrc address=127.0.0.1 port={port} caps=image/jpeg,framerate=25/1 ! jpegdec"


def test_a_pipeline_that_falls_silent_is_lost_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with (
        datagrams(port, "black", tmp_path) as change,
        open_live(receiver(port), 32, mic="none", silence_s=1.5) as source,
    ):
        frames_until(source, lambda frame: frame is not None, 5)
        change(None)
        frames_until(source, lambda frame: frame is None, 5)
        frames_until(source, lambda _: any("lost: " in text for _, text in source.take_notices()), 5)
        change("black")
        frames_until(source, lambda frame: frame is not None, 10)
        assert [text.split(":")[0] for _, text in source.take_notices()] == ["back"]
        assert source.counters["reconnects"] == 1


def test_a_pipeline_whose_pictures_stand_still_is_lost_though_its_sound_goes_on(tmp_path: Path) -> None:
    port = free_port()
    address = f"{receiver(port)} ! appsink name=picture {TONE} ! appsink name=sound"
    with datagrams(port, "black", tmp_path) as change, open_live(address, 32, silence_s=1.5) as source:
        frames_until(source, lambda frame: frame is not None, 5)
        change(None)
        notices: list[str] = []

        def is_lost(_: object) -> bool:
            notices.extend(text for _, text in source.take_notices())
            return bool(notices)

        frames_until(source, is_lost, 8)
        assert "sends sound and no pictures" in notices[0]


def test_closing_is_fast_while_a_pipeline_is_silent(tmp_path: Path) -> None:
    port = free_port()
    with datagrams(port, "black", tmp_path) as change, open_live(receiver(port), 32, mic="none") as source:
        frames_until(source, lambda frame: frame is not None, 5)
        change(None)
        frames_until(source, lambda frame: frame is None, 5)
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 1.0


def test_what_is_live_is_not_held_back_for_a_slower_branch(tmp_path: Path) -> None:
    """GStreamer would play the pictures together with the sound, which a queue holds back for 2 s."""
    port = free_port()
    slow = "queue min-threshold-time=2000000000 max-size-time=4000000000 max-size-buffers=0 max-size-bytes=0"
    address = f"{receiver(port)} ! appsink name=picture {TONE} ! {slow} ! appsink name=sound"
    with datagrams(port, "black", tmp_path) as change, open_live(address, 32, mic="none") as source:
        frames_until(source, lambda frame: frame is not None and frame.image.max() < 50, 5)
        began = time.monotonic()
        change("white")
        frames_until(source, lambda frame: frame is not None and frame.image.min() > 200, 10)
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("", "names no pipeline"),
        ("nosuchthing ! videoscale", 'no element "nosuchthing".*install the package'),
        ("videotestsrc nosuch=1", 'no property "nosuch" in element "videotestsrc"'),
        ("videotestsrc !", "GStreamer does not take it"),
        ("v4l2src device=/dev/video77 name=cam", "cam: .*/dev/video77"),
        ("filesrc location=/no/such name=f ! decodebin", "f: .*/no/such"),
        ("fakesrc num-buffers=5 name=f", "f: .*not-negotiated"),
        ("fakesrc num-buffers=0 ! video/x-raw,width=4", "has ended, with no picture"),
        ("audiotestsrc", "could not link"),
        ("videotestsrc ! appsink", "write appsink name=picture"),
        ("videotestsrc ! queue name=picture ! appsink", "'picture' is no appsink"),
        ("audiotestsrc ! audio/x-raw,channels=6 ! appsink name=picture", "could not link|not-negotiated"),
    ],
)
def test_a_pipeline_that_is_none_is_one_clear_error(pipeline: str, message: str) -> None:
    with pytest.raises(IngestError, match=message) as raised:
        open_live(f"gst:{pipeline}", 32, mic="none")
    assert "\n" not in str(raised.value) and str(raised.value).startswith("gst:")


def test_a_bad_microphone_is_told_before_anything_runs() -> None:
    with pytest.raises(IngestError, match="write appsink name=sound"):
        open_live(LIVE, 32, mic="gst:audiotestsrc ! appsink name=picture")


@pytest.mark.parametrize(
    "pipeline",
    [
        "rtspsrc location=rtsp://admin:hunter2@127.0.0.1:1/live ! decodebin",
        "rtspsrc location=rtsp://127.0.0.1:1/live user-id=admin user-pw=hunter2 ! decodebin",
        'rtspsrc location=rtsp://127.0.0.1:1/live user-id=admin user-pw = "hunter2 \\"hunter2" ! decodebin',
        "nosuch location=http://127.0.0.1:1/live?token=hunter2&x=1",
    ],
)
def test_secrets_of_a_pipeline_are_not_told(pipeline: str) -> None:
    with pytest.raises(IngestError) as raised:
        open_live(f"gst:{pipeline}", 32, mic="none")
    text = str(raised.value)
    assert "hunter2" not in text and "admin" not in text and "127.0.0.1" in text


@pytest.mark.parametrize(
    ("content", "message"), [("none", "not installed"), ("libm.so.6", "too old or broken")]
)
def test_a_machine_without_gstreamer_is_told_what_to_install(
    tmp_path: Path, content: str, message: str
) -> None:
    """The dynamic linker finds an empty file, or another library, in the place of GStreamer's."""
    library = tmp_path / "libgstreamer-1.0.so.0"
    if content == "none":
        library.touch()
    else:
        libm = next(Path(line.split()[-1]) for line in ldconfig() if line.strip().startswith(content))
        for name in ("libgstreamer-1.0.so.0", "libgstapp-1.0.so.0", "libgstvideo-1.0.so.0"):
            shutil.copy(libm, tmp_path / name)
    program = "import sys; from refavs_rt.ingest import open_live; open_live(sys.argv[1], 32, mic='none')"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    failed = subprocess.run(
        [sys.executable, "-c", program, LIVE], env=environment, capture_output=True, text=True, timeout=60
    )
    said = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 1 and "IngestError" in said and message in said, failed.stderr
    assert "apt-get install libgstreamer1.0-0" in said


def ldconfig() -> list[str]:
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    return subprocess.run([program, "-p"], capture_output=True, text=True, check=True).stdout.splitlines()


# Closing


def tasks() -> list[str]:
    """The names of this process's threads. Ours have that of the process; GLib keeps some of its own for later."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return names


def own_threads() -> int:
    return tasks().count(Path("/proc/self/comm").read_text().strip())


def streams() -> list[str]:
    """Threads in which elements of GStreamer push."""
    return [name for name in tasks() if name.startswith(("videotestsrc", "audiotestsrc"))]


def test_closing_a_pipeline_leaves_no_thread() -> None:
    before = own_threads()
    source = open_live(f"{LIVE} ! appsink name=picture {TONE} ! appsink name=sound", 32)
    next(source)
    assert own_threads() > before and len(streams()) == 2
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1.0
    assert comes_true(lambda: own_threads() <= before, 10), "a thread stays"
    assert comes_true(lambda: not streams(), 40)  # GLib lets go of a thread that waits for work after 15 s


def test_a_pipeline_that_hangs_does_not_hold_up_closing() -> None:
    """One whose stream sleeps 3 s at a time, which nothing can wake."""
    before = own_threads()
    source = open_live("gst:videotestsrc is-live=true ! identity sleep-time=3000000", 32, mic="none")
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1.0
    assert own_threads() == before + 1 and streams()  # it still sleeps
    assert comes_true(lambda: own_threads() == before, 20)


PAUSE_S = 0.4
"""Less than a pipeline that hangs is waited for, and more than a busy machine makes a thread wait."""


@contextmanager
def longest_pause_s() -> Iterator[list[float]]:
    """How long at most another thread of Python had to wait meanwhile, once it is over."""
    ended, longest = threading.Event(), [0.0]

    def watch() -> None:
        last = time.monotonic()
        while not ended.wait(0.01):
            longest[0] = max(longest[0], time.monotonic() - last)
            last = time.monotonic()
        longest[0] = max(longest[0], time.monotonic() - last)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield longest
    finally:
        ended.set()
        watching.join()


def test_a_pipeline_that_hangs_holds_up_no_other_thread() -> None:
    """Neither where its source is closed, and asked for its counters meanwhile, nor where it is just let go of."""
    source = open_live("gst:videotestsrc is-live=true ! identity sleep-time=3000000", 32, mic="none")
    with longest_pause_s() as longest:
        closing = threading.Thread(target=source.close)
        closing.start()
        while closing.is_alive():
            assert source.counters
            time.sleep(0.01)
    assert longest[0] < PAUSE_S
    source = open_live("gst:videotestsrc is-live=true ! identity sleep-time=3000000", 32, mic="none")
    with longest_pause_s() as longest:
        began = time.monotonic()
        del source
        assert time.monotonic() - began > PAUSE_S, "it was no wait, so this shows nothing"
    assert longest[0] < PAUSE_S


@contextmanager
def connecting(port: int, *, is_deaf: bool) -> Iterator[None]:
    """While a socket listens to a port: says nothing to who connects or, with no room for more, lets nobody do so."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", port))
        server.listen(0)
        if not is_deaf:
            for taker in (first, second):
                taker.setblocking(False)
                taker.connect_ex(("127.0.0.1", port))
        yield


def connections(port: int, state: str) -> int:
    """How many there are to a port, by the kernel's table."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == f"0100007F:{port:04X}" and row[3] == state for row in rows)


@pytest.mark.parametrize("is_deaf", [True, False])
def test_ctrl_c_ends_a_pipeline_that_does_not_open(is_deaf: bool) -> None:
    """One waits for a first byte in its stream, the other for a connection in its change of state, which hangs."""
    port, state = free_port(), "01" if is_deaf else "02"  # established, or a SYN is sent
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--text", "dog", "--mic", "none", "--camera"]
    command += [f"gst:tcpclientsrc host=127.0.0.1 port={port} ! jpegdec"]
    with connecting(port, is_deaf=is_deaf):
        before = connections(port, state)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert comes_true(lambda: connections(port, state) > before, 60)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130 and time.monotonic() - began < 2.0
    assert "Traceback" not in said
