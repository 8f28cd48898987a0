"""No sentence that comes while a stream runs compiles a kernel: what a launch is compiled for, counted with no GPU.

The launches run in a process without Triton's interpreter, where what would be launched is kept instead, with the key by which
Triton looks for a compiled kernel: types, what numbers and pointers are multiples of, constants and options.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from refavs_rt.config import EDGE, TEST
from refavs_rt.kernels import masked_attention, memory_step
from refavs_rt.kernels.warm_up import warm_up

_KEPT = """
import json, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from refavs_rt.config import EDGE, FULL
from refavs_rt.kernels import dispatch, launch
from refavs_rt.kernels import memory_step as step
from refavs_rt.kernels import warm_up as module

backend = make_backend(GPUTarget("cuda", 90, 32))
kept = set()


def keep(kernel, grid, on, *arguments, **constants):
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, key, options = binder(*arguments, **constants)
    kept.add((kernel.fn.__name__, bound.get("HAS_PARTIAL"), bound.get("SPLIT"), str(key), str(options)))


launch.start = keep
dispatch._refusal = lambda *_: ""
torch.set_num_threads(1)


def of_card(capability, processors):
    launch.capability_of = lambda device: capability
    launch.processors_of = lambda device: processors
    kept.clear()
"""
_CARDS = ((80, 108), (87, 8), (87, 16), (89, 128), (90, 132), (100, 148), (110, 20), (120, 170))
"""Compute capability and multiprocessors; of Orin the smallest and the largest."""


def _run(script: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", _KEPT + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_COUNT = f"""
counts = []
for capability, processors in {_CARDS!r}:
    for preset in (EDGE, FULL):
        for dtype in (torch.float32, torch.float16):
            of_card(capability, processors)
            seen = []
            for sentences in range(1, 9):
                module._sentences(preset, sentences, torch.device("cpu"), dtype)
                seen.append(len(kept))
            forms = {{}}
            for name, given, *_ in kept:
                forms[f"{{name}} {{given}}"] = forms.get(f"{{name}} {{given}}", 0) + 1
            counts.append([capability, processors, preset.preset, seen, forms])
print(json.dumps(counts))
"""


def test_no_number_of_sentences_makes_more_than_the_known_forms() -> None:
    """The step of picture and of sound, and the masked attention, each whole or in splits; one prompting."""
    pytest.importorskip("triton")
    most = {
        "_memory_step_kernel True": 2, "_memory_step_kernel False": 2, "_masked_attention_kernel None": 2,
        "_prompt_kernel None": 1,
    }  # fmt: skip
    counts = _run(_COUNT)
    assert len(counts) == len(_CARDS) * 4
    for capability, processors, preset, _, forms in counts:
        assert set(forms) == set(most)
        for name, number in forms.items():
            assert number <= most[name], (capability, processors, preset, name)
    # So it is what is counted: on some card a later sentence does change the form.
    assert any(forms["_memory_step_kernel True"] == 2 for *_, forms in counts)


_STREAM = """
from dataclasses import replace
from refavs_rt.contract import graph_specs
from refavs_rt.model.eemc import EEMC

# `edge` as it is to its kernels, with small encoders.
config = replace(
    EDGE, backbone="tiny", backbone_channels=(4, 6, 8, 8), audio_channels=(4, 4, 8, 8), text_width=8, text_layers=1,
    text_heads=2, text_hidden=16, text_positions=32, text_vocabulary=100,
)
model, graphs, found = EEMC(config).eval(), graph_specs(config), []


def frame(sentences):
    given = {
        "frame": torch.zeros(1, 3, 256, 256), "log_mel": torch.zeros(1, 96, 64), "has_sound": torch.ones(1, dtype=torch.bool),
        "token_mask": torch.ones(sentences, 25, dtype=torch.bool), "ring_age": torch.arange(1, 10)[None],
        "memory_count": torch.zeros(sentences, dtype=torch.int64),
    }
    produced = {spec.name for graph in ("vision", "audio") for spec in graphs[graph].outputs}
    for spec in graphs["step"].inputs:
        if spec.name not in given and spec.name not in produced:
            given[spec.name] = torch.zeros([sentences if axis == "N" else int(axis) for axis in spec.shape])
    for graph in ("vision", "audio"):
        outputs = getattr(model, graph)(*(given[spec.name] for spec in graphs[graph].inputs))
        given |= {spec.name: x for spec, x in zip(graphs[graph].outputs, outputs, strict=True)}
    model.step(*(given[spec.name] for spec in graphs["step"].inputs))


for capability, processors in ((87, 16), (90, 132)):
    of_card(capability, processors)
    module.warm_up(config, torch.device("cpu"))
    warm = set(kept)
    kept.clear()
    with torch.inference_mode():
        for sentences in (1, 2, 5, 8):
            frame(sentences)
    found.append([len(kept), len(warm), [x[:3] for x in kept - warm]])
print(json.dumps(found))
"""


def test_a_stream_compiles_nothing_that_warming_up_has_not() -> None:
    """The model's own calls, with its own strides and types."""
    pytest.importorskip("triton")
    for launched, warm, cold in _run(_STREAM):
        assert cold == []
        assert 5 <= launched <= warm


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without one")
def test_on_a_cpu_the_references_run() -> None:
    warm_up(TEST, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu_nothing_is_compiled_after_it(dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    warm_up(EDGE, device, dtype)
    kernels = (
        memory_step._memory_step_kernel,
        memory_step._memory_ring_kernel,
        masked_attention._masked_attention_kernel,
    )

    def compiled() -> list[int]:
        return [sum(len(caches[0]) for caches in kernel.device_caches.values()) for kernel in kernels]

    before = compiled()
    assert all(before)
    warm_up(replace(EDGE, text_tokens=EDGE.text_tokens - 1), device, dtype)
    assert compiled() == before


@pytest.mark.gpu
def test_kernels_run_on_the_device_of_their_tensors() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    q, k = (torch.randn(1, rows, 64, device="cuda:1") for rows in (8, 40))
    logits = torch.randn(1, 8, 40, device="cuda:1")
    with torch.cuda.device(0):
        found = masked_attention.masked_attention(q, k, k, logits, 2)
    with torch.cuda.device(1):
        expected = masked_attention.masked_attention(q, k, k, logits, 2)
    assert torch.equal(found, expected)
