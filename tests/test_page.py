"""The page's server, spoken to as a browser would, and as others try."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from refavs_rt import cli
from refavs_rt.bundle import BundleError
from refavs_rt.config import RunConfig
from refavs_rt.controls import Controls
from refavs_rt.ingest import open_source
from refavs_rt.render import Overlay
from refavs_rt.serve.address import ServeError, parse_address
from refavs_rt.serve.page import Page
from refavs_rt.serve.painter import Painter, Shown, level_db
from refavs_rt.serve.viewers import MOST_VIEWERS
from refavs_rt.session import Model, load
from refavs_rt.stream import run_session

from .tiny_bundle import write_tiny_bundle

CAMERA = "lavfi:testsrc2=size=160x90:rate=25[out0];sine=440[out1]"
MOST_ON_THE_WAY = 4_500_000
"""Bytes of pictures on their way to somebody who does not read: in the system's buffers, the server's and the client's."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path, run=RunConfig(threads=1))


@contextlib.contextmanager
def running(model: Model, camera: str = CAMERA, **options: Any) -> Iterator[Page]:
    """A page on endless test pictures, as fast as they are shown."""
    session = model.session(["a dog", "a cat"])
    controls = Controls(session)
    source = open_source(camera, model.config.image_size)
    overlay = Overlay(source.height, source.width, 0.5)
    with Page(controls, overlay, 0.5, port=0, **options) as page:
        page.tell(0.5, "lost: the camera")

        def run() -> None:
            for result in run_session(session, source, controls=controls):
                page.show(result, 7)
                time.sleep(0.01)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield page
        finally:
            source.close()
            page.close()  # ends a pause too: what is asked for then is refused
            thread.join()


@pytest.fixture(scope="module")
def page(model: Model) -> Iterator[Page]:
    with running(model) as page:
        yield page


def place(page: Page) -> str:
    return urlsplit(page.url).netloc


