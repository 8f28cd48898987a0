"""`make demo`, or `python -m refavs_rt.demo`: the main job on the short clip that comes with the package."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEMO = Path(__file__).parent / "assets" / "demo"


@dataclass(frozen=True)
class Demo:
    """A clip, and the sentences to ask about it."""

    clip: Path
    texts: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Demo:
        """Read `demo.json` of a folder: {"clip": file name, "texts": [sentence, ...]}.

        Raises:
            FileNotFoundError: the description or the clip is missing.
        """
        described = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
        clip = folder / described["clip"]
        if not clip.is_file():
            raise FileNotFoundError(2, "no such clip", str(clip))
        return cls(clip, tuple(described["texts"]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code of `refavs-rt stream`."""
    parser = argparse.ArgumentParser(prog="python -m refavs_rt.demo", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="folder for the results"
    )
    out: Path = parser.parse_args(argv).out
    try:
        demo = Demo.read(DEMO)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    overlay, records = out / "overlay.mp4", out / "masks.jsonl"
    arguments = ["stream", "--source", str(demo.clip)]
    for text in demo.texts:
        arguments += ["--text", text]
    arguments += ["--out", str(overlay), "--jsonl", str(records)]
    return _stream(arguments, overlay, records, len(demo.texts))


def _stream(arguments: list[str], overlay: Path, records: Path, sentences: int) -> int:
    from .cli import main as refavs_rt

    print(f"$ refavs-rt {shlex.join(arguments)}", flush=True)
    started = time.monotonic()
    code = refavs_rt(arguments)
    if code == 0:
        took_s = time.monotonic() - started
        with records.open(encoding="utf-8") as lines:
            frames = sum(1 for _ in lines)
        print(f"\nDone in {took_s:.1f} s: {frames} frames, {sentences} sentences, one colour each.")
        print(f"overlay  {overlay.resolve()}  (a video player shows it)")
        print(f"masks    {records.resolve()}  (one JSON object a frame)")
    return code


if __name__ == "__main__":
    sys.exit(main())
