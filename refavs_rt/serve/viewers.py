"""Those who watch: each gets the newest picture that it can take, and every event."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket

MOST_VIEWERS = 20
_EVENTS_KEPT = 100


class Viewer:
    """One connection. What it has not taken when the next picture comes, it does not get."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._picture: bytes | None = None
        self._texts: deque[str] = deque(maxlen=_EVENTS_KEPT)

    def show(self, picture: bytes) -> None:
        self._picture = picture
        self._changed.set()

    def tell(self, text: str) -> None:
        self._texts.append(text)
        self._changed.set()

    async def send_to(self, socket: WebSocket) -> None:
        """For as long as the connection lasts."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._texts:
                await socket.send_text(self._texts.popleft())
            picture, self._picture = self._picture, None
            if picture is not None:
                await socket.send_bytes(picture)


class Viewers:
    """All connections. Only for the thread of the server's event loop, but for `__len__`."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self._events: deque[str] = deque(maxlen=_EVENTS_KEPT)
        self._last: bytes | None = None
        self._state: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    def enter(self, viewer: Viewer) -> None:
        """A new one is told what has happened, and sees the last picture at once."""
        self._viewers.add(viewer)
        for event in self._events:
            viewer.tell(event)
        viewer.tell(json.dumps({"state": self._state}))
        if self._last is not None:
            viewer.show(self._last)

    def leave(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)

    def show(self, header: Mapping[str, Any], jpeg: bytes) -> None:
        """A picture with what is known of it: four bytes of length (little-endian), JSON, JPEG."""
        described = json.dumps(header, separators=(",", ":")).encode()
        self._last = len(described).to_bytes(4, "little") + described + jpeg
        for viewer in self._viewers:
            viewer.show(self._last)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What is asked for; told where it has changed."""
        if state == self._state:
            return
        self._state = state
        for viewer in self._viewers:
            viewer.tell(json.dumps({"state": state}))

    def tell(self, event: Mapping[str, Any]) -> None:
        text = json.dumps({"event": event}, separators=(",", ":"))
        self._events.append(text)
        for viewer in self._viewers:
            viewer.tell(text)
