"""VGGish: the whole network against numpy in TensorFlow's layout, published names and shapes, and the encoder around it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from refavs_rt.config import FULL
from refavs_rt.model.vggish import EMBEDDING, Vggish, VggishEncoder, from_tensorflow

CHANNELS, HIDDEN = (2, 3, 4, 5), 7
SMALL = dataclasses.replace(
    FULL, width=24, audio_channels=CHANNELS, vggish_hidden=HIDDEN, projection_hidden=6
)

PUBLISHED = {
    "vggish/conv1/weights": (3, 3, 1, 64),
    "vggish/conv1/biases": (64,),
    "vggish/conv2/weights": (3, 3, 64, 128),
    "vggish/conv2/biases": (128,),
    "vggish/conv3/conv3_1/weights": (3, 3, 128, 256),
    "vggish/conv3/conv3_1/biases": (256,),
    "vggish/conv3/conv3_2/weights": (3, 3, 256, 256),
    "vggish/conv3/conv3_2/biases": (256,),
    "vggish/conv4/conv4_1/weights": (3, 3, 256, 512),
    "vggish/conv4/conv4_1/biases": (512,),
    "vggish/conv4/conv4_2/weights": (3, 3, 512, 512),
    "vggish/conv4/conv4_2/biases": (512,),
    "vggish/fc1/fc1_1/weights": (6 * 4 * 512, 4096),
    "vggish/fc1/fc1_1/biases": (4096,),
    "vggish/fc1/fc1_2/weights": (4096, 4096),
    "vggish/fc1/fc1_2/biases": (4096,),
    "vggish/fc2/weights": (4096, 128),
    "vggish/fc2/biases": (128,),
}
"""Variables of the TensorFlow checkpoint."""


def tensorflow_arrays(seed: int, suffix: str = "") -> dict[str, NDArray[np.float64]]:
    """Random variables of a small VGGish under TensorFlow's names, in its layout."""
    first, second, third, last = CHANNELS
    sizes = {
        1: 1,
        64: first,
        128: second,
        256: third,
        512: last,
        6 * 4 * 512: 6 * 4 * last,
        4096: HIDDEN,
        3: 3,
    }
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in PUBLISHED.items():
        small = [sizes[n] for n in shape]
        if "fc2" in name:
            small[-1] = EMBEDDING
        scale = 1.0 if name.endswith("biases") else (2 / np.prod(small[:-1])) ** 0.5
        arrays[name + suffix] = rng.standard_normal(small) * scale
    return arrays


def formula(arrays: dict[str, NDArray[np.float64]], log_mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """[B, 96, 64] -> [B, 128]: the published network, channels last, written from the paper without torch."""

    def convolve(x: NDArray[np.float64], scope: str) -> NDArray[np.float64]:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = arrays[f"vggish/{scope}/weights"]
        height, width = x.shape[1:3]
        out = sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
        return np.maximum(out + arrays[f"vggish/{scope}/biases"], 0)

    def pool(x: NDArray[np.float64]) -> NDArray[np.float64]:
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))

    def dense(x: NDArray[np.float64], scope: str) -> NDArray[np.float64]:
        return x @ arrays[f"vggish/{scope}/weights"] + arrays[f"vggish/{scope}/biases"]

    x = pool(convolve(log_mel[..., None], "conv1"))
    x = pool(convolve(x, "conv2"))
    x = pool(convolve(convolve(x, "conv3/conv3_1"), "conv3/conv3_2"))
    x = pool(convolve(convolve(x, "conv4/conv4_1"), "conv4/conv4_2"))
    x = np.maximum(dense(x.reshape(len(x), -1), "fc1/fc1_1"), 0)
    return dense(np.maximum(dense(x, "fc1/fc1_2"), 0), "fc2")


def loaded(arrays: dict[str, NDArray[np.float64]], final_relu: bool = False) -> Vggish:
    model = Vggish(CHANNELS, HIDDEN, final_relu=final_relu).double()
    model.load_state_dict(from_tensorflow({name: torch.from_numpy(a) for name, a in arrays.items()}))
    return model


