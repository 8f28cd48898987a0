"""That a frame can be recorded as a CUDA graph, with no GPU: nothing is made on the host, and nothing waits for the device."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from refavs_rt.config import MEL_BINS, PATCH_FRAMES, TEST, ModelConfig
from refavs_rt.contract import graph_specs
from refavs_rt.model.eemc import EEMC

from .full_small import FULL_SMALL


class _OfNumbers(TorchFunctionMode):
    """Collects where a tensor is made of Python's numbers, which is a copy from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor):
            self.found += [
                f"{func.__name__} at {x.filename}:{x.lineno}" for x in traceback.extract_stack()[-2:-1]
            ]
        return func(*args, **(kwargs or {}))


class _OnHost(TorchDispatchMode):
    """Collects what makes a tensor on the CPU, or reads a number from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        on_host = any(isinstance(x, Tensor) and x.device.type == "cpu" for x in made)
        if on_host or func is torch.ops.aten._local_scalar_dense.default:
            self.found.append(str(func))
        return out


def _off_the_host(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and buffers on the device `meta`, which has no data, and stands for one that is not the host."""

    def moved(x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=dtype if x.is_floating_point() else x.dtype, device="meta")

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(moved(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = moved(buffer)


def _frame(model: EEMC, dtype: torch.dtype, sentences: int) -> tuple[Tensor, ...]:
    config, graphs = model.config, graph_specs(model.config)
    kinds = {"float32": dtype, "int64": torch.int64, "bool": torch.bool}
    given = {
        "frame": torch.empty(1, 3, config.image_size, config.image_size, dtype=dtype, device="meta"),
        "log_mel": torch.empty(1, PATCH_FRAMES, MEL_BINS, dtype=dtype, device="meta"),
        "has_sound": torch.empty(1, dtype=torch.bool, device="meta"),
    }
    produced = {spec.name for graph in ("vision", "audio") for spec in graphs[graph].outputs}
    for spec in graphs["step"].inputs:
        if spec.name not in produced:
            shape = [sentences if axis == "N" else int(axis) for axis in spec.shape]
            given[spec.name] = torch.empty(shape, dtype=kinds[spec.dtype], device="meta")
    with _OfNumbers() as numbers, _OnHost() as host:
        for graph in ("vision", "audio"):
            outputs = getattr(model, graph)(*(given[spec.name] for spec in graphs[graph].inputs))
            given |= {spec.name: x for spec, x in zip(graphs[graph].outputs, outputs, strict=True)}
        found = model.step(*(given[spec.name] for spec in graphs["step"].inputs))
    assert not numbers.found and not host.found, "\n".join([*numbers.found, *host.found])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("config", [TEST, FULL_SMALL], ids=["test", "full"])
def test_a_frame_stays_on_the_device(config: ModelConfig, dtype: torch.dtype) -> None:
    if config.backbone == "swin":
        pytest.importorskip("transformers")
    with torch.no_grad():
        model = EEMC(config).eval()
        _off_the_host(model, dtype)
        masks, presence, *_ = _frame(model, dtype, 3)
    assert masks.shape == (3, config.mask_size, config.mask_size)
    assert presence.device.type == "meta"
