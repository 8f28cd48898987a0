"""Segment what a sentence means in a video with sound.

    import refavs_rt

    for result in refavs_rt.load("edge").stream("clip.mp4", ["the dog that barks"]):
        result.pts_s, result.masks, result.presence

Importing this package loads neither ONNX Runtime nor the compiled extension nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import load

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first asked for: it brings the runtime with it."""
    if name == "load":
        from .session import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
