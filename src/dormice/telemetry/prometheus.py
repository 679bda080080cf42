"""The figures in the text format of Prometheus. docs/operations.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dormice.domain.execution import TERMINAL, ErrorCode, ExecutionState
from dormice.domain.machine import Phase
from dormice.domain.run import TERMINAL as ENDS_OF_RUNS
from dormice.domain.run import RunState, WaitKind
from dormice.engine.census import Census
from dormice.engine.runs.census import RunCensus, WorkerState
from dormice.histogram import Histogram
from dormice.store.interface import Commits
from dormice.telemetry.counts import Counts
from dormice.workers.interface import PushAnswer

_OPEN = [state for state in ExecutionState if state not in TERMINAL]
_ONE_REASON = {
    ExecutionState.SUCCEEDED: None,
    ExecutionState.CANCELLED: ErrorCode.CANCELLED,
    ExecutionState.EXPIRED: ErrorCode.START_DEADLINE_EXCEEDED,
}
_ENDS = [
    *_ONE_REASON.items(),
    *((ExecutionState.FAILED, code) for code in ErrorCode if code not in _ONE_REASON.values()),
]
"""Every way in which an execution can end: they are shown from the start, so that the first of a kind is a rise."""
_SECOND_US = 1_000_000


class Exposition(Collector):
    """All figures of one server, in a registry of its own."""

    def __init__(
        self,
        *,
        version: str,
        counts: Counts,
        commits: Commits,
        census: Callable[[], Census],
        run_census: Callable[[], RunCensus],
        parts: Callable[[], Mapping[str, tuple[bool, str]]],
    ) -> None:
        """`parts`: as /readyz tells them."""
        self._version = version
        self._counts = counts
        self._commits = commits
        self._census = census
        self._run_census = run_census
        self._parts = parts
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Return what there is at this moment."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield _gauge("dormice_build_info", "The running version.", "version", [(self._version, 1)])
        parts = [(name, float(ready)) for name, (ready, _) in self._parts().items()]
        yield _gauge("dormice_part_ready", "Whether a part is ready, as /readyz tells.", "part", parts)
        census = self._census()
        yield from self._of_executions(census)
        yield from self._of_machines(census)
        runs = self._run_census()
        yield from self._of_runs(runs)
        yield from self._of_workers(runs)
        yield from self._of_store()
        yield from self._of_requests()
        text = "How late a timer of the server's event loop was, measured twice a second."
        yield _histogram("dormice_event_loop_lag_seconds", text, self._counts.loop_lag)

    def _of_executions(self, census: Census) -> Iterator[Metric]:
        counts = self._counts
        rows = [(state.value, census.executions.get(state, 0)) for state in _OPEN]
        yield _gauge("dormice_executions_open", "Executions that have not ended.", "status", rows)
        text = "Age of the oldest execution that has not started; 0 without one."
        yield GaugeMetricFamily("dormice_queue_oldest_age_seconds", text, census.oldest_waiting_us / _SECOND_US)
        yield CounterMetricFamily("dormice_executions_created", "Executions created.", counts.created_executions)
        ended = CounterMetricFamily("dormice_executions_finished", "Executions ended.", labels=["status", "error_code"])
        for state, code in dict.fromkeys([*_ENDS, *counts.ends]):
            ended.add_metric([state.value, code.value if code else ""], counts.ends.get((state, code), 0))
        yield ended
        yield _histogram("dormice_execution_start_seconds", "From an execution's creation to its start.", counts.start)
        yield _histogram("dormice_execution_run_seconds", "From an execution's start to its end.", counts.run)
        output = CounterMetricFamily("dormice_output_bytes", "Bytes that commands wrote.", labels=["stream"])
        output.add_metric(["stdout"], counts.stdout_bytes)
        output.add_metric(["stderr"], counts.stderr_bytes)
        yield output
        text = "Bytes of output that should be kept and were lost between a machine and the server."
        yield CounterMetricFamily("dormice_output_lost_bytes", text, counts.lost_bytes)

    def _of_machines(self, census: Census) -> Iterator[Metric]:
        counts = self._counts
        rows = [(phase.value, census.machines.get(phase, 0)) for phase in Phase if phase is not Phase.DESTROYED]
        yield _gauge("dormice_machines", "Machines that are not destroyed.", "phase", rows)
        moves = CounterMetricFamily(
            "dormice_machine_transitions", "Changes of a machine's phase.", labels=["from", "to"]
        )
        for (before, after), count in counts.transitions.items():
            moves.add_metric([before.value, after.value], count)
        yield moves
        text = "From the order to start a machine to its guest's first answer."
        yield _histogram("dormice_machine_start_seconds", text, counts.machine_start)

    def _of_runs(self, census: RunCensus) -> Iterator[Metric]:
        counts = self._counts
        states = [state for state in RunState if state not in ENDS_OF_RUNS]
        rows = [(state.value, census.states.get(state, 0)) for state in states]
        yield _gauge("dormice_runs_open", "Runs that have not ended.", "status", rows)
        text = "Runs that could run and that no worker has taken."
        yield GaugeMetricFamily("dormice_run_queue_depth", text, census.ready)
        text = "For how long a run could have run and was not taken by a worker, at most; 0 without one."
        yield GaugeMetricFamily("dormice_run_queue_oldest_age_seconds", text, census.longest_ready_us / _SECOND_US)
        yield CounterMetricFamily("dormice_runs_created", "Runs created.", counts.created_runs)
        ends = [(state.value, counts.run_ends.get(state, 0)) for state in RunState if state in ENDS_OF_RUNS]
        yield _counter("dormice_runs_finished", "Runs ended.", "status", ends)
        failed = [("failed", counts.failed_attempts), ("worker_lost", counts.lost_attempts)]
        yield _counter("dormice_run_attempts_failed", "Attempts of runs that came to nothing.", "reason", failed)
        waits = [(kind.value, census.waits.get(kind, 0)) for kind in WaitKind]
        yield _gauge("dormice_run_waits_open", "What runs wait for.", "kind", waits)
        text = "Events published."
        yield CounterMetricFamily("dormice_events_published", text, counts.published_events)

    def _of_workers(self, census: RunCensus) -> Iterator[Metric]:
        counts = self._counts
        rows = [(state.value, census.workers.get(state, 0)) for state in WorkerState]
        yield _gauge("dormice_workers", "Workers that are not forgotten.", "state", rows)
        pushes = [(answer.value, counts.pushes.get(answer, 0)) for answer in PushAnswer]
        yield _counter("dormice_run_pushes", "Runs that workers were called with.", "answer", pushes)
        yield CounterMetricFamily("dormice_run_pulls", "Runs that workers have fetched.", counts.pulls)

    def _of_store(self) -> Iterator[Metric]:
        commits = self._commits
        yield _histogram("dormice_store_commit_seconds", "Time that a durable commit took.", commits.seconds)
        yield _histogram("dormice_store_commit_operations", "Operations that shared a commit.", commits.operations)
        yield CounterMetricFamily("dormice_store_commit_failures", "Commits that failed.", commits.failed)

    def _of_requests(self) -> Iterator[Metric]:
        served = CounterMetricFamily(
            "dormice_http_requests", "Requests answered.", labels=["method", "route", "status"]
        )
        seconds = HistogramMetricFamily(
            "dormice_http_request_seconds",
            "From a request's head to the end of its answer, long polls and streams included.",
            labels=["method", "route"],
        )
        of_route: dict[tuple[str, str], list[Histogram]] = {}
        for (method, route, status), histogram in self._counts.requests.items():
            served.add_metric([method, route, str(status)], sum(histogram.counts))
            of_route.setdefault((method, route), []).append(histogram)
        for labels, histograms in of_route.items():
            _add(seconds, labels, histograms)
        yield served
        yield seconds


def _gauge(name: str, text: str, label: str, rows: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in rows:
        family.add_metric([value], number)
    return family


def _counter(name: str, text: str, label: str, rows: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in rows:
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[])
    _add(family, (), [histogram])
    return family


def _add(family: HistogramMetricFamily, labels: Iterable[str], histograms: list[Histogram]) -> None:
    """Add the sum of histograms with the same bounds."""
    total, buckets = 0, []
    bounds = [*map(str, histograms[0].bounds), "+Inf"]
    for bound, *counts in zip(bounds, *(histogram.counts for histogram in histograms), strict=True):
        total += sum(counts)
        buckets.append((bound, total))
    family.add_metric([*labels], buckets, sum(histogram.total for histogram in histograms))
