"""What depends on a clip's frames alone, computed once, however often the clip is looked at."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from refavs_rt.model.eemc import EEMC


def looking_once(model: EEMC) -> EEMC:
    """The same network for one clip, decoded at the same ticks each time: the backbone and the pixel decoder run at the first
    call, whatever sound, sentences or temporal mode go with the frames later."""
    out = copy.copy(model)
    kept = {name: _Once(getattr(model, name)) for name in ("backbone", "pixel_decoder")}
    out._modules = {**model._modules, **kept}
    return out


class _Once(nn.Module):
    """Answers every call with the result of the first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.result: Any = None

    def forward(self, *inputs: Any) -> Any:
        if self.result is None:
            self.result = self.module(*inputs)
        return self.result
