"""The server of the page: HTTP for its files, a WebSocket for pictures, events and commands."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from refavs_rt.controls import Controls
from refavs_rt.render import Overlay
from refavs_rt.result import Result

from .access import Access
from .address import DEFAULT_PORT, PortTakenError, ServeError, is_loopback
from .painter import Painter, Shown, describe
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
        if token is not None and not (token.strip() and token.isascii() and token.isprintable()):
            raise ServeError(
                "the token is empty or holds more than plain characters; give --token another, as of letters and digits"
            )
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
        self._last_s = 0.0
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
        self._thread = threading.Thread(target=self._run, name="refavs-page", daemon=True)
        self._thread.start()
        self._started.wait()
        self._painter = Painter(
            overlay,
            threshold,
            self._send,
            lambda: len(self._viewers) > 0,
            lambda what: self.tell(self._last_s, what),
        )
        self._soon(self._tell_state)

    @property
    def url(self) -> str:
        """What to open, with the token if there is one."""
        host, port = self._socket.getsockname()[:2]
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/" + (f"?token={quote(self._token, safe='')}" if self._token else "")

    def show(self, result: Result, dropped: int) -> None:
        """A result of the session, from its own thread; takes no time."""
        self._last_s = result.pts_s
        self._painter.show(Shown(result, self._controls.sentences, dropped))

    def tell(self, when_s: float, text: str) -> None:
        """Something happened to the source."""
        self._soon(self._viewers.tell, {"at_s": round(when_s, 1), "text": text})

    def close(self) -> None:
        """Nobody is left waiting: commands are answered, connections closed, threads ended."""
        self._controls.close()
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
        self._soon(self._viewers.show, header, jpeg)

    async def _serve_viewer(self, socket: WebSocket) -> None:
        await socket.accept()
        if len(self._viewers) >= MOST_VIEWERS:
            await socket.close(_TRY_AGAIN_LATER, f"{MOST_VIEWERS} people watch already")
            return
        viewer = Viewer()
        self._viewers.enter(viewer)
        self._tell_state()
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
            # What is not done in time is taken back.
            await asyncio.wait_for(asyncio.wrap_future(self._command(command)), _COMMAND_PATIENCE_S)
        except asyncio.TimeoutError:
            return {"reply": number, "error": "the stream takes no commands now; try again when it is back"}
        except Exception as error:  # whatever it is, the viewer is told and stays
            return {"reply": number, "error": str(error)}
        self._tell_state()
        return {"reply": number}

    def _tell_state(self) -> None:
        """What is asked for, also while no picture comes."""
        sentences = [describe(sentence) for sentence in self._controls.sentences]
        self._viewers.set_state({"paused": self._controls.is_paused, "sentences": sentences})

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
        failure = PortTakenError if error.errno == errno.EADDRINUSE else ServeError
        raise failure(
            f"{host}:{port} cannot be served at ({error.strerror}); give another address to --serve"
        ) from error
    return listener
