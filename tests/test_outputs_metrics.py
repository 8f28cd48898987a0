"""Metrics as Prometheus reads them: prometheus_client's own parser is the oracle."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from refavs_rt.controls import Controls
from refavs_rt.outputs.metrics import MetricsOutput
from refavs_rt.render import Overlay
from refavs_rt.serve.address import ServeError
from refavs_rt.serve.metrics import MetricsServer
from refavs_rt.serve.page import Page
from refavs_rt.session import load

from .test_page import watch
from .tiny_bundle import write_tiny_bundle

ROOT = Path(__file__).resolve().parents[1]
COUNTERS = {"dropped": 7, "late": 3, "corrupt": 2, "reconnects": 1, "decoded": 100}


def metrics(**options: Any) -> MetricsOutput:
    facts: Any = SimpleNamespace(source=SimpleNamespace(counters=COUNTERS))
    return MetricsOutput(facts, **options)


def result(*presence: float, latency_ms: float = 40.0) -> Any:
    texts = tuple(f"a {i}th secret sentence" for i in range(len(presence)))
    return SimpleNamespace(presence=np.array(presence, np.float32), texts=texts, latency_ms=latency_ms)


def samples(text: str) -> dict[str, float]:
    """`name{label="value"}` -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def get(url: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def test_what_is_counted() -> None:
    output = metrics(
        viewers=lambda: 4, push=SimpleNamespace(counters={"sent": 11, "dropped": 5, "reconnects": 2})
    )
    for latency_ms in (12.0, 40.0, 40.0, 7_000.0):
        output.write(result(0.25, 0.5, latency_ms=latency_ms))
    found = samples(output.text().decode())
    assert found["refavs_frames_total"] == 4
    assert found["refavs_dropped_frames_total"] == 7 and found["refavs_late_frames_total"] == 3
    assert found["refavs_corrupt_frames_total"] == 2 and found["refavs_reconnects_total"] == 1
    assert found["refavs_latency_seconds_count"] == 4
    assert found["refavs_latency_seconds_sum"] == pytest.approx(7.092)
    buckets = {
        float(bound): found[f'refavs_latency_seconds_bucket{{le="{bound}"}}']
        for bound in re.findall(r'_bucket{le="([^"]+)"}', output.text().decode())
    }
    assert (buckets[0.01], buckets[0.02], buckets[0.05], buckets[5.0], buckets[float("inf")]) == (
        0,
        1,
        3,
        3,
        4,
    )
    assert found['refavs_presence{sentence="0"}'] == 0.25 and found['refavs_presence{sentence="1"}'] == 0.5
    assert found["refavs_viewers"] == 4
    assert found["refavs_push_frames_total"] == 11 and found["refavs_push_dropped_frames_total"] == 5
    assert found["refavs_push_reconnects_total"] == 2
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * page_bytes
    assert found["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)


def test_sentences_are_told_apart_by_their_place_alone() -> None:
    output = metrics()
    output.write(result(*np.linspace(0, 1, 64)))
    assert "secret" not in output.text().decode()
    output.write(result(0.5))
    series = [name for name in samples(output.text().decode()) if name.startswith("refavs_presence")]
    assert series == ['refavs_presence{sentence="0"}'], "those that are gone are not told of"
    assert not any("push" in name for name in samples(output.text().decode()))


def test_a_server_of_its_own() -> None:
    output = metrics()
    output.write(result(0.5))
    with MetricsServer(output.text, host="127.0.0.1", port=0) as server:
        status, headers, body = get(server.url)
        assert status == 200 and samples(body)["refavs_frames_total"] == 1
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert body.startswith("# HELP ") and "\n# TYPE refavs_latency_seconds histogram\n" in body
        assert get(server.url.replace("/metrics", "/"))[0] == 404
        assert get(server.url, Host="evil.example")[0] == 421
        port = urlsplit(server.url).port
        with pytest.raises(ServeError, match=rf"127.0.0.1:{port} cannot be served at .*--metrics"):
            MetricsServer(output.text, host="127.0.0.1", port=int(port or 0))


def test_an_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(ServeError, match=r"0\.0\.0\.0 is reached from other machines.*--token"):
        MetricsServer(metrics().text, host="0.0.0.0", port=0)
    with MetricsServer(metrics().text, host="0.0.0.0", port=0, token="s3cret") as server:
        port = urlsplit(server.url).port
        url = f"http://127.0.0.1:{port}/metrics"
        assert "s3cret" not in server.url
        for given in ("", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret"):
            assert get(url, Authorization=given)[0] == 403
        status, _, body = get(url, Authorization="Bearer s3cret")
        assert status == 200 and samples(body)["refavs_frames_total"] == 0


def test_the_page_has_them_too(tmp_path: Path) -> None:
    model = load(write_tiny_bundle(tmp_path / "tiny").path)
    pages: list[Page] = []
    output = metrics(viewers=lambda: sum(page.viewers for page in pages))
    with Page(Controls(model.session()), Overlay(90, 160, 0.5), 0.5, port=0, metrics=output.text) as page:
        pages.append(page)
        url = page.url + "metrics"
        assert samples(get(url)[2])["refavs_viewers"] == 0
        with watch(page) as viewer:
            viewer.recv(timeout=20)
            assert samples(get(url)[2])["refavs_viewers"] == 1
        assert get(url, Host="evil.example")[0] == 421
    with Page(
        Controls(model.session()), Overlay(90, 160, 0.5), 0.5, port=0, token="s3cret", metrics=output.text
    ) as page:
        url = page.url.partition("?")[0] + "metrics"
        assert get(url)[0] == 403 and get(url, Authorization="Bearer s3cret")[0] == 200


@pytest.mark.media
def test_the_command_answers_while_it_runs(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    words = [
        "--camera",
        "lavfi:testsrc2=size=160x90:rate=25[out0];sine=440[out1]",
        "--text",
        "a dog",
        "--threads",
        "1",
    ]
    words += ["--bundle", str(bundle.path), "--jsonl", str(tmp_path / "a.jsonl"), "--metrics", "127.0.0.1:0"]
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            lines = iter(run.stdout.readline, "")
            url = next(line for line in lines if line.startswith("metrics at ")).split()[-1]
            until = time.monotonic() + 60
            while (found := samples(get(url)[2]))["refavs_frames_total"] < 5:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert found["refavs_latency_seconds_count"] >= 5 and 'refavs_presence{sentence="0"}' in found
            assert found["process_resident_memory_bytes"] > 1e7
        finally:
            run.terminate()
            run.communicate(timeout=60)
    assert run.returncode == 143
