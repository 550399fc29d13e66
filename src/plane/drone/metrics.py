"""The drone's monitoring port: metrics about its backends, leases, events and watchdog, and what it lacks.

No label has a backend or a key. `plane.drone.server` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from plane.drone.agent import Agent
from plane.drone.backend_manager import BackendManager
from plane.drone.event_recorder import EventRecorder
from plane.drone.state_store import StateStore
from plane.drone.watchdog.supervisor import WatchdogSupervisor
from plane.protocol.backend_state import BackendStatus
from plane.transport.monitoring import serve_monitoring

__all__ = ["DroneMetrics"]


class DroneMetrics:
    """Reads the metrics from the parts of one drone at each scrape."""

    def __init__(
        self,
        store: StateStore,
        recorder: EventRecorder,
        backends: BackendManager,
        agent: Agent,
        watchdog: WatchdogSupervisor,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._backends = backends
        self._agent = agent
        self._watchdog = watchdog

    async def serve(self, host: str, port: int) -> None:
        """Serve the monitoring port until cancelled.

        Raises:
            ConfigurationError: the port cannot be used.
        """
        await serve_monitoring(host, port, self._collect, self._missing)

    def _missing(self) -> list[str]:
        """Return what keeps this drone from starting backends, in words."""
        found = {
            "not connected to a controller": not self._agent.is_connected,
            "the watchdog does not respond": not self._watchdog.responds,
            "the state store is not writable": self._recorder.pending_count > 0,
        }
        return [text for text, applies in found.items() if applies]

    async def _collect(self) -> Iterable[Metric]:
        return self._metrics(await self._store.unacknowledged_count())

    def _metrics(self, unacknowledged: int) -> Iterator[Metric]:
        leases, recorder, watchdog = self._backends.leases, self._recorder, self._watchdog
        statuses = self._backends.statuses()
        backends = GaugeMetricFamily("plane_drone_backends", "Backends that have not ended", labels=["status"])
        entered = CounterMetricFamily(
            "plane_drone_backend_states",
            "States that backends entered; loading counts starts, terminated ends",
            labels=["status"],
        )
        for status in BackendStatus:
            if status is not BackendStatus.TERMINATED:
                backends.add_metric([status], statuses[status])
            entered.add_metric([status], recorder.entered[status])
        yield backends
        yield entered
        yield CounterMetricFamily(
            "plane_drone_backend_failures",
            "Ends that nobody ordered: an exit code other than 0, a slow start, a lost lease, an internal error",
            value=recorder.failures,
        )
        renewals = CounterMetricFamily("plane_drone_lease_renewals", "Responses to renewals", labels=["result"])
        renewals.add_metric(["renewed"], leases.renewed_count)
        renewals.add_metric(["refused"], leases.refused_count)
        yield renewals
        shortest_s = leases.shortest_s()
        yield from (
            GaugeMetricFamily("plane_drone_leases", "Leases that are renewed", value=len(leases)),
            GaugeMetricFamily(
                "plane_drone_connected", "1 while connected to a controller", value=int(self._agent.is_connected)
            ),
            GaugeMetricFamily(
                "plane_drone_watchdog_responds",
                "1 while the watchdog confirms what it is sent",
                value=int(watchdog.responds),
            ),
            GaugeMetricFamily(
                "plane_drone_events_unacknowledged",
                "Stored events that no controller has acknowledged",
                value=unacknowledged,
            ),
            GaugeMetricFamily(
                "plane_drone_events_in_memory",
                "Events that the state store did not take yet",
                value=recorder.pending_count,
            ),
            GaugeMetricFamily(
                "plane_drone_ready",
                "1 while nothing keeps the drone from starting backends",
                value=int(not self._missing()),
            ),
        )
        if shortest_s is not None:
            yield GaugeMetricFamily(
                "plane_drone_lease_shortest_seconds",
                "Time until the first backend is asked to stop unless its lease is renewed; 10 when a renewal is due",
                value=shortest_s,
            )
        yield CounterMetricFamily(
            "plane_drone_watchdog_starts",
            "Watchdogs started; each after the first replaced one",
            value=watchdog.start_count,
        )
