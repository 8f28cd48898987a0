"""What several commands' options are made of: the types of their values, and `--bundle`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

from ..logs import FORMATS


def add_logging(parser: argparse.ArgumentParser) -> None:
    """`-v` and `--log-format`, which every command has."""
    group = parser.add_argument_group("messages")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say more: the bundle, the engine and what was chosen; -vv: each commit to the memory, too",
    )
    group.add_argument(
        "--log-format",
        choices=FORMATS,
        default=FORMATS[0],
        help="json: each line of stderr is one object, and results are among them (default %(default)s)",
    )


def add_bundle(parser: argparse.ArgumentParser, flag: str) -> None:
    """What takes a bundle."""
    parser.add_argument(
        flag,
        metavar="DIR",
        help="a bundle folder, or 'edge' for the embedded one (default: bundles/latest, else the embedded one)",
    )


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def count(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def size(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):  # the default is empty, and read too
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give WIDTHxHEIGHT, as in 1280x720")
    return text


def latency(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 10_000, "a number from 0 to 10000")


def share(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a sha256: 64 hexadecimal digits")
    return text


def _number(text: str, kind: Callable[[str], Any], valid: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value
