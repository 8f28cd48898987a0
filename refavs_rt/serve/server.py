"""An application behind `Access` on an address, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import threading
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp

from .access import Access
from .address import PortTakenError, ServeError, is_loopback
from .viewers import MOST_VIEWERS

_LONGEST_MESSAGE = 1 << 16


class Server:
    """Serves from when it is made until it is closed.

    Args:
        application: what is served to those who may see it.
        host, port: where to listen; port 0 takes a free one.
        token: that clients must know. An address that others reach needs one.
        name: of the thread.
        flag: the option that names the address, for messages.

    Raises:
        ServeError: the address cannot be listened on, or needs a token.
    """

    def __init__(
        self, application: ASGIApp, host: str, port: int, token: str | None, *, name: str, flag: str
    ) -> None:
        _check_token(host, token)
        self._token = token
        self._socket = _listen(host, port, flag)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._server = uvicorn.Server(
            uvicorn.Config(
                Access(application, host, self._socket.getsockname()[1], token),
                log_config=None,
                log_level="error",
                access_log=False,
                lifespan="off",
                ws_max_size=_LONGEST_MESSAGE,
                ws_per_message_deflate=False,  # JPEG is as small as it gets
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name=f"refavs-{name}", daemon=True)
        self._thread.start()
        self._started.wait()

    def url(self, path: str = "/") -> str:
        """What to open, with the token if there is one."""
        host, port = self._socket.getsockname()[:2]
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}{path}" + (
            f"?token={quote(self._token, safe='')}" if self._token else ""
        )

    def soon(self, function: Any, *arguments: Any) -> None:
        """Call it on the thread of the event loop."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended: nobody is left to see it
            return

    def close(self) -> None:
        """Connections are closed and the thread ends."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(5.0)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._server.serve(sockets=[self._socket])


def _check_token(host: str, token: str | None) -> None:
    if token is not None and not (token.strip() and token.isascii() and token.isprintable()):
        raise ServeError(
            "the token is empty or holds more than plain characters; give --token another, as of letters and digits"
        )
    if token is None and not is_loopback(host):
        raise ServeError(
            f"{host} is reached from other machines, and whoever opens the page sees the camera: give a --token, "
            f"for example --token {secrets.token_urlsafe(12)}"
        )


def _listen(host: str, port: int, flag: str) -> socket.socket:
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2 * MOST_VIEWERS)  # at once, so that who comes before the loop runs is not refused
    except UnicodeError as error:  # what getaddrinfo says of "a..b"
        raise ServeError(f"{host!r} is no name of a machine; give another address to {flag}") from error
    except OSError as error:
        if listener is not None:
            listener.close()
        failure = PortTakenError if error.errno == errno.EADDRINUSE else ServeError
        raise failure(
            f"{host}:{port} cannot be served at ({error.strerror}); give another address to {flag}"
        ) from error
    return listener
