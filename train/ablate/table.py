"""An experiment as files: NAME.csv, and NAME.md with what a person reads in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from refavs_rt.dataset import DataError

from .bootstrap import FEWEST_CLIPS, RESAMPLES, Comparison, Estimate
from .observation import ALL, NULL, Experiment

BEGIN, END = "<!-- reading -->", "<!-- /reading -->"
"""Between these a person writes what the tables say; it is kept when the file is made again."""
UNREAD = "Nobody has written yet what these tables say: write it here, between the two marks."
_COLUMNS = (
    "condition",
    "group",
    "expressions",
    "clips",
    "mean",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
)


def write_tables(
    out: Path, experiment: Experiment, comparisons: Sequence[Comparison], facts: Sequence[str]
) -> None:
    """Write NAME.csv and NAME.md into the folder `out`.

    Args:
        facts: lines about the run: model, commit, seed.

    Raises:
        DataError: an earlier NAME.md has lost one of the marks around what a person has written.
        OSError: a file cannot be written.
    """
    page = out / f"{experiment.name}.md"
    text = markdown(experiment, comparisons, facts, read_reading(page))
    (out / f"{experiment.name}.csv").write_text(csv_text(comparisons), "utf-8")
    page.write_text(text, "utf-8")


def csv_text(comparisons: Sequence[Comparison]) -> str:
    """One line a condition and group; an empty cell where there is no such number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for c in comparisons:
        writer.writerow(
            [
                c.condition,
                c.group,
                c.expressions,
                c.clips,
                *_numbers(c.estimate),
                *_numbers(c.difference),
                c.verdict,
            ]
        )
    return stream.getvalue()


def markdown(
    experiment: Experiment, comparisons: Sequence[Comparison], facts: Sequence[str], reading: str = UNREAD
) -> str:
    """The page: the reading, the plot, a table for each group, and how it was made."""
    groups = dict.fromkeys(c.group for c in comparisons)
    parts = [
        f"# {experiment.title}",
        f"{BEGIN}\n{reading}\n{END}",
        f"![{experiment.title}]({experiment.name}.png)",
        _explanation(experiment, len([c for c in comparisons if c.difference])),
    ]
    for group in groups:
        rows = [_row(c) for c in comparisons if c.group == group]
        parts.append(f"## {_HEADINGS.get(group, group)}\n\n{_HEAD.format(measure=experiment.measure)}")
        parts[-1] += "".join(rows)
    made = dict.fromkeys([*facts, *experiment.notes])
    parts.append("## How it was made\n\n" + "\n".join(f"- {fact}" for fact in made))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def read_reading(page: Path) -> str:
    """What a person has written on an earlier page.

    Raises:
        DataError: one of the marks around it is gone, so that it cannot be told from the rest.
    """
    try:
        text = page.read_text("utf-8")
    except FileNotFoundError:
        return UNREAD
    _, begun, rest = text.partition(BEGIN)
    reading, ended, _ = rest.partition(END)
    if not begun or not ended:
        raise DataError(
            f"{page} has lost its mark {BEGIN if not begun else END}, between which its reading is kept; put it back, or "
            "move the file away"
        )
    return reading.strip()


_HEADINGS = {ALL: "All expressions that mean an object", NULL: "Expressions that nothing fits"}
_HEAD = """\
| condition | expressions | clips | {measure} | 95% interval | difference | 95% interval | verdict |
| --- | ---: | ---: | ---: | --- | ---: | --- | --- |
"""


def _explanation(experiment: Experiment, comparisons: int) -> str:
    lone = sorted(set(experiment.baselines.values()) - {experiment.baseline})
    others = f" ({', '.join(lone)} for those that are compared with it)" if lone else ""
    return (
        f"Means of {experiment.measure} over expressions, with 95% intervals from {RESAMPLES:,} resamples of clips. Differences "
        f"are to the condition “{experiment.baseline}”{others}, over the clips that both have. Where the interval of the "
        "difference holds 0 the verdict is “no difference shown”, which does not say that there is none. Of fewer than "
        f"{FEWEST_CLIPS} clips no interval is given. In the picture, bars are the intervals of the means, marks and "
        "colours the verdicts: clips differ more than conditions do, so bars can overlap where a difference is shown. Each "
        f"interval stands for itself: of the {comparisons} differences here, about one in twenty would exclude 0 by chance if "
        "nothing had an effect."
    )


def _row(c: Comparison) -> str:
    difference = f"{c.difference.mean:+.3f}" if c.difference else ""
    cells = [
        c.condition.replace("|", "\\|"),
        str(c.expressions),
        str(c.clips),
        f"{c.estimate.mean:.3f}",
        _interval(c.estimate, ""),
        difference,
        _interval(c.difference, "+") if c.difference else "",
        c.verdict,
    ]
    return "| " + " | ".join(cells) + " |\n"


def _interval(estimate: Estimate, sign: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}"


def _numbers(estimate: Estimate | None) -> list[str]:
    values = (None, None, None) if estimate is None else (estimate.mean, estimate.low, estimate.high)
    return ["" if value is None else f"{value:.5f}" for value in values]
