"""Tests; each file mirrors a module."""
