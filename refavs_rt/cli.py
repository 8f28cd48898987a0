"""The command line `refavs-rt`: its commands, and what becomes of their errors."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from .bundle import BundleError
from .commands import info, stream, verify
from .commands.errors import UserError
from .engines import EngineError

_DESCRIPTION = "Segment what a sentence means in a video with sound."
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            return command(args)
        except (UserError, BundleError, EngineError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return _INTERRUPTED
        except BrokenPipeError:
            # The reader of our output left. Close quietly: Python would complain once more at exit.
            sys.stderr.close()
            return 1
        except (
            OSError,
            ImportError,
        ) as error:  # a full disk, a folder without access, a part that is not built
            print(f"error: {error}", file=sys.stderr)
            return 1


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    from . import __version__

    top = argparse.ArgumentParser(prog="refavs-rt", description=_DESCRIPTION)
    top.add_argument("--version", action="version", version=f"refavs-rt {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in (stream, info, verify):
        command.add_parser(commands)
    return top


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """`warnings.showwarning`, for people: what, and not where in the code."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