def get(page: Page, path: str = "/", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body."""
    parts = urlsplit(page.url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def watch(page: Page, origin: str | None = "own", **headers: str) -> ClientConnection:
    own = f"http://{place(page)}"
    return connect(
        f"ws://{place(page)}/stream",
        origin=own if origin == "own" else origin,
        additional_headers=headers,
        max_size=None,
        max_queue=1,  # pictures that nobody has asked for stay on the way
        open_timeout=20,
    )


def picture(socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool] = lambda header: True) -> Any:
    """The next header and JPEG that is as wanted."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        data = socket.recv(timeout=20)
        if isinstance(data, bytes):
            length = int.from_bytes(data[:4], "little")
            header = json.loads(data[4 : 4 + length])
            if wanted(header):
                return header, data[4 + length :]
    raise AssertionError("no such picture")


def numbered(index: int) -> Callable[[dict[str, Any]], bool]:
    return lambda header: header["index"] == index


def ask(socket: ClientConnection, **command: Any) -> str | None:
    """What is wrong, or None."""
    socket.send(json.dumps({"id": 5, **command}))
    until = time.monotonic() + 20
    while time.monotonic() < until:
        data = socket.recv(timeout=20)
        if isinstance(data, str) and json.loads(data).get("reply") == 5:
            return json.loads(data).get("error")
    raise AssertionError("no reply")


def state(socket: ClientConnection) -> dict[str, Any]:
    """The next that is told."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        data = socket.recv(timeout=20)
        if isinstance(data, str) and "state" in json.loads(data):
            return dict(json.loads(data)["state"])
    raise AssertionError("no state")


def texts(header: dict[str, Any]) -> list[str]:
    return [sentence["text"] for sentence in header["sentences"]]


def test_the_page_and_its_files_are_there(page: Page) -> None:
    status, headers, body = get(page)
    assert status == 200 and b"What to look and listen for" in body
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    for name in ("page.js", "page.css", "icon.svg"):
        assert get(page, f"/page/{name}")[0] == 200
    assert get(page, "/page/../../session.py")[0] == 404
    assert get(page, "/page/%2e%2e/%2e%2e/session.py")[0] == 404


def test_a_viewer_gets_pictures_with_their_figures(page: Page) -> None:
    with watch(page) as socket:
        assert json.loads(socket.recv(timeout=20)) == {"event": {"at_s": 0.5, "text": "lost: the camera"}}
        state = json.loads(socket.recv(timeout=20))["state"]
        assert [sentence["text"] for sentence in state["sentences"]] == ["a dog", "a cat"] and not state[
            "paused"
        ]
        header, jpeg = picture(socket)
        later, _ = picture(socket)
    assert Image.open(io.BytesIO(jpeg)).size == (160, 90)
    assert texts(header) == ["a dog", "a cat"] and header["dropped"] == 7
    assert -30 < header["level_db"] < -10 and header["latency_ms"] > 0 and header["fps"] > 0
    assert [s["colour"] for s in header["sentences"]] == ["#d55e00", "#56b4e9"]
    assert later["index"] > header["index"]


def test_sentences_change_while_it_runs(model: Model) -> None:
    with running(model) as page, watch(page) as socket:
        assert ask(socket, do="add", text=" a bell ") is None
        picture(socket, lambda h: texts(h) == ["a dog", "a cat", "a bell"])
        assert ask(socket, do="change", key=1, text="a fox") is None
        assert ask(socket, do="rename", key=2, label="Tom") is None
        assert ask(socket, do="remove", key=3) is None
        header, _ = picture(socket, lambda h: texts(h) == ["a fox", "a cat"])
        assert [s["label"] for s in header["sentences"]] == ["a fox", "Tom"]
        for wrong, message in [
            ({"do": "add", "text": "  "}, "must not be empty"),
            ({"do": "add", "text": "x" * 1001}, "1001 characters is too long"),
            ({"do": "remove", "key": 99}, "has been removed"),
            ({"do": "remove"}, "by its key"),
            ({"do": "fly"}, "no command 'fly'"),
        ]:
            assert message in ask(socket, **wrong)
        socket.send("[1, 2")
        socket.send("[]")
        assert ask(socket, do="remove", key=1) is None, "nonsense ends nothing"


def test_a_pause_holds_everything(model: Model) -> None:
    with running(model) as page, watch(page) as socket:
        picture(socket)
        assert ask(socket, do="pause", paused=True) is None
        time.sleep(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                socket.recv(timeout=0)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.5)
        # Who comes now, or changes something, is told how things are though no picture comes.
        with watch(page) as late:
            assert state(late)["paused"]
            assert ask(socket, do="rename", key=1, label="Rex") is None
            assert [s["label"] for s in state(late)["sentences"]] == ["Rex", "a cat"]
        assert ask(socket, do="pause", paused=False) is None
        picture(socket)


def test_what_is_not_done_in_time_is_not_done_later(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refavs_rt.serve.page._COMMAND_PATIENCE_S", 0.3)
    controls = Controls(model.session(["a dog"]))
    with Page(controls, Overlay(90, 160, 0.5), 0.5, port=0) as page, watch(page) as socket:
        assert "takes no commands now" in ask(socket, do="add", text="a bell")  # nobody calls apply
        controls.apply()
        assert [sentence.text for sentence in controls.sentences] == ["a dog"]


def test_who_waits_is_answered_at_the_end(model: Model) -> None:
    controls = Controls(model.session(["a dog"]))
    with Page(controls, Overlay(90, 160, 0.5), 0.5, port=0):
        waiting = controls.add("a bell")
    with pytest.raises(ValueError, match="the stream has ended"):
        waiting.result(0)
    with pytest.raises(ValueError, match="the stream has ended"):
        controls.remove(1).result(0)


def test_a_failure_of_the_model_is_the_viewers_to_read(model: Model) -> None:
    controls = Controls(model.session(["a dog"]))

    def broken(text: str) -> Any:
        future: Future[Any] = Future()
        future.set_exception(BundleError("the text graph fails"))
        return future

    controls.add = broken  # type: ignore[method-assign]
    with Page(controls, Overlay(90, 160, 0.5), 0.5, port=0) as page, watch(page) as socket:
        assert ask(socket, do="add", text="a bell") == "the text graph fails"
        assert ask(socket, do="fly") == "there is no command 'fly'"


def result(image: np.ndarray[Any, Any], index: int) -> Any:
    """Of a session without sentences and sound."""
    return SimpleNamespace(
        index=index,
        pts_s=0.0,
        latency_ms=1.0,
        image=image,
        texts=(),
        masks=np.zeros((0, *image.shape[:2]), bool),
        presence=np.zeros(0, np.float32),
        frame=SimpleNamespace(samples=None),
    )


def test_a_picture_that_cannot_be_shown_is_told_and_the_next_one_is() -> None:
    told: list[str] = []
    sent: list[dict[str, Any]] = []
    painter = Painter(
        Overlay(16, 17_000, 0.5), 0.5, lambda header, jpeg: sent.append(header), lambda: True, told.append
    )

    for width in (17_000, 17_000, 160):
        painter.show(Shown(result(np.zeros((16, width, 3), np.uint8), width), (), 0))
        until = time.monotonic() + 10
        while not (sent if width == 160 else told) and time.monotonic() < until:
            time.sleep(0.01)
    painter.close()
    assert [header["index"] for header in sent] == [160]
    (message,) = told
    assert message.startswith("a picture cannot be shown: a picture of 17000 x 16")


def test_twenty_watch_and_one_that_is_slow_costs_nothing(model: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (960, 1280, 3), np.uint8)  # large as JPEG
    controls, overlay = Controls(model.session()), Overlay(960, 1280, 0.5)
    with Page(controls, overlay, 0.5, port=0) as page, contextlib.ExitStack() as sockets:
        slow = sockets.enter_context(watch(page))  # never reads
        watchers = [sockets.enter_context(watch(page)) for _ in range(MOST_VIEWERS - 1)]
        index = seen = 0
        while seen < 3 * MOST_ON_THE_WAY:
            index += 1
            page.show(result(noise, index), 0)
            seen += len(picture(watchers[0], numbered(index))[1])
        for socket in watchers[1:]:
            picture(socket, numbered(index))
        with watch(page) as late, pytest.raises(ConnectionClosed, match="20 people watch already"):
            late.recv(timeout=20)
        slow.close()
        watchers[0].close()
        until_s = time.monotonic() + 10
        while True:  # somebody else may take the place
            with watch(page) as late, contextlib.suppress(ConnectionClosed):
                picture(late)
                break
            assert time.monotonic() < until_s


def test_closing_is_quick_and_leaves_no_thread(model: Model) -> None:
    def named() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("refavs-page")]

    before = len(named())
    with running(model) as page, watch(page) as socket:
        picture(socket)
        began = time.monotonic()
        page.close()
        assert time.monotonic() - began < 4.0
        assert len(named()) == before


# Who may not


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil"]
)
def test_another_name_is_not_answered(page: Page, host: str) -> None:
    """A name of somebody else's that points to this machine makes a browser believe that it is theirs."""
    status, _, body = get(page, Host=host)
    assert status in (400, 421) and b"What to look" not in body


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost", "null", None])
def test_another_page_may_not_watch(page: Page, origin: str | None) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)), watch(page, origin=origin) as socket:
        picture(socket)


