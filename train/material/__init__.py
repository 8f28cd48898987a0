"""Real pictures and sounds for scenes: which there are (`catalogue`), how they are packed (`build`) and read (`pack`)."""

from __future__ import annotations

from .build import build_pack
from .catalogue import ThingClass
from .errors import MaterialError
from .pack import Background, Pack, Photo, Picture, Recording, Thing

__all__ = [
    "Background",
    "MaterialError",
    "Pack",
    "Photo",
    "Picture",
    "Recording",
    "Thing",
    "ThingClass",
    "build_pack",
]
