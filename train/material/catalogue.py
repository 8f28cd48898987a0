"""The catalogue: every class that can be named, with its pictures, its words and the verb of its sound."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue_table import TABLE, UNSEEN

PLAYED = "=play"
"""The verb of instruments: they do not play, they are played."""


@dataclass(frozen=True)
class ThingClass:
    """One class of things."""

    name: str
    """Singular noun phrase: 'dog', 'fire truck'."""
    stamps: tuple[str, ...]
    """Pictures: paths below the stamps folder, without suffix."""
    voiced: tuple[str, ...]
    """Those of `stamps` whose own recording is the sound of the thing."""
    aliases: tuple[str, ...]
    """Other words that a person may call it by, wider ones included ('chicken' for a hen, 'drum' for a drum kit)."""
    confusable: tuple[str, ...]
    """Words that someone may wrongly call it by: never said of it, and not said of another thing beside it."""
    kinds: tuple[str, ...]
    """What it belongs to: 'animal', 'bird', 'instrument', ..."""
    verb: str | None
    """Base form of what it does when it sounds, `PLAYED` for an instrument, None where no verb is sure."""
    unseen: bool
    """Whether it belongs to the split test_u and so is never trained on."""


def catalogue() -> tuple[ThingClass, ...]:
    """All classes, sorted by name.

    Raises:
        ValueError: the table is malformed: a line has not five fields, or a name is given twice.
    """
    classes: dict[str, ThingClass] = {}
    folder = ""
    for line in TABLE.strip().splitlines():
        if line.startswith("["):
            folder = line.strip("[]")
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 5:
            raise ValueError(f"catalogue line has {len(fields)} fields, not 5: {line!r}")
        name, files, aliases, kinds, verb = fields
        if name in classes:
            raise ValueError(f"catalogue names {name!r} twice")
        words = [word.strip() for word in aliases.split(",") if word.strip()]
        paths = [(f"{folder}/{file.lstrip('+')}", file.startswith("+")) for file in files.split()]
        classes[name] = ThingClass(
            name=name,
            stamps=tuple(path for path, _ in paths),
            voiced=tuple(path for path, voiced in paths if voiced),
            aliases=tuple(word for word in words if not word.startswith("~")),
            confusable=tuple(word[1:] for word in words if word.startswith("~")),
            kinds=tuple(kinds.split()),
            verb=verb or None,
            unseen=name in UNSEEN,
        )
    missing = sorted(UNSEEN - set(classes))
    if missing:
        raise ValueError(f"the unseen class {missing[0]!r} is not in the catalogue")
    return tuple(classes[name] for name in sorted(classes, key=str.lower))
