"""Scenes made by chance from real pictures and sounds, with everything that can be truly said of them."""

from __future__ import annotations

from .generator import SPLITS, SceneGenerator
from .grammar import KINDS, Expression, Kind
from .scene import Scene, SceneObject

__all__ = ["KINDS", "SPLITS", "Expression", "Kind", "Scene", "SceneGenerator", "SceneObject"]
