"""How far two results lie apart."""

from __future__ import annotations

from typing import Any

import torch


def error(found: Any, expected: Any) -> float:
    """The largest, over the tensors of both, of ||found - expected|| / ||expected||; NaN where anything is."""
    ratios = [
        float((x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-12))
        for x, y in zip(_flat(found), _flat(expected), strict=True)
    ]
    return float("nan") if any(r != r for r in ratios) else max(ratios)


def _flat(out: Any) -> list[torch.Tensor]:
    return [x for x in out if x is not None] if isinstance(out, (tuple, list)) else [out]
