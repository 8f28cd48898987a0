"""Folders in the hub's format, for transformers to load: given as folders, or fetched by their name. Quiet, with clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILES = ("*.json", "*.safetensors", "*.txt")


class WeightsError(Exception):
    """Published weights that cannot be taken; the message names the file and the mend."""


@contextmanager
def hub_folder(source: str) -> Iterator[Path]:
    """The folder that `source` names: itself, or that of a hub's name, fetched where it is not in the hub's cache.

    What transformers raises inside of the block is told as an error of that folder.

    Raises:
        WeightsError: there is no such folder and the hub does not give it, or the folder is damaged.
    """
    from transformers.utils import logging

    folder = Path(source) if Path(source).is_dir() else _fetch(source)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield folder
    except Exception as error:  # the library raises many kinds for a folder that is not what it should be
        raise WeightsError(
            f"{source} is not a whole folder in the hub's format: {first_line(error)}; copy or save it again"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:  # no network, no such name, a name that can be none, no right to read
        raise WeightsError(
            f"{name} is no folder, and the hub does not give it ({first_line(error)}); give a folder in the hub's format"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
