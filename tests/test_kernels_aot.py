"""Kernels compiled ahead of time, in processes without Triton's interpreter, which this one has."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from refavs_rt.kernels.aot import CARDS, OPS, Resources, main

pytest.importorskip("triton")

_COMPILE = """
import dataclasses, json, sys
from refavs_rt.kernels import aot, memory_step
from refavs_rt.kernels.launch import Launch

compilation = next(c for c in memory_step.compilations(90) if c.name.startswith("memory_ring fp16 d128"))
crowded = dataclasses.replace(
    compilation,
    constants={**compilation.constants, "BLOCK_Q": 64, "BLOCK_K": 32},
    launch=Launch(block_q=64, block_k=32, warps=1, stages=2),
)
found = [aot.compiled(c, 90) for c in (compilation, crowded)]
print(json.dumps([dataclasses.asdict(r) for r in found]))
"""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_ALWAYS_COMPILE"] = "1"
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, env=environment
    )


def test_a_kernel_is_compiled_and_one_that_is_too_large_is_found() -> None:
    done = _run("-c", _COMPILE)
    assert done.returncode == 0, done.stderr
    good, crowded = (Resources(**r) for r in json.loads(done.stdout.splitlines()[-1]))
    assert not list(good.faults())
    assert 32 <= good.registers <= 255
    assert good.matrix_instructions > 0
    assert crowded.spilled_bytes > 0
    assert any("spills" in fault for fault in crowded.faults())


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"spilled_bytes": 4}, "spills 4 bytes"),
        ({"shared_bytes": 99 * 1024 + 1}, "99 KiB"),
        ({"matrix_instructions": 0}, "outside the matrix units"),
        ({"multiplies": False, "matrix_instructions": 0}, ""),
        ({}, ""),
    ],
)
def test_faults_name_the_kernel_and_the_card(changed: dict[str, int], word: str) -> None:
    figures = {
        "registers": 80, "spilled_bytes": 0, "shared_bytes": 99 * 1024, "instructions": 900,
        "matrix_instructions": 8, "multiplies": True, **changed,
    }  # fmt: skip
    faults = list(Resources("a_kernel", 89, **figures).faults())
    assert len(faults) == bool(word)
    for fault in faults:
        assert "a_kernel for RTX 4090 (sm_89)" in fault
        assert word in fault


def test_in_the_interpreter_nothing_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("this process has no interpreter")
    assert main([]) == 2
    assert "TRITON_INTERPRET=1 is set" in capsys.readouterr().err


def test_cards_that_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--cards", "90,13"])
    assert "'90,13' is no list of compute capabilities" in capsys.readouterr().err


def test_compilations_give_every_argument_of_their_kernels() -> None:
    """In a process of its own: kernels of the interpreter have no signatures that could be compared."""
    script = (
        "import importlib, json\n"
        f"for op in {OPS!r}:\n"
        "    compilations = importlib.import_module(f'refavs_rt.kernels.{op}').compilations\n"
        f"    for card in {tuple(CARDS)}:\n"
        "        found = compilations(card)\n"
        "        names = [c.name for c in found]\n"
        "        assert names and len(set(names)) == len(names), op\n"
        "        for c in found:\n"
        "            given = {*c.signature, *c.constants}\n"
        "            assert given >= set(c.kernel.arg_names), (c.name, set(c.kernel.arg_names) - given)\n"
    )
    done = _run("-c", script)
    assert done.returncode == 0, done.stderr


_ORDER = r"""
import json, re
from refavs_rt.kernels import aot, masked_attention, memory_step

for op, name in ((memory_step, "memory_ring fp16 d32"), (memory_step, "memory_step fp16 d32"),
                 (masked_attention, "masked_attention split fp16")):
    compilation = next(c for c in op.compilations(80) if c.name.startswith(name))
    ptx = aot.built(compilation, 80).asm["ptx"]
    print(json.dumps(re.findall(r"st\.global|bar\.sync|atom\.global[a-z_.]*", ptx)))
"""


def test_splits_wait_for_all_their_threads_before_they_arrive() -> None:
    """The interpreter runs programs one after the other and sees no race. Some versions of Triton would leave the barrier out."""
    done = _run("-c", _ORDER)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) == 3
    for found in kernels:
        arrival = next(i for i, word in enumerate(found) if word.startswith("atom"))
        assert "acq_rel" in found[arrival]
        stored = max(i for i in range(arrival) if found[i] == "st.global")
        assert "bar.sync" in found[stored:arrival]
