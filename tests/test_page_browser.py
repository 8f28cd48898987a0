"""The page in a real Chromium: a sentence is typed and its mask appears, another and it moves; the source goes and comes back."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from refavs_rt.demo import DEMO, Demo

from .live_sources import needs
from .processes import free_port, running

pytestmark = [pytest.mark.media, needs("chromium"), needs("chromedriver")]
FLAGS: tuple[str, ...] = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
)
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")
WARMTH = """
const canvas = document.getElementById("picture");
const [x, y, w, h] = [...arguments].map((share, i) => Math.round(share * (i % 2 ? canvas.height : canvas.width)));
const data = canvas.getContext("2d").getImageData(x, y, w, h).data;
let sum = 0;
for (let i = 0; i < data.length; i += 4) sum += data[i] - data[i + 2];
return sum / (data.length / 4);
"""
"""Red minus blue, on average over a part of the picture: the first sentence's colour is orange."""
KOALA, AVOCADO = (0.12, 0.3, 0.2, 0.4), (0.58, 0.52, 0.26, 0.28)


@contextlib.contextmanager
def browser(folder: Path, width: int, height: int) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def camera(port: int) -> Iterator[None]:
    """The demo clip, again and again, as a live stream of one viewer."""
    clip = Demo.read(DEMO).clip
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip)]
    command += ["-c:v", "mpeg2video", "-q:v", "3", "-g", "5", "-c:a", "mp2"]
    command += ["-f", "mpegts", "-flush_packets", "1", f"tcp://127.0.0.1:{port}?listen=1"]
    with running(command):
        yield


@contextlib.contextmanager
def stream(port: int) -> Iterator[str]:
    """`refavs-rt stream` on it, as soon as it listens; gives the page's address."""
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--camera", f"tcp://127.0.0.1:{port}"]
    command += ["--bundle", "edge", "--text", "the silent object", "--serve", ":0"]
    until = time.monotonic() + 60
    while True:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = iter(child.stdout.readline, "")
        url = next((found[0] for line in lines if (found := re.search(r"http://\S+", line))), None)
        if url:
            break
        child.wait()
        assert time.monotonic() < until, "the stream does not start"
    try:
        yield url
    finally:
        child.terminate()
        child.communicate(timeout=30)
        assert child.returncode == 143


def wait(what: str, is_so: Callable[[], Any], limit_s: float = 40.0) -> None:
    until = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_a_sentence_is_typed_and_the_source_is_cut(tmp_path: Path) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        cut = stack.enter_context(contextlib.ExitStack())
        cut.enter_context(camera(port))
        url = stack.enter_context(stream(port))
        driver = stack.enter_context(browser(tmp_path / "wide", 1280, 800))
        driver.get(url)

        def text_of(name: str) -> str:
            return driver.find_element(By.ID, name).text

        def warmth(part: tuple[float, ...]) -> float:
            return float(driver.execute_script(WARMTH, *part))

        def rows() -> list[str]:
            labels = (
                "return [...document.querySelectorAll('.sentence .label')].map((label) => label.textContent)"
            )
            return list(driver.execute_script(labels))

        wait("no picture", lambda: text_of("state") == "live")
        assert rows() == ["the silent object"]
        assert re.fullmatch(r"\d+ ms", text_of("latency")) and re.fullmatch(r"-\d+ dB", text_of("meter-name"))

        # The mask lies on the avocado; another sentence, and it is on the koala.
        wait("the avocado is not found", lambda: warmth(AVOCADO) > 0)
        koala, avocado = warmth(KOALA), warmth(AVOCADO)
        driver.find_element(By.CSS_SELECTOR, "[data-do=change]").click()
        field = driver.find_element(By.CSS_SELECTOR, ".sentence input")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys("the sounding object", Keys.ENTER)
        wait("the sentence did not change", lambda: rows() == ["the sounding object"])
        wait("the mask did not move", lambda: warmth(KOALA) > koala + 15 and warmth(AVOCADO) < avocado - 15)

        field = driver.find_element(By.ID, "text")
        field.send_keys("the avocado", Keys.ENTER)
        wait("no second sentence", lambda: rows() == ["the sounding object", "the avocado"])
        driver.find_elements(By.CSS_SELECTOR, "[data-do=remove]")[1].click()
        wait("it was not removed", lambda: rows() == ["the sounding object"])

        driver.find_element(By.ID, "pause").click()
        wait("no pause", lambda: text_of("state") == "paused")
        driver.find_element(By.ID, "pause").click()
        wait("it does not go on", lambda: text_of("state") == "live")

        cut.close()
        wait("the loss is not told", lambda: "lost" in text_of("log"))
        wait("it is shown as live", lambda: text_of("state") == "no picture comes")
        stack.enter_context(camera(port))
        wait("it does not come back", lambda: text_of("state") == "live" and "back" in text_of("log"))

        driver.set_window_size(400, 850)
        wait(
            "it is wider than a phone",
            lambda: driver.execute_script("return document.body.scrollWidth") <= 400,
        )
        errors = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
        assert errors == []
