"""The one error of this package that a user can mend."""

from __future__ import annotations


class MaterialError(Exception):
    """Media packages or programs are missing, or a pack is damaged; the message names the mend."""
