"""The live runtime for as long as is asked for, with a fault every minute: what it holds must not grow, and it must come back.

    python -m benchmarks.soak --minutes 30 --out soak

The camera is a server on loopback, the microphone the monitor of a PulseAudio server. In turn the camera is killed and started
again, stopped so that it sends nothing, started with another size and rate; and the sound server is killed and started again.
The embedded model looks for two sentences, the page shows it, and between faults viewers come and go; a sentence changes now and
then. Writes soak.json and soak.png, and ends with 1 where something grew or did not come back.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from refavs_rt.controls import Controls
from refavs_rt.ingest import LiveIngest, open_live
from refavs_rt.render import Overlay
from refavs_rt.serve.page import Page
from refavs_rt.session import Session, load
from refavs_rt.stream import run_session
from tests.live_devices import played_tone, served, sound_server
from tests.processes import free_port

from .viewers import CHAIRS, Visits

SILENCE_S = 2.0
"""After so long without a packet a source is lost."""
SETTLED_S = 12.0
"""After a fault everything is as before: the longest pause between two attempts, and the time to open."""
VIEWERS_SPAN = (0.25, 0.55)
"""When viewers come and go, in shares of the time between two faults; for the rest of it there are none."""
FEWEST_FRAMES = 4
"""A second, that a slow machine looks at."""
DEAF_S = 3
"""Seconds with sound missing that may be the machine's, which has other work too."""
TEXTS = ("the sounding object", "the test picture")
OTHER_TEXTS = ("the silent object", "the object on the left", "the dog that barks")
"""The second sentence is changed at each fault; a few, since a model keeps the features of those it has read lately."""
SIZES = ("640x360", "320x240")
RATES_HZ = (48_000, 44_100)


@dataclass(frozen=True)
class Sample:
    """One second of a run."""

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int
    frames: int
    """That came in this second."""
    with_sound: int
    """Of those, the ones whose window of sound was whole."""
    viewers: int
    latency_ms: float
    """Median, from capture to result; NaN where none came."""
    sound_error_ms: float
    sound_drift_ppm: float
    reconnects: int
    after_fault_s: float
    """Since the last fault was made."""


