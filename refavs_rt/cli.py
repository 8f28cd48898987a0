"""The command line `refavs-rt`: its commands, and what becomes of their errors."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from . import exit_codes, logs
from .commands import bench, completion, doctor, info, stream, verify
from .commands.options import add_logging
from .errors import UserError
from .exit_codes import ERROR, INTERRUPTED

_DESCRIPTION = "Segment what a sentence means in a video with sound."
_EPILOGUE = "refavs-rt COMMAND --help says what a command takes, with examples."
_log = logging.getLogger("refavs_rt.cli")  # whatever this file is run as


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parse(sys.argv[1:] if argv is None else list(argv))
    command: Callable[[argparse.Namespace], int] = args.command
    with logs.to_stderr(args.verbose, args.log_format), _sigterm_as_interrupt():
        try:
            return command(args)
        except UserError as error:
            _log.error("%s", error)
            return ERROR
        except KeyboardInterrupt as stop:
            _log.log(logs.NOTICE, "interrupted")
            return 128 + stop.args[0] if stop.args else INTERRUPTED
        except BrokenPipeError:
            # The reader of our output left. Close quietly: Python would complain once more at exit.
            sys.stderr.close()
            return ERROR
        except (
            OSError,
            ImportError,
        ) as error:  # a full disk, a folder without access, a part that is not built
            _log.error("%s", error)
            return ERROR
        except Exception:
            if args.log_format == "text":
                raise
            _log.critical("this is a mistake in refavs_rt", exc_info=True)
            return ERROR


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that nothing half done is left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # Python sets handlers nowhere else
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(words: list[str]) -> argparse.Namespace:
    """Read the command line; wrong usage is told in the format that was asked for."""
    asks_for_json = "--log-format=json" in words or ("--log-format", "json") in itertools.pairwise(words)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told) if asks_for_json else contextlib.nullcontext():
            return parser().parse_args(words)
    except SystemExit:
        if told.getvalue():
            with logs.to_stderr(form="json"):
                _log.error("%s", told.getvalue().strip().splitlines()[-1])  # before it stands the usage
        raise


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    from . import __version__

    top = argparse.ArgumentParser(
        prog="refavs-rt",
        description=_DESCRIPTION,
        epilog=f"exit codes:\n{exit_codes.table()}\n\n{_EPILOGUE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"refavs-rt {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in (stream, info, verify, doctor, bench):
        command.add_parser(commands)
    completion.add_parser(commands, top)
    for command_parser in commands.choices.values():
        add_logging(command_parser)
    return top


if __name__ == "__main__":
    sys.exit(main())
