"""The generator of scenes: number in, scene out, the same one each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..material import MaterialError, Pack, Thing
from .layout import (
    draw_backdrop,
    draw_camera,
    draw_finish,
    draw_look,
    draw_motion,
    draw_places,
    draw_size,
    material_split,
    photos_for,
)
from .motion import Motion
from .scene import Scene, SceneObject
from .soundtrack import draw_count, draw_gains, draw_noise, draw_parts, draw_voice, recordings_for
from .survey import survey
from .voice import Voice

SPLITS = ("train", "val", "test_s", "test_u", "test_n")
"""As in Ref-AVS: seen classes (test_s), classes never trained on (test_u), expressions that nothing fits (test_n)."""

_TRIES = 10
_COUNT_SHARES = (0.12, 0.34, 0.37, 0.17)
"""Share of scenes with 1, 2, 3 and 4 objects."""


class SceneGenerator:
    """Scenes of one split.

    Args:
        pack: the pictures and sounds.
        split: one of `SPLITS`. Each uses only the classes, recordings and backgrounds that are its own.
        seed: another seed, other scenes.
        seconds: length of a scene.

    Raises:
        MaterialError: the pack was made for other splits.
        ValueError: the split is unknown, or the pack has no class for it.
    """

    def __init__(self, pack: Pack, split: str, *, seed: int, seconds: float = 10) -> None:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        if seconds < 1:
            raise ValueError(f"a scene lasts at least 1 second, not {seconds}")
        if material_split(split) not in pack.splits:
            raise MaterialError(
                f"{pack.path} has material for {' and '.join(pack.splits)} alone, none for {split}; give a whole pack, as "
                "`python -m train scenes` builds it"
            )
        self.pack = pack
        self.split = split
        self.seed = seed
        self.seconds = float(seconds)
        things = [t for t in pack.things if t.unseen == (split == "test_u")]
        self.capable = [t for t in things if recordings_for(t, split)]
        self.silent = [t for t in things if not recordings_for(t, split)]
        if not self.capable:
            raise ValueError(f"the pack has no class with a sound for the split {split!r}")
        self.photos = photos_for(pack, split)

    def scene(self, index: int) -> Scene:
        """Scene number `index` (>= 0): it depends on the seed, the split and `index` alone."""
        key = (self.seed, SPLITS.index(self.split), index)
        rng = np.random.default_rng(key)
        things = self._things(int(rng.choice(4, p=_COUNT_SHARES)) + 1, rng)
        voices = self._voices(things, rng)
        camera = draw_camera(self.seconds, rng)
        backdrop = draw_backdrop(self.photos, rng)
        finish = draw_finish(rng)
        noise = draw_noise(self.pack, self.split, rng)
        for attempt in range(_TRIES):
            objects = self._lay_out(things, voices, 1.0 - 0.05 * attempt, rng)
            seen = survey(self.pack, objects, camera, self.seconds)
            if (seen.visible.min(axis=0) > 0.25).all() and ((seen.visible > 0.55).mean(axis=0) >= 0.8).all():
                break
        else:  # no room for so many: the nearest alone, in the middle
            objects = [replace(objects[-1], motion=Motion("still", 0.5, 0.5))]
            seen = survey(self.pack, objects, camera, self.seconds)
        return Scene(
            self.pack, self.split, key, self.seconds, tuple(objects), camera, backdrop, finish, noise, seen
        )

    def _things(self, count: int, rng: np.random.Generator) -> list[Thing]:
        """Classes of a scene, the first of them able to sound; now and then two of the same."""
        weights = np.array([2.0 if "instrument" in t.kinds and not t.unseen else 1.0 for t in self.capable])
        things: list[Thing] = []
        for k in range(count):
            if k and things and rng.random() < 0.05:
                things.append(things[rng.integers(len(things))])
                continue
            can_sound = rng.random() < (0.94 if k == 0 else 0.62) or not self.silent
            if can_sound:
                pool: Sequence[Thing] = self.capable
                pick = int(rng.choice(len(pool), p=weights / weights.sum()))
            else:
                pool = self.silent
                pick = int(rng.integers(len(pool)))
            if k and rng.random() < 0.25:  # one of the same kind: harder to tell apart
                alike = [t for t in pool if set(t.kinds) & set(things[0].kinds)]
                thing = alike[rng.integers(len(alike))] if alike else pool[pick]
            else:
                thing = pool[pick]
            if thing not in things:
                things.append(thing)
        return [things[i] for i in rng.permutation(len(things))]

    def _voices(self, things: list[Thing], rng: np.random.Generator) -> list[Voice | None]:
        capable = [i for i, thing in enumerate(things) if recordings_for(thing, self.split)]
        count = draw_count(len(capable), rng)
        chosen: list[int] = []
        for i in rng.permutation(capable).tolist():
            if len(chosen) < count and things[i].sound_group not in {things[j].sound_group for j in chosen}:
                chosen.append(i)
        parts = draw_parts(len(chosen), self.seconds, rng)
        gains = draw_gains(len(chosen), rng)
        voices: list[Voice | None] = [None] * len(things)
        for i, part, gain in zip(chosen, parts, gains, strict=True):
            recordings = recordings_for(things[i], self.split)
            recording = recordings[rng.integers(len(recordings))]
            voices[i] = draw_voice(self.pack, recording, part, gain, self.seconds, rng)
        return voices

    def _lay_out(
        self, things: list[Thing], voices: list[Voice | None], shrink: float, rng: np.random.Generator
    ) -> list[SceneObject]:
        pictures = [thing.pictures[rng.integers(len(thing.pictures))] for thing in things]
        sizes = [draw_size(picture, len(things), rng) for picture in pictures]
        sizes = [(h * shrink, w * shrink) for h, w in sizes]
        places = draw_places(sizes, rng)
        objects = []
        all_still = bool(rng.random() < 0.3)
        for thing, voice, picture, (height, width), place in zip(
            things, voices, pictures, sizes, places, strict=True
        ):
            motion = draw_motion(height, width, place, self.seconds, all_still, rng)
            if motion.growth > 1:  # it grows to its size, not beyond
                height, width = height / motion.growth, width / motion.growth
            objects.append(
                SceneObject(
                    thing=thing,
                    picture=picture,
                    height=height,
                    width=width,
                    motion=motion,
                    look=draw_look(rng),
                    voice=voice,
                    other_recording=voice is not None and (thing.unseen or voice.recording.split != "train"),
                    intervals=voice.intervals(self.seconds) if voice else (),
                )
            )
        return objects
