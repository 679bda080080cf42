"""The figures in the text format of Prometheus. docs/operations.md lists them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dormice.domain.execution import TERMINAL, ErrorCode, ExecutionState
from dormice.domain.machine import Phase
from dormice.domain.run import TERMINAL as ENDS_OF_RUNS
from dormice.domain.run import RunState, WaitKind
from dormice.domain.webhook import DeliveryState
from dormice.engine.census import Census, StoredCensus
from dormice.engine.runs.census import RunCensus, WorkerState
from dormice.engine.ssh_traffic import SshTraffic
from dormice.histogram import Histogram
from dormice.store.interface import Commits, StoreUnavailable
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
_ENDS_OF_DELIVERIES = [state for state in DeliveryState if state is not DeliveryState.PENDING]
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
        stored_census: Callable[[], Awaitable[StoredCensus]],
        ssh: SshTraffic,
        parts: Callable[[], Mapping[str, tuple[bool, str]]],
    ) -> None:
        """`parts`: as /readyz tells them."""
        self._version = version
        self._counts = counts
        self._commits = commits
        self._census = census
        self._run_census = run_census
        self._stored_census = stored_census
        self._stored: StoredCensus | None = None
        self._ssh = ssh
        self._parts = parts
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def exposition(self) -> bytes:
        """Return what there is at this moment. What a store that is unavailable cannot say is left out."""
        try:
            self._stored = await self._stored_census()
        except StoreUnavailable:  # told by dormice_part_ready, which is wanted then
            self._stored = None
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
        yield from self._of_ssh()
        yield from self._of_webhooks()
        if self._stored is not None:
            yield from self._of_what_is_stored(self._stored)
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
        text = "Terminals whose shell runs or is being started."
        yield GaugeMetricFamily("dormice_terminals_open", text, census.terminals)

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

    def _of_ssh(self) -> Iterator[Metric]:
        ssh = self._ssh
        rows = [("logging_in", ssh.logging_in), ("logged_in", ssh.logged_in)]
        yield _gauge("dormice_ssh_connections", "SSH connections.", "state", rows)
        rows = [("accepted", ssh.accepted), ("failed", ssh.failed), ("refused", ssh.refused)]
        yield _counter("dormice_ssh_logins", "SSH connections by whether they came to a login.", "result", rows)
        rows = [("received", ssh.received_bytes), ("sent", ssh.sent_bytes)]
        yield _counter("dormice_ssh_bytes", "Bytes carried for SSH clients.", "direction", rows)
        yield CounterMetricFamily("dormice_ssh_sessions_created", "SSH sessions created.", ssh.created_sessions)

    def _of_webhooks(self) -> Iterator[Metric]:
        counts = self._counts
        attempts = [
            ("accepted", counts.accepted_attempts),
            ("refused", counts.refused_attempts),
            ("unanswered", counts.unanswered_attempts),
        ]
        yield _counter("dormice_webhook_attempts", "Requests to webhooks.", "result", attempts)
        ends = [(state.value, counts.delivery_ends.get(state, 0)) for state in _ENDS_OF_DELIVERIES]
        yield _counter("dormice_webhook_deliveries_finished", "Deliveries to webhooks ended.", "status", ends)

    def _of_what_is_stored(self, stored: StoredCensus) -> Iterator[Metric]:
        sessions = [(state.value, count) for state, count in stored.ssh_sessions.items()]
        yield _gauge("dormice_ssh_sessions_open", "SSH sessions that are not over.", "status", sessions)
        previews = [(state.value, count) for state, count in stored.previews.items()]
        yield _gauge("dormice_previews_open", "Previews that are not over.", "status", previews)
        text = "Deliveries to enabled webhooks that have not ended."
        yield GaugeMetricFamily("dormice_webhook_deliveries_pending", text, stored.deliveries)
        text = "For how long a delivery to an enabled webhook has been due, at most; 0 without one."
        yield GaugeMetricFamily("dormice_webhook_queue_oldest_age_seconds", text, stored.longest_due_us / _SECOND_US)

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
