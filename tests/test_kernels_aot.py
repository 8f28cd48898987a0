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


_ENTRIES = f"""
import json
from refavs_rt.kernels import aot
from refavs_rt.kernels.launch import table

wanted = {{(kernel, *entry) for kernel, cards in table().items() for rows in cards.values() for entry in rows}}
for card in {tuple(CARDS)}:
    found = [c for op in aot.OPS for c in aot._compilations(op, card)]
    types = {{}}
    for c in found:
        types.setdefault(c.entry, set()).update(t for t in c.signature.values() if t in ("*fp32", "*fp16", "*bf16"))
    assert set(types) - {{None}} == wanted, card
    for (kernel, head, bits), given in ((k, v) for k, v in types.items() if k):
        assert given >= ({{"*fp32"}} if bits == 32 else {{"*fp16", "*bf16"}}), (kernel, head, bits)
    codes = [aot._code(c) for c in found]
    assert len(codes) == len(set(codes)), card
    for kernel in ("memory_ring", "memory_step", "masked_attention"):
        for c in found:
            if c.entry and c.entry[0] == kernel and c.launch.splits == 1:
                assert not c.constants["SPLIT"], c.name
        splits = {{c.entry: set() for c in found if c.entry and c.entry[0] == kernel and c.launch.splits > 1}}
        for c in found:
            if c.entry in splits:
                splits[c.entry].add(c.constants["SPLIT"])
        assert all(forms == {{False, True}} for forms in splits.values()), (card, kernel)
print(json.dumps(len(wanted)))
"""


def test_every_row_of_the_table_is_compiled_in_the_forms_that_occur_and_no_code_twice() -> None:
    done = _run("-c", _ENTRIES)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 40


def test_the_same_code_under_two_names_is_compiled_once() -> None:
    script = (
        "import dataclasses\n"
        "from refavs_rt.kernels import aot, prompt_attention\n"
        "one, other = prompt_attention.compilations(80)[:2]\n"
        "again = dataclasses.replace(one, name='again', signature=dict(reversed(one.signature.items())))\n"
        "larger = dataclasses.replace(one, name='larger', constants={**one.constants, 'BLOCK_Q': 64})\n"
        "prompt_attention.compilations = lambda capability: [one, again, other, larger]\n"
        "assert [c.name for c in aot._compilations('prompt_attention', 80)] == [one.name, other.name, 'larger']\n"
    )
    done = _run("-c", script)
    assert done.returncode == 0, done.stderr


_ORDER = r"""
import json, re
from refavs_rt.kernels import aot, masked_attention, memory_step

for op, name in ((memory_step, "memory_ring split fp16 d32"), (memory_step, "memory_step picture split fp16 d128"),
                 (masked_attention, "masked_attention split fp16")):
    compilation = next(c for c in op.compilations(90) if c.name.startswith(name))
    ptx = aot.built(compilation, 90).asm["ptx"]
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
