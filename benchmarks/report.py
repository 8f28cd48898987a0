"""`make bench-report`: docs/benchmarks.md and its plots, from the figures that a machine has in benchmarks/results.

python -m benchmarks.report [--machine NAME] [--results DIR] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison
from benchmarks.plots import number, plot_engines, plot_length, plot_sentences
from benchmarks.published_flow import PARTS
from benchmarks.results import FILE, RESULTS, ROOT

PAGE, SENTENCES_PLOT, LENGTH_PLOT, ENGINES_PLOT = (
    "benchmarks.md",
    "benchmarks-sentences.png",
    "benchmarks-length.png",
    "benchmarks-engines.png",
)
BEST_CASE_GOALS = {1: 3.5, 8: 15.0}
"""Sentences -> how much faster than the published flow's best case `full` shall be on a CPU."""
LIVE_GOAL = 30.0
CONSTANT = 0.1
"""Cost per frame is called constant where the longest stream's is within this share of the shortest's."""

STAGES = 2
"""Of the pipeline that hand on through a queue: backbone and sentences."""

_LINE = 138
"""Characters of a line of the page's prose."""

Entries = Mapping[str, Mapping[str, Any]]
"""Benchmarks by their names, as `results.py` writes them."""


class ReportError(Exception):
    """There is nothing to report, or too much to choose from; the message says what would."""


def write_report(results: Path, out: Path, machine: str | None = None) -> Path:
    """Write the page and the plots for which there are figures.

    Args:
        results: the folder of all machines.
        out: where the page and the plots go.
        machine: folder of the machine; None: the only one.

    Returns:
        The page.

    Raises:
        ReportError: the machine has no figures, or several have and none is named.
    """
    folder = _machine_folder(results, machine)
    kept = json.loads((folder / FILE).read_text())
    entries: Entries = kept["benchmarks"]
    comparisons = _comparisons(entries)
    lengths = _lengths(entries)
    engines = _engines(entries, comparisons)
    out.mkdir(parents=True, exist_ok=True)
    lines = [*_head(kept["machine"], entries), ""]
    if comparisons:
        plot_sentences(comparisons, out / SENTENCES_PLOT)
        lines += _published(comparisons)
    if lengths:
        plot_length(lengths, out / LENGTH_PLOT)
        lines += _length(lengths)
    if engines:
        plot_engines(engines, out / ENGINES_PLOT)
        lines += _by_engine(engines)
    lines += [*_edge(entries), *_ingestion(entries), *_full(entries)]
    page = out / PAGE
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def _machine_folder(results: Path, machine: str | None) -> Path:
    found = [
        path.parent
        for path in sorted(results.glob(f"*/{FILE}"))
        if "benchmarks" in json.loads(path.read_text())
    ]
    if machine is not None:
        found = [folder for folder in found if folder.name == machine]
    if len(found) == 1:
        return found[0]
    if found:
        raise ReportError(f"choose with --machine: {', '.join(folder.name for folder in found)}")
    raise ReportError(
        f"{results / (machine or '')}: no figures; measure some: make bench ARGS=--save-results"
    )


# What the tables are made of


def _comparisons(entries: Entries) -> dict[str, Comparison]:
    """By preset, the paper's first."""
    found = {}
    for preset in ("full", "edge"):
        if entry := entries.get(f"test_published.py::test_beside_the_published_flow[{preset}]"):
            found[preset] = Comparison(entry["info"])
    return found


def _lengths(entries: Entries) -> dict[int, Mapping[str, Any]]:
    """Number of sentences -> seconds of the stream -> what a frame took."""
    named = (entry for name, entry in entries.items() if name.startswith("test_length.py::"))
    return {entry["info"]["sentences"]: entry["info"]["seconds_by_length"] for entry in named}


