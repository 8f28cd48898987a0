"""What goes wrong and is not ours to mend."""

from __future__ import annotations


class UserError(Exception):
    """The user's to mend; the message says what and how. The command line shows it as one line, without a traceback."""
