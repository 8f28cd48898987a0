"""`refavs-rt doctor`: what works on this machine, what is missing, what to install."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from ..doctor.check import OK, Check, Finding
from ..exit_codes import DONE, ERROR

_DESCRIPTION = """\
Look at all that refavs_rt may use here, a line each: what works, what is missing or broken, what it is for and what mends it.

  refavs-rt doctor
  refavs-rt doctor --json

The exit code is 0 where the main job works, a file through the embedded model, whatever else is missing.
"""


def add_parser(commands: Any) -> None:
    """Put the command among the others."""
    doctor = commands.add_parser(
        "doctor",
        help="say what works on this machine, what is missing and what to install",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Examine, and tell."""
    from ..doctor.checks import CHECKS, JOB
    from ..doctor.examine import examine

    found: dict[str, tuple[Check, Finding]] = {}
    for check, finding in examine(CHECKS):
        found[check.name] = check, finding
        if not args.json:
            print(_line(check, finding, max(len(check.name) for check in CHECKS)), flush=True)
    works = found[JOB][1].status == OK
    if args.json:
        print(json.dumps(_to_json(found.values(), works), indent=2))
    else:
        print(
            f"\nThe main job, a file through the embedded model, {'works' if works else 'does not work'} here."
        )
    return DONE if works else ERROR


def _line(check: Check, finding: Finding, width: int) -> str:
    line = f"{finding.status:<8} {check.name:<{width}}  {finding.found}; for {check.purpose}"
    return line if finding.status == OK else f"{line} -> {finding.mend}"


def _to_json(found: Iterable[tuple[Check, Finding]], works: bool) -> dict[str, Any]:
    rows = [{"name": check.name, **vars(finding), "purpose": check.purpose} for check, finding in found]
    return {"works": works, "checks": rows}
