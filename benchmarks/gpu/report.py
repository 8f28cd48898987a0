"""The figures of `make gpu` as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """A page with the machine, the tests' last line, and a table for each stage."""
    machine = results["machine"]
    bandwidth = machine["copy_bytes_per_s"]
    lines = [
        f"# {machine['device']}",
        "",
        f"Compute capability {machine['compute_capability']}, {machine['multiprocessors']} multiprocessors, driver"
        f" {machine['driver']}, torch {machine['torch']}, Triton {machine['triton']}, Python {machine['python']}. A large copy"
        f" moves {bandwidth / 1e9:,.0f} GB/s, read and written.",
        "",
    ]
    if "tests" in results:
        lines += [f"Tests on the device: {results['tests']['summary'].strip('= ')}", ""]
    if results.get("ops"):
        lines += list(_ops(results["ops"], bandwidth))
    if results.get("network"):
        lines += list(_networks(results["network"]))
    return "\n".join(lines).rstrip() + "\n"


def _ops(ops: list[dict[str, Any]], bandwidth: float) -> Iterator[str]:
    yield "## Ops"
    yield ""
    yield (
        'Microseconds, medians, inputs not in the cache. "Graph": replayed from a CUDA graph, so without what Python takes to'
        " launch. Floor: the fewest bytes over the bandwidth above. Error: ||kernel - float64|| / ||float64||, and that of the"
        " reference in the same type."
    )
    yield ""
    yield (
        "| call | type | kernel | reference | peer | compiled | kernel, graph | reference, graph | peer, graph |"
        " compiled, graph | over peer, graph | GB/s | floor | share of floor | error | of reference |"
    )
    yield "| --- | --- |" + " ---: |" * 14
    for op in ops:
        ms = op["milliseconds"]
        best = ms.get("kernel graph", ms.get("kernel"))
        floor = op["bytes"] / bandwidth * 1e6
        cells = [_us(ms.get(form)) for form in ("kernel", "reference", "peer", "compiled")]
        cells += [_us(ms.get(f"{form} graph")) for form in ("kernel", "reference", "peer", "compiled")]
        rival = ms.get("peer graph", ms.get("peer", ms.get("reference graph", ms.get("reference"))))
        cells.append(f"{rival / best:.2f}" if rival and best else "")
        cells.append(f"{op['bytes'] / best / 1e6:,.0f}" if best else "")
        cells += [f"{floor:.1f}", f"{floor / (1e3 * best):.0%}" if best else ""]
        cells += [f"{op['error']:.1e}", f"{op['reference_error']:.1e}"]
        yield f"| {op['name']} | {op['dtype']} | " + " | ".join(cells) + " |"
        for form, why in op["failures"].items():
            yield f"| | | {form}: {why} |" + " |" * 13
    yield ""


def _networks(networks: list[dict[str, Any]]) -> Iterator[str]:
    yield "## A frame"
    yield ""
    yield (
        "Milliseconds, medians, random weights. Fusion: from visual and audio tokens to masks. Whole: the frame,"
        " its sound, and fusion."
    )
    yield ""
    forms = list(dict.fromkeys(form for network in networks for form in network["milliseconds"]))
    yield "| network | part | sentences | type | " + " | ".join(forms) + " | error |"
    yield "| --- | --- | ---: | --- |" + " ---: |" * (len(forms) + 1)
    for network in networks:
        cells = [
            f"{network['milliseconds'][form]:.2f}" if form in network["milliseconds"] else ""
            for form in forms
        ]
        start = f"| {network['preset']} | {network['part']} | {network['sentences']} | {network['dtype']} | "
        yield start + " | ".join(cells) + f" | {network['error']:.1e} |"
        for form, why in network["failures"].items():
            yield f"| | | | | {form}: {why} |" + " |" * len(forms)
    yield ""


def _us(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{1e3 * milliseconds:.1f}"
