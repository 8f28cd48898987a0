"""All that a training needs to go on, under the names of the modules, so that any number of processes can read it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from .step import Stepper, is_norm

_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)
_OPTIMIZER = "optimizer."


def training_state(stepper: Stepper) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Numbers for JSON, and tensors: what trains, its average, batch norms, optimiser. Called by all processes; the main one's
    is whole. Frozen parts are left out: they come from where they came from."""
    model, average = stepper.model.state_dict(), stepper.average.state_dict()
    tensors = {f"model.{name}": model[name] for name in _moving(stepper)}
    tensors |= {f"average.{name}": average[name] for name in _moving(stepper)}
    tensors |= {f"names.{name}": value for name, value in stepper.module.names.state_dict().items()}
    groups: list[dict[str, Any]] = []
    if stepper.optimizer.state:  # asked of a fresh optimiser, the library would make it take a step first
        state: dict[str, Any] = get_optimizer_state_dict(stepper.module, stepper.optimizer, options=_OPTIONS)
        groups = state.get("param_groups", [])
        for parameter, parts in state.get("state", {}).items():
            tensors |= {f"{_OPTIMIZER}{parameter}.{part}": value for part, value in parts.items()}
    return {"faults": stepper.faults, "optimizer": groups}, tensors


def restore(stepper: Stepper, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put back what `training_state` gave, into a stepper that has not stepped yet.

    Raises:
        KeyError, RuntimeError, ValueError: it is of another network.
    """
    names = _moving(stepper)
    stepper.model.load_state_dict({name: tensors[f"model.{name}"] for name in names}, strict=False)
    stepper.average.load_state_dict({name: tensors[f"average.{name}"] for name in names}, strict=False)
    head = stepper.module.names
    head.load_state_dict({name: tensors[f"names.{name}"] for name in head.state_dict()})
    stepper.faults = int(values["faults"])
    if not values["optimizer"]:
        return
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            parameter, part = name.removeprefix(_OPTIMIZER).rsplit(".", 1)
            state.setdefault(parameter, {})[part] = value
    whole: dict[str, Any] = {"state": state, "param_groups": values["optimizer"]}
    set_optimizer_state_dict(stepper.module, stepper.optimizer, whole, options=_OPTIONS)
    for weight, moments in stepper.optimizer.state.items():
        for part, moment in moments.items():
            if moment.shape == weight.shape:  # in the weight's order of axes, which the file has not
                moments[part] = torch.empty_like(weight).copy_(moment)


def _moving(stepper: Stepper) -> list[str]:
    """Names in the network's state of all that training changes."""
    trained = [name for name, p in stepper.model.named_parameters() if p.requires_grad]
    return trained + [name for name, _ in stepper.model.named_buffers() if is_norm(name)]
