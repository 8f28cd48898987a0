"""Metrics for Prometheus: at /metrics of the page, or of a server of their own."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .server import Server

PATH = "/metrics"
DEFAULT_PORT = 9464
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_route(text: Callable[[], bytes]) -> Route:
    """PATH answers with what `text` gives, the exposition format 0.0.4."""

    async def answer(request: Request) -> Response:
        return Response(text(), headers={"content-type": _CONTENT_TYPE})

    return Route(PATH, answer)


class MetricsServer:
    """Serves metrics alone, under the rules of the page, from when it is made until it is closed.

    Raises:
        ServeError: the address cannot be listened on, or needs a token.
    """

    def __init__(self, text: Callable[[], bytes], *, host: str, port: int, token: str | None = None) -> None:
        application = Starlette(routes=[metrics_route(text)])
        self._server = Server(application, host, port, token, name="metrics", flag="--metrics")

    @property
    def url(self) -> str:
        """What to scrape, without the token."""
        return self._server.url(PATH).partition("?")[0]

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
