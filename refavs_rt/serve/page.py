"""The server of the page: HTTP for its files, a WebSocket for pictures, events and commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from refavs_rt.controls import Controls
from refavs_rt.render import Overlay
from refavs_rt.result import Result

from .address import DEFAULT_PORT
from .metrics import metrics_route
from .painter import Painter, Shown, describe
from .server import Server
from .viewers import MOST_VIEWERS, Viewer, Viewers

_FILES = Path(__file__).resolve().parent.parent / "assets" / "page"
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
        metrics: what /metrics says, in Prometheus' text format; None: there is no such page.

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
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        self.controls = controls
        """Of the session that is shown."""
        self._viewers = Viewers()
        self._last_s = 0.0
        routes: list[BaseRoute] = [
            Route("/", _index),
            WebSocketRoute("/stream", self._serve_viewer),
            Mount("/page", StaticFiles(directory=_FILES)),
        ]
        if metrics is not None:
            routes.append(metrics_route(metrics))
        self._server = Server(Starlette(routes=routes), host, port, token, name="page", flag="--serve")
        self._painter = Painter(
            overlay,
            threshold,
            self._send,
            lambda: len(self._viewers) > 0,
            lambda what: self.tell(self._last_s, what),
        )
        self._server.soon(self._tell_state)

    @property
    def url(self) -> str:
        """What to open, with the token if there is one."""
        return self._server.url()

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def show(self, result: Result, dropped: int) -> None:
        """A result of the session, from its own thread; takes no time."""
        self._last_s = result.pts_s
        self._painter.show(Shown(result, self.controls.sentences_of(result.texts), dropped))

    def tell(self, when_s: float, text: str) -> None:
        """Something happened to the source."""
        self._server.soon(self._viewers.tell, {"at_s": round(when_s, 1), "text": text})

    def close(self) -> None:
        """Nobody is left waiting: commands are answered, connections closed, threads ended."""
        self.controls.close()
        self._painter.close()
        self._server.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, header: dict[str, Any], jpeg: bytes) -> None:
        self._server.soon(self._viewers.show, header, jpeg)

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
        sentences = [describe(sentence) for sentence in self.controls.sentences]
        self._viewers.set_state({"paused": self.controls.is_paused, "sentences": sentences})

    def _command(self, command: Mapping[str, Any]) -> Future[Any]:
        """{"do": "add", "text"}, {"do": "change", "key", "text"}, {"do": "rename", "key", "label"}, {"do": "remove", "key"} or
        {"do": "pause", "paused"}, each with an "id" that its reply bears."""
        match command.get("do"):
            case "add":
                return self.controls.add(_text(command, "text"))
            case "change":
                return self.controls.change(_key(command), _text(command, "text"))
            case "rename":
                return self.controls.rename(_key(command), _text(command, "label"))
            case "remove":
                return self.controls.remove(_key(command))
            case "pause":
                return self.controls.pause(command.get("paused") is True)
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
