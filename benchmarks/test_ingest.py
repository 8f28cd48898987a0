"""From a file's H.264 to [3, 256, 256] float32, beside what people use for it, interleaved in one run; and a hop of log-mel.

The clip moves, is noisy, and is coded at a camera's rate. Every route decodes with as many threads as it is told; what it does
besides is its own. The ffmpeg tool, which scales to bytes and normalises nothing, is the limit.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import HOP_SAMPLES, IMAGENET_MEAN, IMAGENET_STD, PATCH_SAMPLES
from refavs_rt.ingest import StreamingLogMel, open_live, open_source
from refavs_rt.log_mel import mel_matrix

pytestmark = pytest.mark.media
SIZE, FRAMES, ROUNDS = 256, 150, 7
BIT_RATES = {"1920x1080": "6M", "1280x720": "3M"}
MEAN, STD = np.float32(IMAGENET_MEAN) * 255, np.float32(IMAGENET_STD) * 255
Route = Callable[[Path, int], Iterator[NDArray[np.float32]]]


def normalised(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[S, S, 3] bytes as [3, S, S]."""
    return np.ascontiguousarray(((rgb - MEAN) / STD).transpose(2, 0, 1))


def ours(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    buffer = np.empty((3, SIZE, SIZE), np.float32)
    with open_source(path, SIZE, decode_threads=threads) as source:
        for frame in source:
            frame.write_tensor(buffer)
            yield buffer


def pyav_frames(path: Path, threads: int) -> Iterator[Any]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield from container.decode(stream)


def pyav_array(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    """The way of its documentation: a picture as an array, then the resize that training uses."""
    for frame in pyav_frames(path, threads):
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        yield normalised(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))


def pyav_reformat(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    """Scaled by FFmpeg, as one who knows it would."""
    for frame in pyav_frames(path, threads):
        yield normalised(frame.reformat(SIZE, SIZE, "rgb24").to_ndarray())


def opencv(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    while (read := capture.read())[0]:
        small = cv2.resize(read[1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        yield normalised(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    capture.release()


def torchcodec(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    decoders = importlib.import_module("torchcodec.decoders")
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    for image in decoders.VideoDecoder(str(path), num_ffmpeg_threads=threads):
        small = torch.nn.functional.interpolate(
            image[None].float(), (SIZE, SIZE), mode="bilinear", antialias=True
        )
        yield ((small[0] - mean) / std).numpy()


def limit(path: Path, threads: int) -> Iterator[NDArray[np.float32]]:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", str(threads), "-i", str(path)]
    command += ["-vf", f"scale={SIZE}:{SIZE}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while len(data := process.stdout.read(3 * SIZE * SIZE)) == 3 * SIZE * SIZE:
            yield np.frombuffer(data, np.uint8)


ROUTES: dict[str, Route] = {
    "ours": ours,
    "PyAV, array and PIL": pyav_array,
    "PyAV, reformat": pyav_reformat,
    "OpenCV": opencv,
    "torchcodec": torchcodec,
    "ffmpeg tool": limit,
}


@pytest.fixture(scope="module", params=list(BIT_RATES))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / f"{request.param}.mp4"
    picture = f"mandelbrot=size={request.param}:rate=25:end_scale=0.05,noise=alls=8:allf=t,format=yuv420p"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, "-frames:v", FRAMES, "-c:v", "libx264"]
    command += ["-preset", "veryfast", "-b:v", BIT_RATES[request.param], path]
    subprocess.run([str(part) for part in command], check=True)
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_frames(benchmark: Any, clip: Path, threads: int) -> None:
    """`extra_info` holds the median milliseconds a frame of each route and their ratios to ours."""
    routes = {name: route for name, route in ROUTES.items() if loads(name)}
    took: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(ROUNDS):
        for name, route in routes.items():
            started = time.perf_counter()
            count = sum(1 for _ in route(clip, threads))
            took[name].append((time.perf_counter() - started) / count * 1e3)
            assert count == FRAMES
    median = {name: statistics.median(values) for name, values in took.items()}
    benchmark.extra_info["ms"] = {name: round(value, 2) for name, value in median.items()}
    benchmark.extra_info["ours_is_faster_by"] = {
        name: round(value / median["ours"], 2) for name, value in median.items()
    }
    print(f"\n{clip.stem}, {threads} threads: {benchmark.extra_info}")
    benchmark.pedantic(lambda: sum(1 for _ in ours(clip, threads)), rounds=1)


def loads(name: str) -> bool:
    module = {"PyAV": "av", "OpenCV": "cv2", "torchcodec": "torchcodec"}.get(name.split(",")[0])
    try:
        return module is None or importlib.import_module(module) is not None
    except (ImportError, RuntimeError, OSError):
        return False


def test_packet_to_tensor(benchmark: Any) -> None:
    """A live camera of 1280 x 720 with hardly anything to decode; `extra_info`: from a packet's arrival to its tensor."""
    camera, frames = "lavfi:testsrc2=size=1280x720:rate=25", 101
    buffer = np.empty((3, SIZE, SIZE), np.float32)

    def read() -> list[float]:
        ages_ms = []
        with open_live(camera, SIZE, mic="none", max_frames=frames) as source:
            for frame in source:
                frame.write_tensor(buffer)
                ages_ms.append(1e3 * (source.now_s - frame.pts_s))
        return ages_ms[1:]  # the first has waited for the others to be found out about

    p50, p95 = np.percentile(benchmark.pedantic(read, rounds=1), (50, 95))
    benchmark.extra_info.update(p50_ms=round(p50, 2), p95_ms=round(p95, 2))


def test_a_hop_of_log_mel(benchmark: Any) -> None:
    """One hop of the stream beside the window computed anew by torch; `extra_info` holds the ratio."""
    rng = np.random.default_rng(0)
    hop, window = rng.normal(size=HOP_SAMPLES).astype(np.float32), torch.randn(PATCH_SAMPLES)
    matrix, hann = torch.tensor(np.float32(mel_matrix())), torch.hann_window(400)
    streaming = StreamingLogMel()

    def anew() -> None:
        spectrum = torch.stft(window, 512, 160, 400, hann, center=False, return_complex=True).abs()
        torch.log(spectrum.T @ matrix + 0.01)

    took: dict[str, list[float]] = {"stream": [], "torch": []}
    for _ in range(200):
        for name, call in {"stream": lambda: streaming.push(hop), "torch": anew}.items():
            started = time.perf_counter()
            call()
            took[name].append((time.perf_counter() - started) * 1e6)
    stream, whole = statistics.median(took["stream"]), statistics.median(took["torch"])
    benchmark.extra_info.update(
        {"stream_us": round(stream, 1), "torch_us": round(whole, 1), "ratio": round(whole / stream, 1)}
    )
    print(f"\nlog-mel: {benchmark.extra_info}")
    benchmark(streaming.push, hop)
