"""Medians of what runs on a GPU, launched from Python and replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def median_ms(run: Callable[[], Any], repeat_ms: int = 40) -> float:
    """Of `run` as Python launches it, its inputs not in the cache (`triton.testing.do_bench`)."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=max(1, repeat_ms // 4), rep=repeat_ms, return_mode="median"))


def graph_of(run: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of `run`, and what `run` returned, which replays write anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph, out


def graph_median_ms(run: Callable[[], Any], repeat_ms: int = 40) -> float:
    """Of a replay of a CUDA graph of `run`, its inputs not in the cache."""
    graph, _ = graph_of(run)
    return median_ms(graph.replay, repeat_ms)