def _engines(entries: Entries, comparisons: Mapping[str, Comparison]) -> list[tuple[str, float, float]]:
    """What was run in both, and its milliseconds in ONNX Runtime and in torch eager."""
    rows = []
    for name, entry in entries.items():
        if name.startswith("test_engines.py::"):
            both = entry["info"]["engines"]
            label = f"edge, a frame, {_counted(entry['info']['sentences'])}"
            rows.append((label, 1e3 * both["onnx"]["median"], 1e3 * both["torch"]["median"]))
    if full := comparisons.get("full"):
        for sentences in full.sentences:
            ours, torch = full.ours_ms(sentences), full.ours_ms(sentences, "torch")
            if ours is not None and torch is not None:
                rows.append((f"full, a frame, {_counted(sentences)}", ours, torch))
        vision = full.info["vision"]
        rows.append(
            ("full, vision graph alone", *(1e3 * vision[name]["median"] for name in ("onnx", "torch")))
        )
    return rows


# The page


def _head(machine: Mapping[str, Any], entries: Entries) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield from _prose(
        f"{machine['name']}, {machine['cores']} cores usable, {machine['memory_gib']:.0f} GiB; {machine['platform']};",
        f"{_versions(entries)}. {_commits(entries)} Written by `make bench-report` from what `make bench-full` keeps in",
        "`benchmarks/results`. Milliseconds are medians, 95th percentiles where it is said. Weights that do not come with",
        "the project are random: they decide on no cost.",
    )


