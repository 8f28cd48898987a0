"""All checks, in the order in which they are told."""

from __future__ import annotations

from . import machine, media, software
from .check import Check

JOB = "main job"
"""The check that stands for a machine that works."""

_BUILD = "make demo, or pip install . (with FFmpeg's -dev packages)"
_FFMPEG = "take an FFmpeg that has it, as Debian's and Ubuntu's packages do: sudo apt-get install {}; then make demo"
_GSTREAMER = (
    "sudo apt-get install libgstreamer1.0-0 libgstreamer-plugins-base1.0-0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good"
)

CHECKS = (
    Check("Python", "everything", software.python, "make demo PYTHON=/path/to/python3.12"),
    Check("packages", "everything", software.packages, "pip install --force-reinstall numpy tokenizers"),
    Check("extension", "media in and out", software.extension, _BUILD),
    Check(
        "H.264 encoder",
        "overlays that browsers play",
        media.encoder,
        _FFMPEG.format("libavcodec-dev"),
    ),
    Check("protocols", "cameras in the network", media.protocols, _FFMPEG.format("libavformat-dev")),
    Check("onnxruntime", "the engine `onnx`", software.onnxruntime, "pip install onnxruntime"),
    Check(
        "bundle", "the embedded model", software.bundle, "pip install --force-reinstall . in a whole checkout"
    ),
    Check(JOB, "a file through the embedded model", software.job, "mend what stands above", 120.0),
    Check("page", "watching in the browser", software.page, "pip install starlette uvicorn websockets"),
    Check(
        "cameras", "--camera 0", media.cameras, "connect one; in a container: docker run --device /dev/video0"
    ),
    Check(
        "microphones",
        "--mic",
        media.microphones,
        "connect one; for PulseAudio's: sudo apt-get install pulseaudio",
    ),
    Check("screen", "--camera screen::0", media.screen, "export DISPLAY=:0, where there is an X server"),
    Check("GStreamer", "--camera gst:PIPELINE", media.gstreamer, _GSTREAMER),
    Check(
        "TensorRT",
        "the engine `tensorrt`",
        software.tensorrt,
        "pip install 'refavs-rt[trt]' (on a Jetson it comes with JetPack)",
        60.0,
    ),
    Check(
        "GPU",
        "TensorRT and training",
        machine.gpu,
        "an NVIDIA GPU with its driver, and: pip install 'refavs-rt[trt]'",
    ),
    Check("torch", "training, export", software.torch, "pip install 'refavs-rt[train,export]'", 120.0),
    Check("triton", "kernels on a GPU", software.triton, "pip install 'refavs-rt[kernels]'", 60.0),
    Check("transformers", "the preset `full`", software.transformers, "pip install 'refavs-rt[full]'", 120.0),
    Check("processor", "speed on the CPU", machine.cpu, "another machine"),
    Check("disk", "overlays, exports", machine.disk, "df -h . and make room, or work in another folder"),
    Check(
        "shared memory",
        "training in several processes",
        machine.shared_memory,
        "in a container: docker run --shm-size=1g",
    ),
)
