"""What Prometheus is told of a running stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .base import Facts, Output
from .push import PushOutput

if TYPE_CHECKING:
    from refavs_rt.result import Result

_LATENCIES_S = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
_OF_THE_SOURCE = {
    "dropped": "Pictures that a newer one replaced before they were asked for.",
    "late": "Packets of pictures skipped because decoding was too slow.",
    "corrupt": "Damaged pictures.",
    "reconnects": "Times that the source was opened again.",
}


class MetricsOutput(Output, Collector):
    """Counts results, and gives the counts in the text format 0.0.4.

    Sentences are told apart by their place among those asked for, never by their words.

    Args:
        viewers: how many watch the page.
        push: whose frames are counted too; None where there is none.
        overdue: frames that were given up because they were too old.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        viewers: Callable[[], int] = lambda: 0,
        push: PushOutput | None = None,
        overdue: Callable[[], int] = lambda: 0,
    ) -> None:
        self._facts = facts
        self._viewers = viewers
        self._push = push
        self._overdue = overdue
        self._presence: tuple[float, ...] = ()
        self._registry = CollectorRegistry()
        self._frames = Counter("refavs_frames", "Frames with a result.", registry=self._registry)
        self._latency = Histogram(
            "refavs_latency_seconds",
            "From a frame's capture, or its leaving the decoder of a file, to its result.",
            buckets=_LATENCIES_S,
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def write(self, result: Result) -> None:
        self._frames.inc()
        self._latency.observe(result.latency_ms / 1e3)
        self._presence = tuple(map(float, result.presence))

    def close(self) -> None:
        pass  # whoever serves the text is closed on its own

    def text(self) -> bytes:
        """As they are now; may be called from any thread."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What is counted elsewhere, for the registry."""
        counters = self._facts.source.counters
        for name, what in _OF_THE_SOURCE.items():
            kind = "" if name == "reconnects" else "_frames"
            yield CounterMetricFamily(f"refavs_{name}{kind}", what, value=counters.get(name, 0))
        yield CounterMetricFamily(
            "refavs_overdue_frames", "Frames given up because they were too old.", value=self._overdue()
        )
        presence = GaugeMetricFamily(
            "refavs_presence",
            "The chance that anything in the last frame fits the sentence at this place.",
            labels=["sentence"],
        )
        for place, score in enumerate(self._presence):
            presence.add_metric([str(place)], score)
        yield presence
        yield GaugeMetricFamily("refavs_viewers", "Browsers that show the page.", value=self._viewers())
        if self._push is not None:
            pushed = self._push.counters
            yield CounterMetricFamily("refavs_push_frames", "Frames that were pushed.", value=pushed["sent"])
            yield CounterMetricFamily(
                "refavs_push_dropped_frames",
                "Frames that there was no room or no receiver for.",
                value=pushed["dropped"],
            )
            yield CounterMetricFamily(
                "refavs_push_reconnects",
                "Times that the receiver was connected to again.",
                value=pushed["reconnects"],
            )
