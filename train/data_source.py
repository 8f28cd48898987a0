"""What `--data` names: a pack for generated scenes, built on first use."""

from __future__ import annotations

from pathlib import Path

from .material import Pack, build_pack


def open_source(data: str | None, runs: Path) -> Pack:
    """The pack that `data` names; without one, `runs/scenes.pack`, built where it does not exist yet.

    Raises:
        FileNotFoundError: the named pack does not exist.
        MaterialError: the media packages are not installed; the message has the line that installs them.
    """
    if data is None:
        path = runs / "scenes.pack"
        if not path.exists():
            runs.mkdir(exist_ok=True)
            print(f"building the pack of pictures and sounds: {path} (once)", flush=True)
            build_pack(path)
        return Pack.load(path)
    path = Path(data.removeprefix("scenes:"))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a pack; python -m train without --data builds one")
    return Pack.load(path)
