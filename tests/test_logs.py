"""What the commands say: as text, as JSON, with -v, on a terminal; and the exit codes."""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from refavs_rt import cli, exit_codes, logs
from refavs_rt.bundle import Bundle, embedded_bundle
from refavs_rt.cli import main

from .test_stream import make_clip

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("refavs_rt.of_tests")
EDGE = Bundle.open(embedded_bundle())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("logs") / "clip.mp4")


CAMERA = [sys.executable, "-m", "refavs_rt.cli", "stream", "--bundle", "edge", "--text", "a dog"]
CAMERA += ["--camera", "lavfi:testsrc2=size=64x64:rate=25"]
"""A command on a camera without sound."""


def arguments(clip: Path, *more: str | Path) -> list[str]:
    words = ["stream", "--source", str(clip), "--bundle", "edge", "--threads", "1"]
    return [*words, "--text", "a dog", *map(str, more)]


def objects(text: str) -> list[dict[str, Any]]:
    """Every line of stderr; fails where one is no object with what all have."""
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        assert list(row)[:4] == ["time", "level", "logger", "message"]
        when = datetime.datetime.fromisoformat(row["time"].replace("Z", "+00:00"))
        age = datetime.datetime.now(datetime.timezone.utc) - when
        assert row["time"].endswith("Z") and datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
        assert row["logger"].startswith("refavs_rt.")
    return rows


# One record


def test_text_is_what_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.to_stderr():
        logs.result(LOG, "100 % done")
        logs.note(LOG, "a note")
        logs.event(LOG, 12.345, "lost: the camera")
        logs.progress(LOG, "frame 1")
        LOG.warning("%s is odd", "it")
        LOG.error("it fails")
        LOG.info("not asked for")
    said = capsys.readouterr()
    assert said.out == "100 % done\n"
    assert (
        said.err == "note: a note\n12.3 s: lost: the camera\nframe 1\nwarning: it is odd\nerror: it fails\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_said_on_a_terminal_takes_the_place_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results stand on lines of their own, also where stdout is the same terminal."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    with logs.to_stderr():
        LOG.warning("before")
        logs.progress(LOG, "frame 1")
        logs.progress(LOG, "frame 2")
        LOG.warning("odd")
        LOG.warning("odder")
        logs.progress(LOG, "frame 3")
        logs.result(LOG, "done")
        logs.progress(LOG, "frame 4")
    assert terminal.getvalue() == (
        "warning: before\n"
        "\rframe 1\x1b[K\rframe 2\x1b[K\rwarning: odd\x1b[K\nwarning: odder\n"
        "\rframe 3\x1b[K\ndone\n"
        "\rframe 4\x1b[K\n"
    )


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.to_stderr(form="json"):
        logs.result(LOG, "two\nlines, ünïcode", frames=3, path=Path("a"))
        logs.event(LOG, 12.3456, "lost: the camera")
        LOG.warning("odd")
        logging.getLogger("uvicorn.error").error("of another package")
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.err.splitlines()]
    assert said.out == "" and len(rows) == 4
    assert [row["level"] for row in rows] == ["notice", "notice", "warning", "error"]
    assert rows[0]["message"] == "two\nlines, ünïcode" and rows[0]["frames"] == 3 and rows[0]["path"] == "a"
    assert rows[1]["at_s"] == 12.346 and rows[1]["message"] == "lost: the camera"
    assert rows[2]["logger"] == "refavs_rt.of_tests" and rows[3]["logger"] == "uvicorn.error"


