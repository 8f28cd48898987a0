"""Reading a published file of weights: PyTorch, safetensors or NumPy. Nothing in it is ever run."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from refavs_rt.model.hub import WeightsError, first_line

_TORCH = (".pth", ".pt", ".bin")
_FORMS = ", ".join((*_TORCH, ".safetensors", ".npz"))


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of a published file by name, as they stand there, on the CPU.

    Args:
        path: a state dict saved by PyTorch (.pth, .pt, .bin), .safetensors or .npz.

    Raises:
        WeightsError: no such file, another form, damaged, or it holds more than tensors.
    """
    if not path.is_file():
        wrong = "is no file" if path.exists() else "there is no such file"
        raise WeightsError(f"{path}: {wrong}; name one of the forms {_FORMS}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in _TORCH:
        return _read_torch(path)
    if path.suffix == ".ckpt":
        raise WeightsError(
            f"{path}: a TensorFlow checkpoint is not read here; with TensorFlow, write its variables by name as .npz"
        )
    raise WeightsError(f"{path}: not one of the forms {_FORMS}")


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on forms that are refused in the end
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is refused, since it is damaged or holds more than tensors, which could run code; nothing of it was run. "
            "Ask for its state dict or for safetensors"
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise WeightsError(f"{path}: is damaged, or no file of PyTorch ({first_line(error)})") from error
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: holds no state dict, but {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: holds no plain state dict: {name!r} is {type(value).__name__}, not a tensor; save the state dict alone"
            )
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path}: is damaged, or no safetensors ({first_line(error)})") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (
        AttributeError,
        EOFError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise WeightsError(
            f"{path}: is damaged, or holds more than arrays of numbers ({first_line(error)}); write it with numpy.savez"
        ) from error
