"""The page of a running stream: its overlay, its sentences and its figures in a browser."""

from __future__ import annotations

from .page import Page, ServeError, parse_address

__all__ = ["Page", "ServeError", "parse_address"]
