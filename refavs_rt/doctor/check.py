"""A check, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OK, MISSING, BROKEN = "ok", "missing", "broken"
"""It works; it is not here; it is here and does not work."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    status: str
    """One of `OK`, `MISSING`, `BROKEN`."""
    found: str
    """What is there, in a few words."""
    mend: str = ""
    """What to do about this very finding; empty: what the check says."""


@dataclass(frozen=True)
class Check:
    """A look at one thing. Its function is found by name in a process of its own, so it stands at the top of a module."""

    name: str
    purpose: str
    """What the thing is for."""
    look: Callable[[], Finding]
    """May raise: that is `BROKEN`, an ImportError `MISSING`."""
    mend: str
    """The command that mends it, or what to do."""
    limit_s: float = 30.0
    """After which it hangs."""