def test_an_address_that_others_reach_needs_a_token(model: Model) -> None:
    with pytest.raises(ServeError, match=r"0\.0\.0\.0 is reached from other machines.*--token"):
        Page(Controls(model.session()), Overlay(90, 160, 0.5), 0.5, host="0.0.0.0", port=0)


@pytest.mark.parametrize("token", ["", "  ", "schlüssel", "a\nb"])
def test_a_token_that_is_none_is_refused(model: Model, token: str) -> None:
    """As of --token "$TOKEN" with nothing in it: everybody would know it."""
    with pytest.raises(ServeError, match="token is empty or holds more than plain characters"):
        Page(Controls(model.session()), Overlay(90, 160, 0.5), 0.5, host="0.0.0.0", port=0, token=token)


def test_a_token_is_asked_for(model: Model) -> None:
    with running(model, token="s3c+r/e&t") as page:
        assert page.url.endswith("/?token=s3c%2Br%2Fe%26t")
        for path in ("/", "/?token=wrong", "/page/page.js", "/?token="):
            assert get(page, path)[0] == 403
        with pytest.raises((InvalidStatus, ConnectionClosed)), watch(page) as socket:
            picture(socket)
        status, headers, _ = get(page, "/?token=s3c%2Br%2Fe%26t")
        assert status == 303 and headers["location"] == "/"
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert "s3c" not in cookie and str(urlsplit(page.url).port) in cookie
        pair = cookie.split(";")[0]
        assert get(page, Cookie=pair)[0] == 200
        with watch(page, Cookie=pair) as socket:
            picture(socket)
        with (
            pytest.raises((InvalidStatus, ConnectionClosed)),
            watch(page, "http://evil.example", Cookie=pair) as socket,
        ):
            picture(socket)


def test_a_port_that_is_taken_is_told(page: Page, model: Model) -> None:
    port = urlsplit(page.url).port
    with pytest.raises(ServeError, match=f"127.0.0.1:{port} cannot be served at .*in use"):
        Page(Controls(model.session()), Overlay(90, 160, 0.5), 0.5, port=port)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 8765)),
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("0.0.0.0", ("0.0.0.0", 8765)),
        ("camera.local:80", ("camera.local", 80)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 8765)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["host:port", "host:99999", "host:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ServeError, match="give HOST:PORT"):
        parse_address(text)


def test_the_meter() -> None:
    t = np.arange(15_600) / 16_000
    assert level_db(np.float32(0.1 * np.sin(2 * np.pi * 440 * t))) == pytest.approx(-23.0, abs=0.1)
    assert level_db(np.zeros(15_600, np.float32)) == -60.0
    assert level_db(None) is None


def test_a_port_that_is_taken_makes_no_page_without_its_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("refavs_rt.serve.address.DEFAULT_PORT", taken.getsockname()[1])
        arguments = [
            "stream",
            "--camera",
            CAMERA,
            "--text",
            "the dog",
            "--max-frames",
            "2",
            "--token",
            "s3cret",
        ]
        assert cli.main(arguments) == 0
    said = capsys.readouterr()
    assert "is taken" in said.err and "?token=s3cret" in said.out


def test_a_camera_without_another_output_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULSE_SERVER", raising=False)
    arguments = ["stream", "--camera", CAMERA, "--text", "the dog", "--max-frames", "3"]
    assert cli.main(arguments) == 0
    assert "watch it at http://localhost:" in capsys.readouterr().out
    assert cli.main([*arguments, "--jsonl", str(tmp_path / "a.jsonl")]) == 0
    assert "watch it at" not in capsys.readouterr().out
    assert cli.main([*arguments, "--serve", "0.0.0.0:0"]) == 1
    assert "give a --token" in capsys.readouterr().err
