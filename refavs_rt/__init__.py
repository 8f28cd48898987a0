"""Segment what a sentence means in a video with sound.

    import refavs_rt

    for result in refavs_rt.load("edge").stream("clip.mp4", ["the dog that barks"]):
        result.pts_s, result.masks, result.presence

A camera is a source too: `stream(refavs_rt.Live("0"), [...])`.

Importing this package loads neither ONNX Runtime nor the compiled extension nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import load
    from .stream import Live

__all__ = ["Live", "__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` and `Live`, imported when they are first asked for: they bring the runtime with them."""
    if name == "load":
        from .session import load

        return load
    if name == "Live":
        from .stream import Live

        return Live
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
