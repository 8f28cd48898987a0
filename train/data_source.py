"""What `--data` names: generated scenes from a pack, built on first use, or a data set on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from .batches import BatchConfig, Clip, ClipSource, SceneClips
from .disk_batches import DiskSource, validation_clips
from .material import Pack, build_pack
from .scenes import SceneGenerator
from .validate import scene_clips

PACK_FILE = "scenes.pack"
_SCENES = "scenes:"
_DATA = (
    "generated scenes: photo cut-outs and sounds of the Tux Paint stamps, sounds and backgrounds of GCompris, melodies of the "
    "sound banks TimGM6mb and FluidR3; the frozen backbone is EfficientNet-Lite0 trained on ImageNet, the frozen sentence "
    "encoder all-MiniLM-L6-v2"
)
"""What the generated scenes and the frozen parts are made of, for manifests and model cards."""


class Source(Protocol):
    """Where a run gets its clips from."""

    names: tuple[str, ...]
    """Names of the classes, for the dense supervision."""
    material: dict[str, str]
    """`data` and `licence`: what the weights come from, for manifests and model cards."""
    address: str | None
    """What `--data` calls it on this machine; None: the usual pack of scenes."""

    def digest(self) -> str:
        """The same where the same clips would be drawn."""

    def clips(self, config: BatchConfig) -> ClipSource:
        """Clips for training, drawn by chance."""

    def validation(self, count: int, image_size: int) -> Sequence[Clip]:
        """At most `count` clips that training never sees."""


class SceneSource:
    """Scenes generated in memory."""

    def __init__(self, pack: Pack, address: str | None = None) -> None:
        self.pack = pack
        self.address = address
        self.names = pack.train_class_names
        self.material = {"data": _DATA, "licence": "; ".join(sorted(_licences(pack)))}

    def digest(self) -> str:
        """Of the pack."""
        return self.pack.digest()

    def clips(self, config: BatchConfig) -> SceneClips:
        """Clips of the split `train`."""
        return SceneClips(SceneGenerator(self.pack, "train", seed=0), self.names, config)

    def validation(self, count: int, image_size: int) -> list[Clip]:
        """Clips of the split `val`, whatever the seed of the run."""
        return scene_clips(SceneGenerator(self.pack, "val", seed=1), count, image_size)


def note(text: str) -> None:
    """Say on standard error what a person may want to know."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def open_source(data: str | None, runs: Path, tell: Callable[[str], None] = note) -> Source:
    """The source that `data` names: `scenes:PACK`, or the folder of a data set in the form of Ref-AVS; without one, scenes
    from the pack in `runs`, built where it does not exist yet.

    Args:
        data: as above.
        runs: the folder of the pack, and of what is computed of a data set once: `runs/log-mels`, which can be deleted.
        tell: is told what of a data set cannot be used.

    Raises:
        FileNotFoundError: what is named does not exist.
        MaterialError: the media packages are not installed (the message has the line that installs them), or the pack is
            damaged.
        DataError: the folder is no data set.
    """
    if data is None:
        return SceneSource(default_pack(runs))
    path = _path_of(data)
    if _is_data_set(data):
        return DiskSource(path, runs / "log-mels", tell)
    return SceneSource(Pack.load(path), f"{_SCENES}{path.resolve()}")


def open_validation(data: str | None, runs: Path, count: int, image_size: int) -> list[Clip]:
    """At most `count` clips that training never sees, of the data set that `data` names as for `open_source`; what it has for
    training need not be there.

    Raises:
        FileNotFoundError, MaterialError: as `open_source`.
        DataError: the folder is no data set, or has no clip of the split `val`.
    """
    if data is not None and _is_data_set(data):
        return validation_clips(_path_of(data), count, image_size)
    return list(open_source(data, runs).validation(count, image_size))


def _is_data_set(data: str) -> bool:
    """Whether `data` names a data set; else it is a pack.

    Raises:
        FileNotFoundError: it is neither.
    """
    path = _path_of(data)
    if path.is_dir() and not data.startswith(_SCENES):
        return True
    if not path.is_file():
        raise FileNotFoundError(
            f"--data {data}: there is neither a pack nor a data set; without --data a pack is built"
        )
    if path.suffix == ".csv":
        raise FileNotFoundError(f"--data {data} is a table and no pack: give its folder, {path.parent}")
    return False


def _path_of(data: str) -> Path:
    return Path(data.removeprefix(_SCENES))


def default_pack(runs: Path) -> Pack:
    """The pack in `runs`, built where it does not exist yet.

    Raises:
        MaterialError: the media packages are not installed (the message has the line that installs them), or the pack is
            damaged.
    """
    path = runs / PACK_FILE
    if not path.exists():
        print(f"building the pack of pictures and sounds: {path} (once)", flush=True)
        build_pack(path)
    return Pack.load(path)


def _licences(pack: Pack) -> set[str]:
    recordings = {recording.licence for thing in pack.things for recording in thing.recordings}
    return recordings | {background.licence for background in pack.backgrounds}
