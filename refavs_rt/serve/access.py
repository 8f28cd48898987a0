"""Who may watch: this machine by default, else those who know the token; and never another web page.

A browser sends to a page's server whatever another page tells it to. So requests must name this server as their host (a name that
somebody else's DNS points here is another), and a WebSocket must come from a page of this server's own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from .address import is_loopback

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
POLICY_VIOLATION = 1008
"""A WebSocket's code for what it may not do."""


class Access:
    """Checks every request before anything else sees it.

    Args:
        app: what is guarded.
        host, port: that are listened on.
        token: that must be known; None only for loopback.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None) -> None:
        self._app = app
        self._host = host
        self._token = token
        # Browsers send a cookie to all ports of a host: each page has its own, and none bears the token itself.
        self._cookie = f"refavs_rt_{port}"
        self._pass = hashlib.sha256(token.encode()).hexdigest() if token is not None else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if self._why_not(scope) or not self._is_own_page(scope) or not self._knows_token(scope):
                await WebSocket(scope, receive, send).close(POLICY_VIOLATION)
                return
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = self._answer(scope)
        if response is not None:
            response.headers.update(_HEADERS)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _answer(self, scope: Scope) -> Response | None:
        """What is said instead of the page; None where it may be seen."""
        if why := self._why_not(scope):
            return PlainTextResponse(why, status_code=421)
        given = HTTPConnection(scope).query_params.get("token")
        if self._token is not None and given is not None and _equal(given, self._token):
            # Out of the address bar, so that it is in no screenshot and no history.
            response = RedirectResponse(scope["path"], status_code=303)
            response.set_cookie(self._cookie, self._pass, httponly=True, samesite="strict")
            return response
        if not self._knows_token(scope):
            return PlainTextResponse(
                "This page needs its token: open it as http://HOST:PORT/?token=TOKEN, as the terminal shows it.\n",
                403,
            )
        return None

    def _why_not(self, scope: Scope) -> str | None:
        """Of a host that is none of this server's names."""
        host = _host_name(Headers(scope=scope).get("host", ""))
        if is_loopback(self._host):
            known = host in _LOOPBACK_NAMES or host == self._host
        else:  # any address of this machine, or a name that people gave it; the token keeps the rest out
            known = bool(host)
        return None if known else f"'{host}' is not this server; open it as http://localhost\n"

    def _is_own_page(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        return origin in {f"http://{headers.get('host')}", f"https://{headers.get('host')}"}

    def _knows_token(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        # Programs that read metrics send it so; a browser never does by itself.
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(given, self._token):
            return True
        cookies: Mapping[str, str] = HTTPConnection(scope).cookies
        return _equal(cookies.get(self._cookie, ""), self._pass)


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _host_name(host: str) -> str:
    """Without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _with_headers(send: Send) -> Send:
    async def sending(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            assert isinstance(headers, list)
            headers += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        await send(message)

    return sending  # type: ignore[return-value]
