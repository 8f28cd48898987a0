"""The measures of the Ref-AVS benchmark (paper section 5.1): J, F and, for null expressions, S.

All are taken at 256 x 256 on the sigmoid of the mask logits, resized bilinearly.

    J   intersection over union of the mask (p > 0.4) and the truth; an empty truth is scored on the background
    F   (1 + b) P R / (b P + R), b = beta^2 = 0.3: the largest over 255 thresholds of the mean curve, frames with a truth only
    S   sqrt(share of pixels with p > 0.5), for expressions that nothing fits

Two ways to take means stand side by side: one figure an expression, and the authors' code's, which pools each 4 expressions in
table order. Means are over batches then, the last of which may be smaller; a batch without any truth has F = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

SIZE = 256
MASK_THRESHOLD = 0.4
NULL_THRESHOLD = 0.5
BETA_SQUARED = 0.3
AUTHORS_BATCH = 4
_THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)
_EPS = 1e-20


@dataclass(frozen=True)
class FrameScores:
    """What one expression's frames contribute, before any mean."""

    iou: NDArray[np.float64]
    """[T]"""
    f_curves: NDArray[np.float64]
    """[T', 255], of the frames whose truth is not empty."""
    shown: NDArray[np.float64]
    """[T]: share of pixels above `NULL_THRESHOLD`."""


@dataclass(frozen=True)
class Summary:
    """J and F over expressions with an object, S over null expressions; None where there are none."""

    J: float | None
    F: float | None
    S: float | None


def score_frames(
    logits: NDArray[np.float32], truth: NDArray[np.bool_], present: NDArray[np.bool_] | None = None
) -> FrameScores:
    """Score one expression.

    Args:
        logits: [T, h, w].
        truth: [T, 256, 256].
        present: [T] bool; a frame where it is False counts as predicted empty. None: no gate.
    """
    share = probabilities(logits)
    if present is not None:
        share = share * present[:, None, None]
    curves = [f_curve(p, t) for p, t in zip(share, truth, strict=True) if t.any()]
    return FrameScores(
        iou=np.array([jaccard(p > MASK_THRESHOLD, t) for p, t in zip(share, truth, strict=True)]),
        f_curves=np.stack(curves) if curves else np.zeros((0, len(_THRESHOLDS))),
        shown=(share > NULL_THRESHOLD).mean(axis=(1, 2)),
    )


def mean_jaccard(logits: NDArray[np.float32], truth: NDArray[np.bool_], present: NDArray[np.bool_]) -> float:
    """J of one expression with the presence gate: the mean over frames; arguments as in `score_frames`."""
    share = probabilities(logits) * present[:, None, None]
    return float(np.mean([jaccard(p > MASK_THRESHOLD, t) for p, t in zip(share, truth, strict=True)]))


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sigmoid [T, 256, 256] of mask logits [T, h, w], resized as logits."""
    resized = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(logits))[:, None],
        (SIZE, SIZE),
        mode="bilinear",
        align_corners=False,
    )
    result: NDArray[np.float32] = torch.sigmoid(resized[:, 0]).numpy()
    return result


def truth_mask(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A mask picture [h, w] as the benchmark compares it: resized bilinearly to 256 x 256, and above 0."""
    pixels = torch.from_numpy(picture.astype(np.float32))[None, None]
    resized = functional.interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False)
    result: NDArray[np.bool_] = (resized[0, 0] > 0).numpy()
    return result


def jaccard(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; where the truth is empty, the share of pixels that are rightly background."""
    if not truth.any():
        return float((~mask).mean())
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def f_curve(share: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F at each of the 255 thresholds, a pixel counting as predicted at p >= threshold."""
    reached = np.searchsorted(_THRESHOLDS, share.ravel().astype(np.float64), side="right")
    hits = np.bincount(reached[truth.ravel()], minlength=len(_THRESHOLDS) + 1)
    every = np.bincount(reached, minlength=len(_THRESHOLDS) + 1)
    true_positive = hits[::-1].cumsum()[::-1][1:].astype(np.float64)
    predicted = every[::-1].cumsum()[::-1][1:].astype(np.float64)
    precision, recall = true_positive / (predicted + _EPS), true_positive / (truth.sum() + _EPS)
    bottom = BETA_SQUARED * precision + recall
    return np.where(
        bottom > 0, (1 + BETA_SQUARED) * precision * recall / np.where(bottom > 0, bottom, 1), 0.0
    )


def per_expression(scores: Sequence[FrameScores], null: Sequence[bool]) -> Summary:
    """Each expression's own figure, then the mean over expressions."""
    return _summary(scores, null, 1, None)


def authors(scores: Sequence[FrameScores], null: Sequence[bool]) -> Summary:
    """Means over batches of 4 expressions in table order, F the largest of each batch's mean curve, S pooled in the batch."""
    return _summary(scores, null, AUTHORS_BATCH, 0.0)


def _summary(
    scores: Sequence[FrameScores], null: Sequence[bool], batch: int, truthless_f: float | None
) -> Summary:
    """`truthless_f`: F of a batch without any truth; None leaves it out."""
    objects = [s for s, is_null in zip(scores, null, strict=True) if not is_null]
    nulls = [s for s, is_null in zip(scores, null, strict=True) if is_null]
    groups = [objects[i : i + batch] for i in range(0, len(objects), batch)]
    j = [np.concatenate([s.iou for s in group]).mean() for group in groups]
    curves = [np.concatenate([s.f_curves for s in group]) for group in groups]
    best = [curve.mean(axis=0).max() if len(curve) else truthless_f for curve in curves]
    f = [value for value in best if value is not None]
    s = [
        np.sqrt(np.concatenate([s.shown for s in nulls[i : i + batch]]).mean())
        for i in range(0, len(nulls), batch)
    ]
    return Summary(*(float(np.mean(values)) if values else None for values in (j, f, s)))
