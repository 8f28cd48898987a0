"""What goes wrong on a command line."""

from __future__ import annotations


class UserError(Exception):
    """The user's to mend: shown as one line, without a traceback."""
