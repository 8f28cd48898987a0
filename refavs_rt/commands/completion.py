"""`refavs-rt completion`: a script with which a shell completes the commands and their options."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from ..errors import UserError
from ..exit_codes import DONE

SHELLS = ("bash", "zsh", "fish")
_DESCRIPTION = """\
Print a script with which a shell completes commands, options, and the names of files and folders.

  refavs-rt completion bash > ~/.local/share/bash-completion/completions/refavs-rt
  refavs-rt completion zsh > ~/.zfunc/_refavs-rt     (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  refavs-rt completion fish > ~/.config/fish/completions/refavs-rt.fish

For the running shell alone: eval "$(refavs-rt completion bash)", likewise of zsh.
"""
_FILES = {"ADDRESS", "FILE", "MP4"}
_FOLDERS = {"BUNDLE", "DIR"}
"""Options whose value is one, by the name that their help gives it."""


def add_parser(commands: Any, top: argparse.ArgumentParser) -> None:
    """Put the command among the others of the whole command line `top`."""
    completion = commands.add_parser(
        "completion",
        help="print a script that completes all this in a shell",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(command=functools.partial(run, top))


def run(top: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise UserError(f"the completion of shells needs shtab ({error}): pip install shtab") from error
    _mark_paths(top, shtab)
    print(shtab.complete(top, args.shell))
    return DONE


def _mark_paths(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Say of each option whether a file or a folder belongs to it, where shtab looks for that."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command, shtab)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