def _published(comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    frames = next(iter(comparisons.values())).info["clip_frames"]
    yield "## Against the published flow"
    yield ""
    yield from _prose(
        "The published flow (`benchmarks/published_flow.py`) has the same weights in torch eager, as many threads, and",
        "runs in turn with ours: two backbone passes a frame, and everything again for each sentence. Its masks are those",
        f"of our own clip form, to 1e-9 in float64. *Best case*: a clip of {frames} frames is computed once, and a frame",
        f"costs its share. *Live*: for each new frame the window of {frames} frames that ends in it is computed anew. The",
        "published code even runs its whole network in the first of the two passes, though it uses nothing but the",
        "backbone's last map; *as published* counts that, and all other rows and ratios leave it out.",
    )
    yield ""
    yield f"![milliseconds a frame against sentences]({SENTENCES_PLOT})"
    yield ""
    if full := comparisons.get("full"):
        yield from _goals(full)
    for preset, figures in comparisons.items():
        yield from _against(preset, figures)
    yield from _shares(comparisons)
    yield from _parts(comparisons)


def _against(preset: str, figures: Comparison) -> Iterator[str]:
    counts = figures.sentences
    yield f"### `{preset}`"
    yield ""
    yield from _header("a frame, ms", [_counted(n) for n in counts])
    ours = figures.info["ours"]["onnx"]
    yield _row("ours, ONNX Runtime", [_ms(ours[str(n)]["median"]) for n in counts])
    yield _row("the same, 95th percentile", [_ms(ours[str(n)]["p95"]) for n in counts])
    in_torch = [figures.ours_ms(n, "torch") for n in counts]
    yield _row("ours, torch eager", ["" if x is None else number(x) for x in in_torch])
    yield _row("published flow, best case", [number(figures.clip_ms(n)) for n in counts])
    yield _row("the same, as published", [number(figures.clip_ms(n, as_published=True)) for n in counts])
    yield _row("published flow, live", [number(figures.live_ms(n)) for n in counts])
    yield _row("the same, as published", [number(figures.live_ms(n, as_published=True)) for n in counts])
    yield _row(
        "live, if the second pass were for the new frame alone",
        [number(figures.live_newest_ms(n)) for n in counts],
    )
    yield _row("**faster than the best case**", [_times(figures.ratio(n)) for n in counts])
    yield _row("the same, as published", [_times(figures.ratio(n, as_published=True)) for n in counts])
    yield _row("**faster than live**", [_times(figures.live_ratio(n)) for n in counts])
    yield ""


def _goals(full: Comparison) -> Iterator[str]:
    """The goals of the preset `full` on a CPU, beside what was measured."""
    yield from _header("goal for `full` on a CPU", ["at least", "measured", ""])
    for sentences, goal in BEST_CASE_GOALS.items():
        yield _goal(f"best case, {_counted(sentences)}", goal, full.ratio(sentences))
    yield _goal("live, 1 sentence", LIVE_GOAL, full.live_ratio(1))
    yield ""


def _goal(what: str, goal: float, measured: float) -> str:
    return _row(what, [_times(goal), _times(measured), "met" if measured >= goal else "missed"])


def _shares(comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    yield "### What the compiler gives, and what the design"
    yield ""
    yield from _prose(
        "The compiler's part is that of the vision graph alone, backbone and pixel decoder with the same weights: torch",
        "eager over ONNX Runtime, in the same run. The design's part is what is left of the ratio to the best case: one",
        "backbone pass, not two, and nothing done twice for a second sentence. Beside it the same by another way: the",
        "published flow over ours where both run in torch eager.",
    )
    yield ""
    yield from _header("", ["ratio to the best case", "compiler", "design", "both in torch eager"])
    for preset, figures in comparisons.items():
        for sentences in (1, 8):
            in_torch = figures.design_in_torch(sentences)
            cells = [figures.ratio(sentences), figures.compiler, figures.design(sentences)]
            named = f"`{preset}`, {_counted(sentences)}"
            yield _row(named, [*map(_times, cells), "" if in_torch is None else _times(in_torch)])
    yield ""


def _parts(comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    yield "### Where the published flow spends its time"
    yield ""
    yield from _header("a frame of a clip, 1 sentence, ms", list(PARTS))
    for preset, figures in comparisons.items():
        yield _row(f"`{preset}`", [number(x) for x in figures.parts_ms().values()])
    yield ""


def _length(lengths: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    seconds = sorted(map(int, next(iter(lengths.values()))))
    yield "## Against the length of the stream"
    yield ""
    yield from _prose(
        "`edge`, the embedded bundle; every frame is a memory tick, the dearest kind. Milliseconds a frame after so much",
        "of the stream, all lengths in turn in one run.",
    )
    yield ""
    yield f"![milliseconds a frame against the stream's length]({LENGTH_PLOT})"
    yield ""
    yield from _header(
        "", [f"{n} s" if n < 60 else f"{n // 60} min" for n in seconds] + ["longest to shortest"]
    )
    changes = []
    for sentences, rows in sorted(lengths.items()):
        medians = [rows[str(n)]["median"] for n in seconds]
        changes.append(medians[-1] / medians[0] - 1)
        yield _row(_counted(sentences), [*map(_ms, medians), f"{changes[-1]:+.1%}"])
    yield ""
    worst = max(changes, key=abs)
    verdict = "constant" if abs(worst) <= CONSTANT else "not constant"
    yield f"Cost per frame is {verdict}: {worst:+.1%} at most from {seconds[0]} s to {seconds[-1] // 60} min."
    yield ""


def _by_engine(rows: Sequence[tuple[str, float, float]]) -> Iterator[str]:
    yield "## By engine"
    yield ""
    yield from _prose(
        "The same weights, interleaved. A run folder is run by torch, a bundle by ONNX Runtime. GPUs:",
        "[kernels.md](kernels.md).",
    )
    yield ""
    yield f"![what ONNX Runtime takes beside torch eager]({ENGINES_PLOT})"
    yield ""
    yield from _header("ms", ["ONNX Runtime", "torch eager", "faster"])
    for name, onnx, torch in rows:
        yield _row(name, [number(onnx), number(torch), _times(torch / onnx)])
    yield ""


def _edge(entries: Entries) -> Iterator[str]:
    """Stage by stage, and from the file to masks."""
    stages = {
        "text graph, once a sentence": "test_graph[text]",
        "vision graph": "test_graph[vision]",
        "audio graph": "test_graph[audio]",
        **{f"step graph, {_counted(n)}": f"test_step[{n}]" for n in (1, 2, 4, 8)},
        **{f"all graphs and the state, {_counted(n)}": f"test_session_frame[{n}]" for n in (1, 2, 4, 8)},
        **{f"masks at 1280 x 720, {_counted(n)}": f"test_masks[{n}]" for n in (1, 8)},
        **{f"overlay at 1280 x 720, {_counted(n)}": f"test_overlay[{n}]" for n in (1, 8)},
    }
    found = {
        what: entry for what, name in stages.items() if (entry := entries.get(f"test_stages.py::{name}"))
    }
    if found:
        yield "## `edge`, stage by stage"
        yield ""
        yield "The embedded bundle in ONNX Runtime."
        yield ""
        yield from _stage_table(found)
    whole = {
        "decoding, scaling, log-mel of the demo clip": "test_ingest",
        **{f"the demo clip's file to masks, {_counted(n)}": f"test_end_to_end[{n}]" for n in (1, 2, 4, 8)},
        "encoding of 1280 x 720": "test_encode",
    }
    rows = {what: entry for what, name in whole.items() if (entry := entries.get(f"test_stages.py::{name}"))}
    if rows:
        yield from _header("from end to end", ["frames", "ms a frame", "frames a second"])
        for what, entry in rows.items():
            frames, median = entry["info"]["frames"], entry["seconds"]["median"]
            yield _row(what, [str(frames), _ms(median / frames), number(frames / median)])
        yield ""
    yield from _shares_of_a_frame(entries)
    if start := entries.get("test_stages.py::test_start_up"):
        yield from _prose(
            "From the start of the process `refavs-rt stream` to its first mask, written to a pipe:",
            f"{number(start['seconds']['median'])} s.",
        )
        yield ""


def _shares_of_a_frame(entries: Entries) -> Iterator[str]:
    """What of a frame the graphs are not."""
    names = ("around_the_graphs", "queue", "masks[1]", "overlay[1]", "encode")
    stages = [entries.get(f"test_stages.py::test_{name}") for name in names]
    clip = entries.get("test_ingest.py::test_frames[1280x720-1]")
    around, queue, masks, overlay, encode = stages
    if not (around and queue and masks and overlay and encode and clip):
        return
    frame_ms, around_ms = around["info"]["frame_ms"], around["info"]["around_ms"]
    queues_ms = STAGES * 1e3 * queue["seconds"]["median"] / queue["info"]["items"]
    own = (around_ms + queues_ms) / (frame_ms + queues_ms)
    yield from _prose(
        f"Of the {number(frame_ms)} ms that a frame with one sentence takes in a session, {number(around_ms)} are not spent in",
        f"ONNX Runtime: binding, checks, state. The {STAGES} queues of a stream add {number(queues_ms)}: together {own:.1%}.",
    )
    yield ""
    beside = {
        "decoding and scaling": clip["info"]["ms"]["ours"],
        "masks": 1e3 * masks["seconds"]["median"],
        "drawing": 1e3 * overlay["seconds"]["median"],
        "encoding": 1e3 * encode["seconds"]["median"] / encode["info"]["frames"],
    }
    share = sum(beside.values()) / (sum(beside.values()) + frame_ms)
    listed = ", ".join(f"{what} {number(ms)}" for what, ms in beside.items())
    yield from _prose(
        f"What comes beside it at 1280 x 720 with one sentence, in ms: {listed}; together {share:.0%} of the work of a frame.",
    )
    yield ""


def _ingestion(entries: Entries) -> Iterator[str]:
    """From files and cameras to tensors."""
    clips = {
        f"{size}, {threads} thread{'s' if threads > 1 else ''}": entry["info"]["ms"]
        for size in ("1920x1080", "1280x720")
        for threads in (1, 2)
        if (entry := entries.get(f"test_ingest.py::test_frames[{size}-{threads}]"))
    }
    hop = entries.get("test_ingest.py::test_a_hop_of_log_mel")
    packet = entries.get("test_ingest.py::test_packet_to_tensor")
    if not (clips or hop or packet):
        return
    yield "## Ingestion"
    yield ""
    if clips:
        yield from _prose(
            "From H.264 in a file to [3, 256, 256] float32, in turns in one run. The `ffmpeg` tool scales to bytes, writes",
            "them to a pipe and normalises nothing.",
        )
        yield ""
        routes = list(next(iter(clips.values())))
        yield from _header("ms a frame", routes)
        for what, ms in clips.items():
            yield _row(what, [f"{number(ms[x])} ({_times(ms[x] / ms['ours'])})" for x in routes])
        yield ""
    if hop:
        info = hop["info"]
        yield from _prose(
            f"A hop of log-mel (10 ms of sound) takes {number(info['stream_us'])} microseconds; the whole window anew in torch",
            f"{number(info['torch_us'])}: {_times(info['ratio'])}.",
        )
        yield ""
    if packet:
        info = packet["info"]
        yield from _prose(
            "From the arrival of a camera's packet (1280 x 720, hardly anything to decode) to its tensor in the caller's",
            f"buffer: {number(info['p50_ms'])} ms in the median, {number(info['p95_ms'])} at the 95th percentile.",
        )
        yield ""


def _full(entries: Entries) -> Iterator[str]:
    names = {
        "a frame, 1 sentence": "test_full_frame",
        "text graph, once a sentence": "test_full_graph[text-1]",
        "vision graph": "test_full_vision",
        "audio graph": "test_full_graph[audio-1]",
        **{f"step graph, {_counted(n)}": f"test_full_graph[step-{n}]" for n in (1, 2, 4, 8)},
    }
    found = {what: entry for what, name in names.items() if (entry := entries.get(f"test_full.py::{name}"))}
    if found:
        yield "## `full`, stage by stage"
        yield ""
        yield "In ONNX Runtime, float32."
        yield ""
        yield from _stage_table(found)
        vision = entries.get("test_full.py::test_full_vision")
        if vision and "torch_to_onnx" in vision["info"]:
            info = vision["info"]
            yield from _prose(
                f"The vision graph took {_ms(info['torch_s'])} ms in torch eager and {_ms(info['onnx_s'])} in ONNX Runtime,",
                f"in turns in one run: a ratio of {number(info['torch_to_onnx'])}.",
                *_bound(info),
            )
            yield ""


def _bound(vision: Mapping[str, Any]) -> Iterator[str]:
    """What the machine's arithmetic allows for the vision graph of `full` in float32."""
    if "gflop" in vision:
        gflop, rate = vision["gflop"], vision["product_gflop_per_s"]
        yield f"Its products and convolutions are {number(gflop)} GFLOP, and one large product in torch reached {number(rate)}"
        yield f"GFLOP a second in that run: at that rate they alone take {_ms(gflop / rate)} ms, in whatever flow."


def _stage_table(found: Entries) -> Iterator[str]:
    yield from _header("ms", ["median", "95th percentile", "rounds"])
    for what, entry in found.items():
        seconds = entry["seconds"]
        yield _row(what, [_ms(seconds["median"]), _ms(seconds["p95"]), str(seconds["rounds"])])
    yield ""


# Words and numbers


def _prose(*parts: str) -> list[str]:
    """A paragraph."""
    return textwrap.wrap(" ".join(parts), _LINE, break_long_words=False, break_on_hyphens=False)


def _versions(entries: Entries) -> str:
    found = sorted(
        {
            ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
            for entry in entries.values()
        }
    )
    return "; or ".join(found)


def _commits(entries: Entries) -> str:
    found = sorted({(entry["commit"], entry["dirty"]) for entry in entries.values()})
    named = [f"`{commit[:12] or 'unknown'}`{' with changes' if dirty else ''}" for commit, dirty in found]
    return f"Commit{'s' if len(named) > 1 else ''} {', '.join(named)}."


def _header(first: str, others: Sequence[str]) -> Iterator[str]:
    yield _row(first, others)
    yield "| --- |" + " ---: |" * len(others)


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | " + " | ".join(cells) + " |"


def _counted(sentences: int) -> str:
    return f"{sentences} sentence" + ("" if sentences == 1 else "s")


def _ms(seconds: float) -> str:
    return number(1e3 * seconds)


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n")[0])
    parser.add_argument("--machine", metavar="NAME", help="its folder in the results; default: the only one")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", metavar="DIR")
    args = parser.parse_args(argv)
    try:
        page = write_report(args.results, args.out, args.machine)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {page} and its plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