class Scene:
    """The servers, and what is done to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._form = 0
        self._camera = contextlib.ExitStack()
        self._sound = contextlib.ExitStack()
        os.environ["PULSE_SERVER"] = f"unix:{folder / 'pulse.socket'}"

    def __enter__(self) -> Scene:
        self.start_sound()
        self.start_camera()
        return self

    def __exit__(self, *_: object) -> None:
        self._camera.close()
        self._sound.close()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def start_camera(self) -> None:
        self._process = self._camera.enter_context(
            served(self._port, SIZES[self._form], RATES_HZ[self._form])
        )

    def start_sound(self) -> None:
        (self._folder / "pulse.socket").unlink(missing_ok=True)
        self._sound.enter_context(sound_server(self._folder))
        self._sound.enter_context(played_tone(1000))

    def faults(self) -> list[tuple[str, list[tuple[float, Callable[[], None]]]]]:
        """Name, and what is done when, in seconds from its beginning."""
        return [
            ("camera killed", [(0, self._camera.close), (3, self.start_camera)]),
            ("camera silent", [(0, self._stop), (5, self._go_on)]),
            ("sound killed", [(0, self._sound.close), (3, self.start_sound)]),
            ("another size", [(0, self._camera.close), (1, self._change)]),
        ]

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def _go_on(self) -> None:
        """A server of one viewer has lost it: it is started anew."""
        self._process.send_signal(signal.SIGCONT)
        self._camera.close()
        self.start_camera()

    def _change(self) -> None:
        self._form = 1 - self._form
        self.start_camera()


def run(
    minutes: float, between_s: float, tell: Callable[[str], None]
) -> tuple[list[Sample], list[tuple[float, str]], Visits]:
    """Samples, the faults with when they were made, and what viewers saw."""
    model = load("edge")
    with tempfile.TemporaryDirectory(prefix="refavs-soak-") as folder, Scene(Path(folder)) as scene:
        session = model.session(TEXTS)
        source = _opened(scene.address, model.config.image_size)
        controls = Controls(session)
        threshold = model.run.presence_threshold
        overlay = Overlay(source.height, source.width, threshold)
        with source, Page(controls, overlay, threshold, port=0) as page:
            return _Run(session, source, scene, page, controls, tell).watch(minutes * 60.0, between_s)


def _opened(address: str, size: int) -> LiveIngest:
    """As soon as the server listens."""
    until = time.monotonic() + 20.0
    while True:
        try:
            return open_live(address, size, mic="pulse:nowhere.monitor", silence_s=SILENCE_S)
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class _Run:
    """One run: results are taken as they come, and once a second it is written down how things stand."""

    def __init__(
        self,
        session: Session,
        source: LiveIngest,
        scene: Scene,
        page: Page,
        controls: Controls,
        tell: Callable[[str], None],
    ) -> None:
        self._session = session
        self._source = source
        self._scene = scene
        self._page = page
        self._controls = controls
        self._tell = tell
        self._samples: list[Sample] = []
        self._faults: list[tuple[float, str]] = []
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._latencies_ms: list[float] = []
        self._whole = 0
        self._visits = Visits()
        self._viewers: subprocess.Popen[str] | None = None

    def watch(
        self, duration_s: float, between_s: float
    ) -> tuple[list[Sample], list[tuple[float, str]], Visits]:
        began = time.monotonic()
        # A lost source gives no results, so faults and samples have a thread of their own.
        over = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(began, duration_s, between_s, over))
        keeper.start()
        try:
            for result in run_session(self._session, self._source, self._notice, self._controls):
                self._page.show(result, 0)
                self._latencies_ms.append(result.latency_ms)
                self._whole += result.frame.audio_missing_samples == 0
                if over.is_set():
                    break
        finally:
            over.set()
            keeper.join()
        self._collect_viewers()
        return self._samples, self._faults, self._visits

    def _notice(self, when_s: float, text: str) -> None:
        self._tell(f"{when_s:.0f} s: {text}")
        self._page.tell(when_s, text)

    def _keep(self, began: float, duration_s: float, between_s: float, over: threading.Event) -> None:
        faults = self._scene.faults()
        next_fault, next_sample, next_viewers = between_s, 1.0, between_s * VIEWERS_SPAN[0]
        while (now := time.monotonic() - began) < duration_s and not over.wait(0.05):
            if now >= next_fault:
                name, steps = faults[len(self._faults) % len(faults)]
                self._tell(f"{now:.0f} s: {name}")
                self._faults.append((now, name))
                self._due += [(now + after_s, step) for after_s, step in steps]
                next_fault += between_s
                sentence = self._controls.sentences[1]
                self._controls.change(sentence.key, OTHER_TEXTS[len(self._faults) % len(OTHER_TEXTS)])
            for step in [step for step in self._due if step[0] <= now]:
                self._due.remove(step)
                step[1]()
            if self._viewers and self._viewers.poll() is not None:
                self._collect_viewers()
            if now >= next_viewers:
                self._collect_viewers()
                self._send_viewers(between_s * (VIEWERS_SPAN[1] - VIEWERS_SPAN[0]), seed=int(now))
                next_viewers += between_s
            if now >= next_sample:
                self._samples.append(self._sample(now))
                next_sample = now + 1.0
        over.set()
        self._source.close()

    def _send_viewers(self, seconds: float, seed: int) -> None:
        command = [sys.executable, "-m", "benchmarks.viewers", self._page.url]
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        self._viewers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def _collect_viewers(self) -> None:
        if self._viewers is None:
            return
        seen = Visits(**json.loads(self._viewers.communicate()[0]))
        self._viewers = None
        self._visits.viewers += seen.viewers
        self._visits.pictures += seen.pictures
        self._visits.empty_handed += seen.empty_handed
        self._visits.errors += seen.errors

    def _sample(self, now: float) -> Sample:
        counters = self._source.counters
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        latencies_ms, self._latencies_ms = self._latencies_ms, []
        whole, self._whole = self._whole, 0
        return Sample(
            at_s=round(now, 2),
            rss_mib=int(status["VmRSS"].split()[0]) / 1024,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=int(status["Threads"]),
            frames=len(latencies_ms),
            with_sound=whole,
            viewers=CHAIRS if self._viewers else 0,
            latency_ms=round(float(np.median(latencies_ms)), 2) if latencies_ms else float("nan"),
            sound_error_ms=round(counters["sound_error_s"] * 1e3, 3),
            sound_drift_ppm=round(counters["sound_drift_ppm"], 1),
            reconnects=int(counters["reconnects"]),
            after_fault_s=round(now - self._faults[-1][0], 2) if self._faults else now,
        )


def complaints(samples: Sequence[Sample], faults: int, visits: Visits) -> list[str]:
    """What did not stay as it was; empty where all is well."""
    settled = [sample for sample in samples if sample.after_fault_s >= SETTLED_S]
    # A connection takes a moment to end.
    alone = [
        b
        for a, b in itertools.pairwise(samples)
        if b.after_fault_s >= SETTLED_S and a.viewers == b.viewers == 0
    ]
    found = []
    for name in ("descriptors", "threads"):
        values = [getattr(sample, name) for sample in alone]
        if max(values) > min(values):
            found.append(f"{name} between faults: {min(values)} to {max(values)}")
    slope, error = rss_slope([sample for sample in settled if sample.at_s > samples[-1].at_s / 5])
    if slope > max(3 * error, 0.05):
        found.append(f"resident memory grows by {slope:.3f} +- {error:.3f} MiB a minute")
    quiet = [sample for sample in settled if sample.frames < FEWEST_FRAMES]
    if quiet:
        found.append(
            f"{len(quiet)} seconds between faults with fewer than {FEWEST_FRAMES} frames, as at {quiet[0].at_s:.0f} s"
        )
    deaf = [sample for sample in settled if sample.with_sound < sample.frames - 2]
    if len(deaf) > max(DEAF_S, len(settled) // 20):
        found.append(f"{len(deaf)} seconds between faults with sound missing, as at {deaf[0].at_s:.0f} s")
    worst = max(abs(sample.sound_error_ms) for sample in settled)
    if worst > 10.0:
        found.append(f"sound was {worst:.1f} ms from its place")
    if samples[-1].reconnects < faults:
        found.append(f"{samples[-1].reconnects} reconnects after {faults} faults")
    if visits.empty_handed or visits.errors or not visits.viewers:
        errors = "; ".join(sorted(set(visits.errors)))
        found.append(f"{visits.empty_handed} of {visits.viewers} viewers saw no picture {errors}".rstrip())
    return found


def rss_slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """MiB a minute and its standard error, by least squares over minutes, since seconds are no independent samples."""
    if not samples:
        return 0.0, float("inf")
    minutes = np.array([sample.at_s for sample in samples]) / 60.0
    whole = minutes.astype(int)
    at = np.array([minutes[whole == minute].mean() for minute in np.unique(whole)])
    rss = np.array([sample.rss_mib for sample in samples])
    mean = np.array([rss[whole == minute].mean() for minute in np.unique(whole)])
    if len(at) < 3:
        return 0.0, float("inf")
    (slope, _), covariance = (
        np.polyfit(at, mean, 1, cov=True)
        if len(at) > 4
        else (np.polyfit(at, mean, 1), np.full((2, 2), np.inf))
    )
    return float(slope), float(np.sqrt(covariance[0, 0]))


def plot(samples: Sequence[Sample], faults: Sequence[tuple[float, str]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    minutes = np.array([sample.at_s for sample in samples]) / 60.0
    rows: list[tuple[str, dict[str, list[float]]]] = [
        ("resident memory, MiB", {"": [sample.rss_mib for sample in samples]}),
        (
            "held",
            {
                "descriptors": [sample.descriptors for sample in samples],
                "threads": [sample.threads for sample in samples],
            },
        ),
        ("viewers", {"": [float(sample.viewers) for sample in samples]}),
        (
            "results a second",
            {
                "all": [sample.frames for sample in samples],
                "with their sound": [sample.with_sound for sample in samples],
            },
        ),
        ("latency, ms", {"": [sample.latency_ms for sample in samples]}),
        ("sound off its place, ms", {"": [sample.sound_error_ms for sample in samples]}),
    ]
    figure, axes = plt.subplots(len(rows), 1, figsize=(10, 12), sharex=True, constrained_layout=True)
    colours = {name: f"C{i + 3}" for i, name in enumerate(dict.fromkeys(name for _, name in faults))}
    for axis, (label, lines) in zip(axes, rows, strict=True):
        for (name, values), colour in zip(lines.items(), ("C0", "C1"), strict=False):
            axis.plot(minutes, values, label=name, color=colour, linewidth=1)
        for when_s, name in faults:
            axis.axvline(when_s / 60.0, color=colours[name], linewidth=0.8, alpha=0.6)
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        if len(lines) > 1:
            axis.legend(loc="lower right", frameon=False)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--between", type=float, default=60.0, metavar="S", help="from one fault to the next")
    parser.add_argument("--out", type=Path, default=Path("soak"), metavar="DIR")
    args = parser.parse_args(argv)
    if args.between <= SETTLED_S or args.minutes * 60 <= args.between:
        parser.error(f"--between must be more than {SETTLED_S:.0f} seconds, and the run longer than that")
    for program in ("ffmpeg", "pulseaudio"):
        if shutil.which(program) is None:
            print(f"error: {program} is not installed; `make dev` installs it", file=sys.stderr)
            return 2
    args.out.mkdir(parents=True, exist_ok=True)
    samples, faults, visits = run(args.minutes, args.between, lambda line: print(line, flush=True))
    (args.out / "soak.json").write_text(
        json.dumps(
            {"faults": faults, "visits": asdict(visits), "samples": [asdict(sample) for sample in samples]}
        ),
        encoding="utf-8",
    )
    plot(samples, faults, args.out / "soak.png")
    found = complaints(samples, len(faults), visits)
    slope, error = rss_slope([sample for sample in samples if sample.at_s > samples[-1].at_s / 5])
    print(
        f"{samples[-1].at_s / 60:.1f} minutes, {sum(sample.frames for sample in samples)} frames, {len(faults)} faults, "
        f"{samples[-1].reconnects} reconnects, {visits.viewers} viewers with {visits.pictures} pictures, "
        f"memory {slope:+.3f} +- {error:.3f} MiB a minute"
    )
    for complaint in found:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
