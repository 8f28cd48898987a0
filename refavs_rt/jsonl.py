"""Results as JSON, one line a frame.

    {"index": 0, "pts_s": 0.04, "sentences": [{"text": ..., "presence": 0.93, "box": [x, y, width, height],
     "centroid": [x, y], "area": pixels, "mask": {"size": [height, width], "counts": COCO's compressed run lengths}}]}

Where a mask is empty, as it is for a sentence that nothing fits, box and centroid are null and area is 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from . import masks

if TYPE_CHECKING:
    from .result import Result


def frame_record(result: Result) -> dict[str, Any]:
    """What a line says of a frame."""
    rows = zip(result.texts, result.presence, result.masks, strict=True)
    return {
        "index": result.index,
        "pts_s": round(result.pts_s, 6),
        "sentences": [_sentence_record(text, float(presence), mask) for text, presence, mask in rows],
    }


def write_line(stream: IO[str], result: Result) -> None:
    """Append a frame's line to an open text file, as a whole."""
    stream.write(json.dumps(frame_record(result), ensure_ascii=False, allow_nan=False) + "\n")


def read_records(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The frames of a file of lines, also of one that a killed run left: its last line is passed over if it is cut off."""
    with open(path, "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _sentence_record(text: str, presence: float, mask: masks.Mask) -> dict[str, Any]:
    centre = masks.centroid(mask)
    return {
        "text": text,
        "presence": round(presence, 4),
        "box": masks.box(mask),
        "centroid": centre and [round(v, 2) for v in centre],
        "area": int(mask.sum()),
        "mask": masks.rle_encode(mask),
    }
