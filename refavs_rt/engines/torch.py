"""The four graph functions of a network in torch, behind the same protocol as the engines that run a bundle.

It runs a checkpoint that is not exported yet, and is what exported graphs are compared with. On a GPU it runs the kernels of
`kernels/`, and tensors stay there from graph to graph.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import ModelConfig
from ..contract import graph_specs
from ..model.eemc import EEMC
from ..model.run_folder import TOKENIZER, CheckpointError, load_run
from .base import TO_HOST, Arrays, EngineError, GraphByName, Held, is_constant


@dataclass(frozen=True)
class RunFolder:
    """What a session needs to know of a run folder: what `Bundle` says of a bundle."""

    path: Path
    config: ModelConfig
    tokenizer: bytes

    def read(self, name: str) -> bytes:
        """The bytes of the tokenizer's file; a session asks for no other."""
        if name != TOKENIZER:
            raise EngineError(f"{self.path / name}: a session does not read this file of a run folder")
        return self.tokenizer

    @property
    def sentences(self) -> tuple[int, int]:
        """Numbers of sentences that a step takes."""
        return 1, self.config.max_sentences


def open_run(path: Path, *, threads: int = 0) -> tuple[RunFolder, TorchEngine]:
    """A run folder of `python -m train`, on a GPU where torch sees one.

    Args:
        threads: of torch on the CPU; 0 leaves that to torch.

    Raises:
        EngineError: the folder cannot be read, or holds no run.
    """
    if threads < 0:
        raise EngineError(f"threads must be 0 or more, not {threads}")
    try:
        run = load_run(path)
    except CheckpointError as error:
        raise EngineError(str(error)) from error
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = TorchEngine(run.model.to(device))
    if device.type == "cuda":
        run.model.warm_up()
    return RunFolder(path, run.model.config, run.tokenizer), engine


class TorchEngine(GraphByName):
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
        self._on_device: weakref.WeakKeyDictionary[Held, torch.Tensor] = weakref.WeakKeyDictionary()
        """Tensors of the handles that were given out."""
        self._constants: dict[str, tuple[weakref.ref[NDArray[Any]], torch.Tensor]] = {}
        """Input name -> the read-only array that it had last, and its copy."""

    @torch.inference_mode()
    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        spec = self._specs[graph]
        outputs = getattr(self.model, graph)(*(self._tensor(x.name, inputs[x.name]) for x in spec.inputs))
        return {x.name: self._output(x.name, y.float()) for x, y in zip(spec.outputs, outputs, strict=True)}

    def _tensor(self, name: str, values: NDArray[Any] | Held) -> torch.Tensor:
        """An input where the network is."""
        if isinstance(values, Held) and (held := self._on_device.get(values)) is not None:
            return held
        values = np.asarray(values)
        known = self._constants.get(name)
        if known is not None and known[0]() is values:
            return known[1]
        # A copy of its own: torch warns of read-only arrays, and takes no negative strides.
        tensor = torch.from_numpy(np.array(values)).to(self._torch_device)
        if is_constant(values):
            self._constants[name] = weakref.ref(values), tensor
        return tensor

    def _output(self, name: str, tensor: torch.Tensor) -> Any:
        if tensor.device.type == "cpu" or name in TO_HOST:
            return tensor.cpu().numpy()
        shape, dtype = tuple(tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch."))
        held = Held(shape, dtype, lambda: tensor.cpu().numpy())
        self._on_device[held] = tensor
        return held
