"""The rows behind the clips of a data set on disk, and what their words tell: the table does not say of what kind they are."""

from __future__ import annotations

import re
from pathlib import Path

from refavs_rt.dataset import Row, read_table

from .clips import EvaluationClip
from .observation import NULL

_SOUND = re.compile(
    r"\b(sound|sounds|sounded|sounding|resound\w*|nois\w+|hear\w*|audi\w+|loud\w*|emit\w*|emission|play\w*|sing|sings|singing|song|"
    r"speak\w*|talk\w*|vocal\w*|voice|volume|tempo|rhythm|tone\w*|melod\w+|music\w*|silent\w*|quiet\w*)\b"
)
_RELATION = re.compile(
    r"\b(left|right|front|behind|near|next|beside|adjacent|close|between|above|below|under|beneath|top|bottom|upper|lower|middle|"
    r"cent(er|re)|first|second|third|last|final|initial|inaugural|after|before|following|preceding|succeeding|than|not|no|without|"
    r"silent|quiet|\w+n't|(?!rest)\w+est)\b"
)
_ARTICLES = ("the", "a", "an")


class Rows:
    """The rows of a split that mean an object."""

    def __init__(self, folder: Path, split: str) -> None:
        """Read them.

        Raises:
            DataError: there are none with their clips on disk.
        """
        self._by_clip = dict(read_table(folder, split).by_clip())

    def of(self, clip: EvaluationClip) -> list[Row]:
        """A row for each sentence of the clip, in order; none for the twin of a clip, which nothing in it fits."""
        if any(sentence.kind == NULL for sentence in clip.sentences):
            return []
        return self._by_clip[clip.name]


def says_name(row: Row) -> bool:
    """Whether the sentence holds the name of the class, one of it or many."""
    return re.search(rf"\b{re.escape(row.class_name.lower())}(s|es)?\b", row.text.lower()) is not None


def says_name_alone(row: Row) -> bool:
    """Whether it holds nothing else but an article."""
    words = [word for word in re.findall(r"[\w'-]+", row.text.lower()) if word not in _ARTICLES]
    return says_name(row) and len(words) == len(row.class_name.split())


def says_sound(text: str) -> bool:
    """Whether it speaks of sound or of silence."""
    return _SOUND.search(text.lower()) is not None


def says_relation(text: str) -> bool:
    """Whether it has a word of place, order or comparison, or denies something."""
    return _RELATION.search(text.lower()) is not None


def kind_of(row: Row) -> str:
    """The kind of a row as the data set names it, else as its words tell: "sound", "name" or "other"."""
    return row.kind or ("sound" if says_sound(row.text) else "name" if says_name(row) else "other")
