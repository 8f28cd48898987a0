"""A pack of coloured ellipses and tones, for tests that need a pack and not what it shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from refavs_rt.train.material import Background, Picture, Recording, Thing
from refavs_rt.train.material.pack import Split, encode_sound, write_pack

RATE = 16000
TONE_S = 1.5

_CLASSES: tuple[tuple[str, str, str, str | None, bool, bool], ...] = (
    ("dog", "hound, puppy", "animal", "bark", True, False),
    ("cow", "heifer", "animal", "moo", True, False),
    ("seagull", "gull, sea bird", "animal bird", "squawk", True, False),
    ("hen", "chicken", "animal bird", "cluck", True, False),
    ("violin", "fiddle", "instrument", "=play", True, False),
    ("drum kit", "drums, drum set", "instrument", "=play", True, False),
    ("kettle", "electric kettle", "", "boil", True, False),
    ("car", "", "vehicle", None, False, False),
    ("lemon", "", "fruit", None, False, False),
    ("scissors", "pair of scissors", "tool", None, False, False),
    ("koala", "koala bear", "animal", "grunt", True, True),
    ("camera", "", "", "click", True, True),
    ("ostrich", "rhea", "animal bird", None, False, True),
    ("avocado", "", "fruit", None, False, True),
)
"""Name, aliases, kinds, verb, whether it has recordings, whether it is never trained on."""


def write_tiny_pack(path: Path) -> Path:
    """Write it to `path`."""
    entries: dict[str, bytes] = {}
    things = []
    for number, (name, aliases, kinds, verb, sounds, unseen) in enumerate(_CLASSES):
        picture = Picture(f"pictures/{name}.png", 60 + 4 * number, 80, f"A {name}.")
        entries[picture.entry] = _ellipse(picture.width, picture.height, number)
        recordings = []
        splits: tuple[Split, ...] = ("train", "train", "val", "test") if number % 2 else ("train", "test")
        for k, split in enumerate(splits if sounds else ()):
            entry = f"sounds/{name}-{k}.snd"
            entries[entry] = encode_sound(_tone(150 + 90 * number + 20 * k))
            active = ((0.0, TONE_S),)
            recordings.append(Recording(entry, "stamp", f"{name}-{k}", split, TONE_S, active, "none"))
        things.append(
            Thing(
                name=name,
                aliases=tuple(aliases.split(", ")) if aliases else (),
                kinds=tuple(kinds.split()),
                verb=verb,
                unseen=unseen,
                sound_group=name,
                pictures=(picture,),
                recordings=tuple(recordings),
            )
        )
    backgrounds, ambiences = [], []
    places: tuple[Split, ...] = ("train", "train", "val", "test")
    for k, split in enumerate(places):
        entries[f"backgrounds/{k}.png"] = _png(np.full((90, 160, 3), 40 + 50 * k, np.uint8))
        backgrounds.append(Background(f"backgrounds/{k}.png", f"place-{k}", split, "none"))
        entries[f"ambiences/{k}.snd"] = encode_sound(_tone(60 + k))
        ambiences.append(Background(f"ambiences/{k}.snd", f"hum-{k}", split, "none"))
    write_pack(path, things, backgrounds, ambiences, [], entries)
    return path


def _ellipse(width: int, height: int, number: int) -> bytes:
    image = Image.new("RGBA", (width, height))
    colour = (250 - 15 * number, 60 + 90 * (number % 3), 20 + 16 * number, 255)
    ImageDraw.Draw(image).ellipse((0, 0, width - 1, height - 1), fill=colour)
    return _png(np.asarray(image))


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _tone(hz: float) -> np.ndarray:
    samples = np.sin(2 * np.pi * hz * np.arange(round(TONE_S * RATE)) / RATE)
    return np.round(4600 * samples).astype(np.int16)  # root mean square -20 dB of full scale
