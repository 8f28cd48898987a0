"""Where a page is served."""

from __future__ import annotations

import ipaddress

DEFAULT_PORT = 8765


class ServeError(Exception):
    """The page cannot be served so; the message says why, and the mend."""


class PortTakenError(ServeError):
    """Somebody else listens there."""


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """HOST:PORT, HOST, :PORT or PORT, as --serve takes it; host 127.0.0.1 and `default_port` (8765) where they are left out.

    Raises:
        ServeError: it is none.
    """
    default_port = DEFAULT_PORT if default_port is None else default_port
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = ("", text) if _is_number(text) else (text, "")
    elif text.count(":") > 1 and not host.endswith("]"):  # IPv6 without a port
        host, port = text, ""
    host = host.strip("[]") or "127.0.0.1"
    if port and not (_is_number(port) and int(port) < 1 << 16):
        raise ServeError(
            f"{text!r} is no address to serve at; give HOST:PORT, as in 127.0.0.1:{default_port}"
        )
    return host, int(port) if port else default_port


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
