"""`python -m refavs_rt.kernels.tables docs/kernels.md`: write the tables of that page anew, between the marks that are there.

Predictions come from the ops' own counts; resources from what `python -m refavs_rt.kernels.aot --json FILE` found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .aot import CARDS
from .launch import Cost
from .workloads import workloads

BANDWIDTHS = {"Jetson Orin": 205e9, "RTX 4090": 1008e9, "H100": 3350e9}
"""Card -> bytes a second of its device memory, from its datasheet."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m refavs_rt.kernels.tables", description=__doc__)
    parser.add_argument("page", type=Path, help="a page in Markdown with the marks")
    parser.add_argument(
        "--aot", type=Path, default=None, metavar="JSON", help="without it the resources stay as they are"
    )
    args = parser.parse_args(argv)
    page = replaced(args.page.read_text(), "predictions", predictions())
    if args.aot:
        page = replaced(page, "resources", resources(json.loads(args.aot.read_text())))
    args.page.write_text(page)
    return 0


def replaced(page: str, name: str, table: str) -> str:
    """The page with `table` between the marks of that name.

    Raises:
        ValueError: the page has no such marks.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->\n)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no <!-- {name} --> and <!-- end of {name} -->")
    return pattern.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", page)


def predictions() -> str:
    """Of each workload in 16 bits: the least that must be done and moved, and what that means."""
    lines = [
        f"| call | operations | bytes | unfused | launches | {' | '.join(f'{card}, µs' for card in BANDWIDTHS)} |",
        f"| --- | ---: | ---: | ---: | ---: |{' ---: |' * len(BANDWIDTHS)}",
    ]
    for workload in workloads():
        cost, unfused = workload.cost(torch.float16), workload.unfused(torch.float16)
        floors = " | ".join(f"{_floor_us(cost, rate):.2f}" for rate in BANDWIDTHS.values())
        lines.append(
            f"| {workload.name} | {_short(cost.operations)} | {_short(cost.bytes)} | {_short(unfused.bytes)}"
            f" | {unfused.launches} → {cost.launches} | {floors} |"
        )
    return "\n".join(lines) + "\n"


def _floor_us(cost: Cost, bytes_per_s: float) -> float:
    return cost.bytes / bytes_per_s * 1e6


def resources(found: Sequence[dict[str, Any]]) -> str:
    """A row for each kernel, type and variant: on each card registers of a thread, KiB of shared memory, instructions, those of
    the matrix units among them, and bytes spilled where there are any."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for one in found:
        by_name.setdefault(one["name"], {})[one["capability"]] = one
    cards = " | ".join(f"{card} (sm_{capability})" for capability, (card, _) in CARDS.items())
    lines = [f"| kernel | {cards} |", f"| --- |{' --- |' * len(CARDS)}"]
    for name, on_card in sorted(by_name.items()):
        cells = (_cell(on_card[c]) if c in on_card else "" for c in CARDS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(one: dict[str, Any]) -> str:
    figures = (
        one["registers"],
        round(one["shared_bytes"] / 1024),
        one["instructions"],
        one["matrix_instructions"],
    )
    spilled = f", {one['spilled_bytes']} spilled" if one["spilled_bytes"] else ""
    return " / ".join(map(str, figures)) + spilled


def _short(number: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


if __name__ == "__main__":
    sys.exit(main())
