"""The server of the page: HTTP for its files, a WebSocket for pictures, events and commands."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from refavs_rt.controls import Controls
from refavs_rt.render import Overlay
from refavs_rt.stream import Result

from .access import Access
from .address import DEFAULT_PORT, ServeError, is_loopback
from .painter import Painter, Shown
from .viewers import MOST_VIEWERS, Viewer, Viewers

_FILES = Path(__file__).resolve().parent.parent / "assets" / "page"
_LONGEST_MESSAGE = 1 << 16
_LONGEST_TEXT = 1_000
_COMMAND_PATIENCE_S = 10.0
_TRY_AGAIN_LATER = 1013


class Page:
    """Serves from when it is made until it is closed, in a thread of its own.

    Args:
        controls: of the session that is shown.
        overlay: for pictures of the source's size.
        threshold: presence from which on a sentence counts as present.
        host, port: where to listen; port 0 takes a free one.
        token: that viewers must know. An address that others reach needs one.

    Raises:
        ServeError: the address cannot be listened on, or needs a token.
    """

    def __init__(
        self,
        controls: Controls,
        overlay: Overlay,
        threshold: float,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
    ) -> None:
        if token is None and not is_loopback(host):
            raise ServeError(
                f"{host} is reached from other machines, and whoever opens the page sees the camera: give a --token, "
                f"for example --token {secrets.token_urlsafe(12)}"
            )
        self._controls = controls
        self._token = token
        self._viewers = Viewers()
        self._socket = _listen(host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        application = Starlette(
            routes=[
                Route("/", _index),
                WebSocketRoute("/stream", self._serve_viewer),
                Mount("/page", StaticFiles(directory=_FILES)),
            ]
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                Access(application, host, token),
                log_level="error",
                access_log=False,
                lifespan="off",
                ws_max_size=_LONGEST_MESSAGE,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="refavs-page", daemon=True)
        self._thread.start()
        self._started.wait()
        self._painter = Painter(overlay, threshold, self._send, lambda: len(self._viewers) > 0)

    @property
    def url(self) -> str:
        """What to open, with the token if there is one."""
        host, port = self._socket.getsockname()[:2]
        host = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/" + (f"?token={self._token}" if self._token else "")

    def show(self, result: Result, dropped: int) -> None:
        """A result of the session, from its own thread; takes no time."""
        self._painter.show(Shown(result, self._controls.sentences, dropped))

    def tell(self, when_s: float, text: str) -> None:
        """Something happened to the source."""
        self._soon(self._viewers.tell, {"at_s": round(when_s, 1), "text": text})

    def close(self) -> None:
        self._painter.close()
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(5.0)
        self._socket.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._server.serve(sockets=[self._socket])

    def _soon(self, function: Any, *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended: nobody is left to see it
            return

    def _send(self, header: dict[str, Any], jpeg: bytes) -> None:
        header["paused"] = self._controls.is_paused
        self._soon(self._viewers.show, header, jpeg)

    async def _serve_viewer(self, socket: WebSocket) -> None:
        await socket.accept()
        if len(self._viewers) >= MOST_VIEWERS:
            await socket.close(_TRY_AGAIN_LATER, f"{MOST_VIEWERS} people watch already")
            return
        viewer = Viewer()
        self._viewers.enter(viewer)
        sending = asyncio.create_task(viewer.send_to(socket))
        try:
            while True:
                viewer.tell(json.dumps(await self._answer(await socket.receive_text())))
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes, where text is spoken
            return
        finally:
            self._viewers.leave(viewer)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _answer(self, message: str) -> dict[str, Any]:
        number: object = None
        try:
            command = json.loads(message)
            if not isinstance(command, dict):
                raise ValueError("a command is an object")
            number = command.get("id")
            future = self._command(command)
            # A thread waits, so that a stream that takes no commands holds up no other viewer.
            await run_in_threadpool(future.result, _COMMAND_PATIENCE_S)
        except FutureTimeoutError:
            return {"reply": number, "error": "the stream takes no commands now; try again when it is back"}
        except (ValueError, TypeError, RuntimeError) as error:
            return {"reply": number, "error": str(error)}
        return {"reply": number}

    def _command(self, command: Mapping[str, Any]) -> Future[Any]:
        """{"do": "add", "text"}, {"do": "change", "key", "text"}, {"do": "rename", "key", "label"}, {"do": "remove", "key"} or
        {"do": "pause", "paused"}, each with an "id" that its reply bears."""
        match command.get("do"):
            case "add":
                return self._controls.add(_text(command, "text"))
            case "change":
                return self._controls.change(_key(command), _text(command, "text"))
            case "rename":
                return self._controls.rename(_key(command), _text(command, "label"))
            case "remove":
                return self._controls.remove(_key(command))
            case "pause":
                return self._controls.pause(command.get("paused") is True)
            case other:
                raise ValueError(f"there is no command {other!r}")


async def _index(request: Any) -> FileResponse:
    return FileResponse(_FILES / "index.html")


def _text(command: Mapping[str, Any], name: str) -> str:
    text = command.get(name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a sentence must not be empty")
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a sentence of {len(text)} characters is too long; {_LONGEST_TEXT} at most")
    return text.strip()


def _key(command: Mapping[str, Any]) -> int:
    key = command.get("key")
    if not isinstance(key, int):
        raise ValueError("name a sentence by its key")
    return key


def _listen(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2 * MOST_VIEWERS)  # at once, so that who comes before the loop runs is not refused
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ServeError(
            f"{host}:{port} cannot be served at ({error.strerror}); give another address to --serve"
        ) from error
    return listener
