"""`python -m refavs_rt.kernels.aot`: compile every kernel for every card with no GPU, and check what came out.

Every kernel: in each form and type in which a preset launches it, by each row of the table. What would be the same machine code
twice, under two names, is compiled once.

A kernel that spills registers at a configured size, or asks for more shared memory than a card has, fails the check; so does
one of products without the instructions of the card's matrix units.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .launch import Compilation

OPS = (
    "memory_step",
    "memory_clip",
    "prompt_attention",
    "masked_attention",
    "deformable_attention",
)
"""Modules with kernels."""
CARDS = {
    80: ("A100", 163),
    87: ("Jetson Orin", 163),
    89: ("RTX 4090", 99),
    90: ("H100", 227),
    100: ("B200", 227),
    110: ("Jetson Thor", 227),
    120: ("RTX 5090", 99),
}
"""Compute capability -> a card that has it, and the KiB of shared memory that a block may take."""
_MATRIX = re.compile(r"HMMA|HGMMA|UTC[A-Z]*MMA")
"""Instructions of the matrix units for 16-bit types and TF32."""
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What the machine code of one kernel takes."""

    name: str
    capability: int
    registers: int
    """Of a thread."""
    spilled_bytes: int
    """Stored and loaded for want of registers."""
    shared_bytes: int
    """Of a block."""
    instructions: int
    matrix_instructions: int
    multiplies: bool
    """Whether it has products, which belong to the matrix units."""

    def faults(self) -> Iterator[str]:
        """What is wrong with it."""
        card, limit = CARDS[self.capability]
        where = f"{self.name} for {card} (sm_{self.capability})"
        if self.spilled_bytes:
            yield f"{where} spills {self.spilled_bytes} bytes: make its blocks smaller"
        if self.shared_bytes > limit * 1024:
            yield f"{where} takes {self.shared_bytes:,} bytes of shared memory, and there are {limit} KiB"
        if self.multiplies and not self.matrix_instructions:
            yield f"{where} multiplies outside the matrix units"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 1 where a kernel fails the check."""
    parser = argparse.ArgumentParser(prog="python -m refavs_rt.kernels.aot", description=__doc__)
    parser.add_argument("--only", choices=OPS, default=None, metavar="OP", help=f"one of {', '.join(OPS)}")
    parser.add_argument(
        "--cards",
        type=_capabilities,
        default=tuple(CARDS),
        metavar="CC,CC",
        help="compute capabilities; default: " + ",".join(map(str, CARDS)),
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--json", type=Path, default=None, metavar="OUT", help="write all figures there")
    args = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("error: TRITON_INTERPRET=1 is set: nothing would be compiled", file=sys.stderr)
        return 2
    jobs = list(_jobs([args.only] if args.only else OPS, args.cards))
    results = list(_compile_all(jobs, args.workers))
    resources = sorted((r for r in results if isinstance(r, Resources)), key=lambda r: (r.name, r.capability))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([asdict(r) for r in resources], indent=1) + "\n")
    faults = [r for r in results if isinstance(r, str)] + [fault for r in resources for fault in r.faults()]
    for fault in faults:
        print(f"fault: {fault}")
    spills = sum(r.spilled_bytes > 0 for r in resources)
    print(
        f"{len(resources)} kernels compiled for {len(args.cards)} cards, {spills} spill, {len(faults)} faults"
    )
    return 1 if faults else 0


def compiled(compilation: Compilation, capability: int) -> Resources:
    """Compile one kernel for a compute capability, such as 87, and read its machine code.

    Raises:
        Whatever Triton's compiler raises of a kernel that it cannot compile.
    """
    from triton import knobs

    log = io.StringIO()
    knobs.nvidia.dump_ptxas_log = True
    with contextlib.redirect_stdout(log):
        kernel = built(compilation, capability)
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log.getvalue())
    registers = re.search(r"Used (\d+) registers", log.getvalue())
    if registers is None or not spills:
        raise RuntimeError(
            f"ptxas said nothing of {compilation.name} for sm_{capability}: {log.getvalue()!r}"
        )
    instructions = _instructions(kernel.asm["cubin"])
    return Resources(
        compilation.name,
        capability,
        int(registers[1]),
        sum(map(int, spills)),
        int(kernel.metadata.shared),
        sum(instructions.values()),
        sum(count for name, count in instructions.items() if _MATRIX.fullmatch(name)),
        compilation.multiplies,
    )


def built(compilation: Compilation, capability: int) -> Any:
    """Triton's compiled kernel, with `asm["ptx"]` and `asm["cubin"]`.

    As at a launch, pointers and strides are taken to be multiples of 16, but for those whose alignment a kernel does not ask for;
    counts, which the kernels do not specialise, are any number.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(compilation.kernel.arg_names)
    signature = {name: compilation.signature.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in compilation.constants.items()}
    general = {
        parameter.name
        for parameter in compilation.kernel.params
        if parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if name not in general and (signature[name].startswith("*") or name.startswith("stride_"))
    }
    source = ASTSource(compilation.kernel, signature, constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=compilation.launch.options)


def _instructions(cubin: bytes) -> Counter[str]:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        disassembler = [knobs.nvidia.nvdisasm.path, "-c", file.name]
        listing = subprocess.run(disassembler, capture_output=True, text=True, check=True).stdout
    return Counter(_INSTRUCTION.findall(listing))


def _jobs(ops: Iterable[str], cards: Iterable[int]) -> Iterator[tuple[str, int, int]]:
    """(op, compute capability, number among what the op launches there)"""
    for op, capability in itertools.product(ops, cards):
        for number in range(len(_compilations(op, capability))):
            yield op, capability, number


@functools.cache
def _compilations(op: str, capability: int) -> list[Compilation]:
    """What an op launches on a card, each machine code once, under the first of its names."""
    found: list[Compilation] = importlib.import_module(f".{op}", __package__).compilations(capability)
    return list({_code(compilation): compilation for compilation in reversed(found)}.values())[::-1]


def _code(compilation: Compilation) -> tuple[Any, ...]:
    """What fixes the machine code for a card."""
    names = compilation.kernel.arg_names
    types = tuple((name, compilation.signature[name]) for name in names if name in compilation.signature)
    values = tuple((name, compilation.constants[name]) for name in names if name in compilation.constants)
    options = tuple(sorted(compilation.launch.options.items()))
    return compilation.kernel, types, values, options


def _compile_job(job: tuple[str, int, int]) -> Resources | str:
    """The kernel's resources, or why it does not compile."""
    from triton.errors import TritonError

    op, capability, number = job
    compilation = _compilations(op, capability)[number]
    try:
        return compiled(compilation, capability)
    except TritonError as error:
        return f"{compilation.name} for sm_{capability} does not compile: {error}"


def _compile_all(jobs: Sequence[tuple[str, int, int]], workers: int) -> Iterator[Resources | str]:
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"  # what a cache gives has no log
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), mp_context=context) as pool:
        futures: Any = {pool.submit(_compile_job, job): job for job in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            if done % 20 == 0 or done == len(jobs):
                print(f"compiled {done} of {len(jobs)}", file=sys.stderr, flush=True)
            yield future.result()


def _capabilities(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not set(found) <= set(CARDS):
        known = ", ".join(map(str, CARDS))
        raise argparse.ArgumentTypeError(f"{text!r} is no list of compute capabilities among {known}")
    return found


if __name__ == "__main__":
    sys.exit(main())