@pytest.mark.parametrize("final_relu", [False, True])
def test_the_whole_network_is_the_formula(final_relu: bool) -> None:
    arrays = tensorflow_arrays(0)
    patches = np.random.default_rng(1).standard_normal((3, 96, 64))
    expected = formula(arrays, patches)
    assert (expected < -0.1).any() and expected.std() > 0.1
    # Not contiguous, as a window cut out of a longer track is.
    given = torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 2, 1))).transpose(1, 2)
    found = loaded(arrays, final_relu)(given)
    expected = np.maximum(expected, 0) if final_relu else expected
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-12, rtol=1e-10)


def test_the_dense_layers_read_channels_last() -> None:
    """Input i of the first dense layer is place (h, w) and channel c with i = (4 h + w) C + c, as TensorFlow flattens."""
    model = Vggish(CHANNELS, HIDDEN).double()
    patch = torch.randn(1, 96, 64, dtype=torch.float64)
    maps = model.features(patch[:, None])[0]
    assert maps.shape == (5, 6, 4)
    read: list[Tensor] = []
    model.embeddings.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0]))
    model(patch)
    for index in (0, 1, 5, 23, 61, 119):
        place, channel = divmod(index, 5)
        assert read[0][index] == maps[channel, place // 4, place % 4]


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = Vggish().state_dict()
        mapped = from_tensorflow({name: torch.empty(shape) for name, shape in PUBLISHED.items()})
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{i}" for i in (0, 2, 4)]
    assert list(state) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert {n: v.shape for n, v in mapped.items()} == {n: v.shape for n, v in state.items()}
    assert sum(value.numel() for value in state.values()) == 72_141_184


def test_tensorflow_names_with_and_without_their_output_number() -> None:
    plain, numbered = (
        from_tensorflow({n: torch.from_numpy(a) for n, a in tensorflow_arrays(2, suffix).items()})
        for suffix in ("", ":0")
    )
    assert plain.keys() == numbered.keys() and all(torch.equal(plain[n], numbered[n]) for n in plain)


def test_what_is_no_variable_of_vggish_keeps_its_name() -> None:
    given = {
        "global_step": torch.tensor(3),
        "vggish/fc2/weights/Adam": torch.zeros(2, 3),
        "vggish/fc3/weights": torch.zeros(2, 3),
    }
    kept = from_tensorflow(given)
    assert kept.keys() == given.keys() and kept["vggish/fc3/weights"].shape == (2, 3)


@pytest.mark.parametrize("hidden", [0, 6])
def test_the_encoder_projects_the_embedding_and_knows_no_sound_from_silence(hidden: int) -> None:
    torch.manual_seed(0)
    encoder = VggishEncoder(dataclasses.replace(SMALL, projection_hidden=hidden)).double()
    torch.nn.init.normal_(encoder.no_sound)
    log_mel = torch.randn(3, 96, 64, dtype=torch.float64)
    has_sound = torch.tensor([True, False, True])
    tokens = encoder(log_mel, has_sound)
    embedding = encoder.vggish(log_mel)
    linear = [m for m in encoder.project.modules() if isinstance(m, torch.nn.Linear)]
    expected = embedding @ linear[0].weight.T + linear[0].bias
    if hidden:
        expected = expected.clamp(min=0) @ linear[1].weight.T + linear[1].bias
    assert tokens.shape == (3, 24) and len(linear) == (2 if hidden else 1)
    torch.testing.assert_close(tokens[has_sound], expected[has_sound])
    assert torch.equal(tokens[1], encoder.no_sound)


def test_only_the_projection_and_the_no_sound_token_train() -> None:
    encoder = VggishEncoder(SMALL)
    encoder(torch.randn(2, 96, 64), torch.tensor([True, False])).square().sum().backward()
    trained = {name for name, value in encoder.named_parameters() if value.grad is not None}
    assert trained == {"project.0.weight", "project.0.bias", "project.2.weight", "project.2.bias", "no_sound"}
    assert trained == {name for name, value in encoder.named_parameters() if value.requires_grad}
