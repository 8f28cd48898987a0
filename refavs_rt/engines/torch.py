"""The four graph functions of a network in torch, behind the same protocol as the engines that run a bundle.

It runs a checkpoint that is not exported yet, and is what exported graphs are compared with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..contract import graph_specs
from ..model.eemc import EEMC
from .base import Arrays


class TorchEngine:
    """Plain torch, eager.

    Args:
        model: the network; it is put in evaluation mode.
    """

    name = "torch"

    def __init__(self, model: EEMC) -> None:
        self.model = model.eval()
        self._torch_device = next(model.parameters()).device
        self.device = str(self._torch_device)
        self._specs = graph_specs(model.config)

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("text", inputs)

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("vision", inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("audio", inputs)

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("step", inputs)

    @torch.inference_mode()
    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        spec = self._specs[graph]
        given = (
            torch.from_numpy(np.ascontiguousarray(inputs[x.name])).to(self._torch_device) for x in spec.inputs
        )
        outputs = getattr(self.model, graph)(*given)
        return {x.name: y.float().cpu().numpy() for x, y in zip(spec.outputs, outputs, strict=True)}
