"""Which object is taken for which: where a mask lies, against the object that was meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..scenes.facts import verbs_differ
from .bootstrap import mean_estimate
from .observation import Matrix, Observation

ITSELF, NOTHING = "itself", "no object"
LARGEST = 12
"""Rows and columns of the matrix, at most."""
_LISTED = 6


@dataclass(frozen=True)
class Taken:
    """What the mask of one sentence lies on. Objects are named by their index."""

    clip: str
    meant: int
    taken: int | None
    """None: no object."""
    classes: tuple[str, ...]
    """Of the clip's objects."""
    families: tuple[str, ...]
    """Wider classes of theirs, or the same."""
    verbs: tuple[str | None, ...]
    """Of their sounds."""
    sounding: tuple[int, ...]
    """Those that sound."""

    @property
    def pair(self) -> tuple[str, str] | None:
        """Class meant, class taken for it; None where the mask lies on the class meant or on nothing."""
        if self.taken is None or self.classes[self.taken] == self.classes[self.meant]:
            return None
        return self.classes[self.meant], self.classes[self.taken]


def confusion(taken: Sequence[Taken]) -> Matrix | None:
    """Rows: the families meant that are mistaken most often. Columns: the share of their sentences whose mask lies on what was
    meant; for each of the families most often taken for others, of the sentences with an object of it beside, the share whose
    mask lies on such a one, NaN where there is none; and the share of all whose mask lies on no object. None where nothing was
    mistaken.
    """
    wrong = [t for t in taken if t.pair]
    meant = _commonest(t.families[t.meant] for t in wrong)
    others = _commonest(t.families[t.taken] for t in wrong if t.taken is not None)
    labels, shares = [], []
    for name in meant:
        of_row = [t for t in taken if t.families[t.meant] == name]
        labels.append(f"{name} ({len(of_row)})")
        beside = [_share([_lies_on(t, other) for t in of_row if other in _beside(t)]) for other in others]
        right = _share([t.taken is not None and t.pair is None for t in of_row])
        shares.append([right, *beside, _share([t.taken is None for t in of_row])])
    return (labels, [ITSELF, *others, NOTHING], shares) if wrong else None


def taken_notes(taken: Sequence[Taken]) -> list[str]:
    """What the masks of sentences by sound lie on, and what was mistaken most often."""
    if not taken:
        return []
    wrong = [t for t in taken if t.pair]
    nothing = sum(t.taken is None for t in taken)
    right = len(taken) - len(wrong) - nothing
    clips: dict[tuple[str, str], list[str]] = {}
    for t in wrong:
        clips.setdefault(t.pair or ("", ""), []).append(t.clip)
    listed = [
        f"{other} for {name} ({_times(len(each), 'sentence')}, {_times(len(set(each)), 'clip')})"
        for (name, other), each in sorted(clips.items(), key=lambda x: (-len(set(x[1])), -len(x[1]), x[0]))[
            :_LISTED
        ]
    ]
    out = [
        f"of {len(taken)} masks of sentences by sound or by what the object does, {right / len(taken):.0%} lie on the class that "
        f"was meant, {len(wrong) / len(taken):.0%} on another object, {nothing / len(taken):.0%} on none; a mask lies on the "
        "object that most of its pixels are on, on none if more of them are on no object"
    ]
    if listed:
        out.append("taken in most clips: " + "; ".join(listed))
        out.append(
            "matrix: a row is what was meant, with the number of sentences, a column what the mask lies on; a share is of the "
            "sentences about the row, but for another object of those with such a one beside"
        )
    return out


def alike_notes(taken: Sequence[Taken], seed: int) -> list[str]:
    """How often an object beside the one meant is taken for it, if it sounds like it and if it does not, with 95% intervals."""
    cells: dict[tuple[bool, bool], list[Observation]] = {}
    for t in taken:
        for i, verb in enumerate(t.verbs):
            own = t.verbs[t.meant]
            if t.classes[i] == t.classes[t.meant] or verb is None or own is None:
                continue
            key = i in t.sounding, not verbs_differ(own, verb)
            cells.setdefault(key, []).append(Observation("", "", t.clip, float(t.taken == i)))
    parts = []
    for (sounds, alike), pairs in sorted(cells.items(), reverse=True):
        share = mean_estimate(pairs, seed)
        interval = "" if share.low is None else f", {share.low:.1%} to {share.high:.1%}"
        words = (
            f"{'sounds too' if sounds else 'is silent'} and is of {'a like' if alike else 'another'} sound"
        )
        parts.append(f"one that {words} in {share.mean:.1%} (of {len(pairs)} pairs{interval})")
    if not parts:
        return []
    return [
        "how often an object beside the one meant is taken for it, sounds being alike if their verbs are not surely told "
        "apart, as a moo and a bellow, or two instruments played: " + "; ".join(parts)
    ]


def _times(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' if count > 1 else ''}"


def _commonest(names: Iterable[str]) -> list[str]:
    return [name for name, _ in sorted(Counter(names).items(), key=lambda x: (-x[1], x[0]))[:LARGEST]]


def _beside(taken: Taken) -> set[str]:
    """Families of the objects of other classes than the one meant."""
    return {
        family
        for family, name in zip(taken.families, taken.classes, strict=True)
        if name != taken.classes[taken.meant]
    }


def _lies_on(taken: Taken, family: str) -> bool:
    """Whether the mask lies on an object of another class than the one meant, of this family."""
    return taken.taken is not None and taken.pair is not None and taken.families[taken.taken] == family


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else float("nan")
