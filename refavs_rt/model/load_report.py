"""What became of the names of a published file when its weights were taken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """Names that did not find their place; empty where all did."""

    missing: list[str] = field(default_factory=list)
    """Names that the module has and the file lacks."""
    unexpected: list[str] = field(default_factory=list)
    """Names that the file has and the module lacks."""
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    """(name, shape in the file, shape in the module)"""
