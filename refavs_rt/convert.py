"""Results as other libraries take them: COCO's result records, and the arrays of supervision's `Detections`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .masks import box, rle_encode

if TYPE_CHECKING:
    from .result import Result


def to_coco(result: Result, image_id: int) -> list[dict[str, Any]]:
    """A record in COCO's results format for each sentence with a mask, as `pycocotools.coco.COCO.loadRes` takes them.

    `category_id` is the sentence's place among the frame's, from 1 on; `score` its presence.
    """
    records = []
    for place, (mask, presence) in enumerate(zip(result.masks, result.presence, strict=True)):
        found = box(mask)
        if found is None:
            continue
        records.append(
            {
                "image_id": image_id,
                "category_id": place + 1,
                "segmentation": rle_encode(mask),
                "bbox": [float(side) for side in found],
                "area": float(mask.sum()),
                "score": float(presence),
            }
        )
    return records


def to_detections(result: Result) -> dict[str, Any]:
    """The arguments of `supervision.Detections` for the sentences with a mask.

    Returns:
        xyxy [M, 4] float32, mask [M, H, W] bool, confidence [M] float32, class_id [M] int (the sentence's place among the
        frame's, from 0 on), and data with class_name [M], the sentences.
    """
    boxes = {place: found for place, mask in enumerate(result.masks) if (found := box(mask)) is not None}
    places = np.array(list(boxes), np.int64)
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes.values()]
    return {
        "xyxy": np.array(corners, np.float32).reshape(-1, 4),
        "mask": result.masks[places],
        "confidence": result.presence[places],
        "class_id": places,
        "data": {"class_name": np.array([result.texts[place] for place in boxes], dtype=str)},
    }