@pytest.mark.parametrize(
    ("verbosity", "expected"), [(0, []), (1, ["info"]), (2, ["info", "debug"]), (9, ["info", "debug"])]
)
def test_v_says_more(verbosity: int, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with logs.to_stderr(verbosity):
        LOG.info("x")
        LOG.debug("x")
        logging.getLogger("another.package").info("never")
    assert capsys.readouterr().err == "".join(f"{level}: x\n" for level in expected)


def test_nothing_is_left_behind() -> None:
    ours, root = logging.getLogger("refavs_rt"), logging.getLogger()
    before = ours.level, list(root.handlers)
    with pytest.raises(RuntimeError), logs.to_stderr(2, "json"):
        raise RuntimeError
    assert (ours.level, list(root.handlers)) == before


# The command


def test_a_run_in_json(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "masks.jsonl"
    assert main(arguments(clip, "--jsonl", lines, "--log-format", "json")) == 0
    said = capsys.readouterr()
    assert said.out == ""
    first, *_, summary, wrote = objects(said.err)
    assert first["message"].startswith(f"bundle {EDGE.path} (edge)")
    frames = len(lines.read_text().splitlines())
    assert summary["frames"] == frames == 22
    (sentence,) = summary["sentences"]
    assert (sentence["text"], sentence["frames"]) == ("a dog", 22) and 0 <= sentence["segmented"] <= 22
    assert 0 < summary["latency_ms"]["median"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]
    assert wrote["path"] == str(lines)


def test_the_same_run_in_text(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "masks.jsonl"
    assert main(arguments(clip, "--jsonl", lines)) == 0
    said = capsys.readouterr()
    head, summary, sentence, wrote = said.out.splitlines()
    assert head.startswith(f"bundle {EDGE.path} (edge), engine onnx")
    assert summary.startswith("22 frames in ") and wrote == f"wrote {lines}"
    assert re.fullmatch(r"  'a dog': segmented in \d+ of 22 frames", sentence)
    assert all(re.match(r"frame \d+, ", line) for line in said.err.splitlines())  # on a slow machine


def test_lines_for_another_program_have_stdout_alone(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "masks.jsonl"
    assert main(arguments(clip, "--jsonl", lines)) == 0
    capsys.readouterr()
    assert main(arguments(clip, "--jsonl", "-")) == 0
    said = capsys.readouterr()
    assert said.out == lines.read_text()
    assert said.err.startswith(f"bundle {EDGE.path} (edge)") and "\n22 frames in " in said.err
    assert not (tmp_path / "-").exists() and "wrote" not in said.err


def test_a_reader_who_leaves_ends_the_run() -> None:
    command = [*CAMERA, "--mic", "none", "--jsonl", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stderr
        assert json.loads(run.stdout.readline())["index"] == 0
        run.stdout.close()
        try:
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
        assert run.returncode == 1
        assert "Traceback" not in said


@pytest.mark.media
def test_a_signal_before_the_first_result_is_no_error(tmp_path: Path) -> None:
    command = [
        *CAMERA,
        "--mic",
        "none",
        "--deadline-ms",
        "0.001",
        "--out",
        str(tmp_path / "overlay.mp4"),
        "-v",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        try:
            while not (line := run.stderr.readline()).startswith("info: overlay encoded"):
                assert line, "the run has ended"
            run.terminate()
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 143 and said.endswith("interrupted\n") and "error" not in said
    assert list(tmp_path.iterdir()) == []


def test_v_tells_the_bundle_the_source_and_the_ticks(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(clip, "--out", tmp_path / "o.mp4", "--log-format", "json")
    assert main([*words, "-v"]) == 0
    told = [row["message"] for row in objects(capsys.readouterr().err) if row["level"] == "info"]
    assert any(EDGE.digest in line for line in told)
    assert any("126 x 90 at 10 fps, h264, sound; every frame" in line for line in told)
    assert any(line.startswith("overlay encoded by ") and line.endswith("sound copied") for line in told)
    assert main([*words, "-vv"]) == 0
    ticks = [row for row in objects(capsys.readouterr().err) if row["level"] == "debug"]
    assert [row["message"].split()[0] for row in ticks] == ["0.000", "1.000", "2.000"]
    assert {row["logger"] for row in ticks} == {"refavs_rt.session"}


def test_warnings_and_errors_in_json(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "the dog that barks" + " and barks" * 20
    assert main([*arguments(clip, "--max-frames", "1", "--log-format", "json"), "--text", long]) == 0
    (warning,) = (row for row in objects(capsys.readouterr().err) if row["level"] == "warning")
    assert warning["message"].startswith(f"the sentence '{long[:57]}...' has ")
    assert main([*arguments(clip, "--log-format=json"), "--bundle", "nowhere"]) == 1
    (error,) = objects(capsys.readouterr().err)
    assert error["level"] == "error" and error["message"].startswith("nowhere: no such bundle folder")


@pytest.mark.parametrize("words", [["--log-format", "json"], ["--log-format=json"]])
def test_wrong_usage_in_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["stream", "--source", "a", *words])
    (row,) = objects(capsys.readouterr().err)
    assert stopped.value.code == exit_codes.USAGE and "--text" in row["message"]


def test_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("refavs_rt.run_stream.run_stream", fail)
    words = ["stream", "--source", "a", "--text", "b"]
    with pytest.raises(ZeroDivisionError):
        main(words)
    capsys.readouterr()
    assert main([*words, "--log-format", "json"]) == exit_codes.ERROR
    (row,) = objects(capsys.readouterr().err)
    assert row["level"] == "critical" and row["exception"].rstrip().endswith("ZeroDivisionError: ours")


def test_what_happens_to_a_live_source_bears_its_time() -> None:
    """Where no microphone opens, "no sound" is said once."""
    command = [*CAMERA, "--jsonl", os.devnull, "--duration", "3"]
    silent = {**os.environ, "PULSE_SERVER": "unix:/nowhere", "ALSA_CONFIG_PATH": os.devnull}
    done = subprocess.run(
        [*command, "--log-format", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=silent,
        timeout=120,
        cwd=ROOT,
    )
    (event,) = (row for row in objects(done.stderr) if "at_s" in row)
    assert event["message"].startswith("no sound: ") and 0 <= event["at_s"] < 120
    assert next(row for row in objects(done.stderr) if "counters" in row)["counters"]["decoded"] > 0


def test_a_terminal_has_one_line_of_progress(tmp_path: Path) -> None:
    """It is rewritten, and ended before what comes after it."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 4096):
                seen.append(data)
        except OSError:  # the terminal has gone
            return

    reader = threading.Thread(target=read)
    reader.start()
    command = [*CAMERA, "--mic", "none", "--duration", "2"]
    try:
        done = subprocess.run(
            [*command, "--jsonl", os.devnull],
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            check=True,
            timeout=120,
            cwd=ROOT,
        )
    finally:
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    text = b"".join(seen).decode()
    progress = re.findall(r"\rframe \d+, [\d.]+ s, [\d.]+ fps, latency \d+ ms\x1b\[K", text)
    assert len(progress) >= 2 and text == "".join(progress) + "\r\n"
    assert "frames in" in done.stdout


# Exit codes


def test_the_help_has_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == exit_codes.DONE
    said = capsys.readouterr().out
    told = [int(code) for code in re.findall(r"^  (\d+) ", said.partition("exit codes:")[2], re.MULTILINE)]
    assert told == [0, 1, 2, 130, 143]


@pytest.mark.parametrize("command", ["stream", "info", "verify", "doctor", "bench", "completion"])
def test_the_help_of_a_command_has_an_example_that_parses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    examples = [line.strip() for line in said.splitlines() if line.startswith("  refavs-rt ")]
    assert examples
    for example in examples:
        words = shlex.split(re.split(r"  +\(| > ", example)[0])
        assert callable(cli.parser().parse_args(words[1:]).command)


def test_sigterm_ends_any_command_with_its_code(tmp_path: Path) -> None:
    """Here one that waits for something that never comes: a pipe that nobody writes to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"import sys; from refavs_rt import cli; from refavs_rt.commands import info\n\
info.run = lambda args: (print('here', flush=True), open({str(pipe)!r}))\n\
import refavs_rt.cli; sys.exit(cli.main(['info']))"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None and child.stdout.readline() == "here\n"
    child.terminate()
    _, said = child.communicate(timeout=60)
    assert child.returncode == exit_codes.TERMINATED == 143 and said == "interrupted\n"
