"""The truth of an expression as the benchmark compares it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refavs_rt.dataset import Row, mask_path, read_picture

from .metrics import truth_mask


def read_masks(folder: Path, row: Row, count: int) -> NDArray[np.bool_]:
    """The truth of an expression [T, 256, 256]; empty for null expressions.

    Raises:
        DataError: a mask is missing or damaged.
    """
    if row.is_null:
        return np.zeros((count, 256, 256), bool)
    paths = (mask_path(folder, row.clip, row.object_id, i) for i in range(count))
    return np.stack([truth_mask(np.asarray(read_picture(path, "L"))) for path in paths])
