"""The objects that count and show the declared metrics.

Counters and histograms are bound to their labels once and then cost a few hundred nanoseconds. Gauges are never set:
the owner of the state registers a function (`Metrics.watch`) that is called for each exposition, so they can't drift.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from adapter import __version__
from adapter.telemetry.metrics import (
    BUILD_INFO,
    CALL_SECONDS,
    COMMAND_SECONDS,
    COMMANDS_RECEIVED,
    COMMANDS_REPEATED,
    METRICS,
    REPLY_DEVIATIONS,
    Kind,
    Metric,
)

Reading = float | Mapping[str, float]
"""A gauge's value, or its values by the value of its one label."""

_Sources = dict[Metric, list[Callable[[], Reading]]]


@dataclass(frozen=True, slots=True)
class OperationMeter:
    """The counters and histograms for the commands of one operation, bound to its labels."""

    received: Counter
    repeated: Counter
    reply_deviations: Counter
    call_seconds: Histogram
    command_seconds: Histogram


class Metrics:
    """The counters, histograms and gauges of one process or test, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {m: _counter(m, self._registry) for m in METRICS if m.kind is Kind.COUNTER}
        self._histograms = {m: _histogram(m, self._registry) for m in METRICS if m.kind is Kind.HISTOGRAM}
        self._sources: _Sources = {BUILD_INFO: [lambda: {__version__: 1.0}]}
        self._lent = [self._sources]
        self._registry.register(_Gauges(self._lent))
        ProcessCollector(registry=self._registry)
        self._bound: dict[tuple[Metric, tuple[str, ...]], Counter] = {}
        self._meters: dict[str, OperationMeter] = {}

    def count(self, metric: Metric, *labels: str, by: int = 1) -> None:
        """Add to a counter. Labels must have few possible values, all defined by us."""
        counter = self._bound.get((metric, labels))
        if counter is None:
            counter = self._bound[metric, labels] = self.counter(metric, *labels)
        counter.inc(by)

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """The counter bound to its labels, to be kept by a caller that counts often."""
        family = self._counters[metric]
        return family.labels(*labels) if labels else family

    def begin(self, counter: Metric, *values: Iterable[str]) -> None:
        """Show a counter at zero for each combination of these values of its labels, before there is anything to count.

        Prometheus notices an increase only from a value that it has scraped before.
        """
        for labels in product(*values):
            self.counter(counter, *labels)

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram bound to its labels, to be kept by a caller that observes often."""
        family = self._histograms[metric]
        return family.labels(*labels) if labels else family

    def operation(self, name: str) -> OperationMeter:
        """The meter of an operation, the same one each time."""
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = OperationMeter(
                received=self.counter(COMMANDS_RECEIVED, name),
                repeated=self.counter(COMMANDS_REPEATED, name),
                reply_deviations=self.counter(REPLY_DEVIATIONS, name),
                call_seconds=self.histogram(CALL_SECONDS, name),
                command_seconds=self.histogram(COMMAND_SECONDS, name),
            )
        return meter

    def watch(self, gauge: Metric, source: Callable[[], Reading]) -> None:
        """Have `gauge` show what `source` returns at each exposition; a gauge without a source is not shown.

        Several sources, as of the flows of one process, may each return the values of labels of their own.
        """
        self._sources.setdefault(gauge, []).append(source)

    @contextmanager
    def lent(self) -> Iterator["Metrics"]:
        """These metrics for one run of a flow: the sources that it has watched are forgotten with the context."""
        lent, sources = copy(self), _Sources()
        lent._sources = sources  # noqa: SLF001 -- of our own class
        self._lent.append(sources)
        try:
            yield lent
        finally:
            self._lent[:] = [each for each in self._lent if each is not sources]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All values as text and its content type: OpenMetrics if the Accept header wants it, else Prometheus'."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _Gauges(Collector):
    def __init__(self, lent: Sequence[_Sources]) -> None:
        self._lent = lent

    def collect(self) -> Iterator[Family]:
        all_sources: _Sources = {}
        for each in self._lent:
            for metric, sources in each.items():
                all_sources.setdefault(metric, []).extend(sources)
        for metric, sources in all_sources.items():
            family = GaugeMetricFamily(metric.full_name, metric.help, labels=metric.labels, unit=metric.unit)
            for source in sources:
                reading = source()
                if isinstance(reading, Mapping):
                    for label, value in reading.items():
                        family.add_metric((label,), value)
                else:
                    family.add_metric((), reading)
            yield family


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.full_name, metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        metric.full_name, metric.help, metric.labels, unit=metric.unit, buckets=metric.buckets, registry=registry
    )
