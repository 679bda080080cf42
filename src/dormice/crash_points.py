"""Named points at which server and node can be made to die: what tests/faults walks through.

Off, at the price of a call that does nothing, unless DORMICE_CRASH_POINTS names a directory when the process starts. Then a process that
reaches a point whose name a file in that directory bears removes the file and kills itself with SIGKILL. So each file strikes once, and
points can be armed at any time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from enum import StrEnum
from pathlib import Path

VARIABLE = "DORMICE_CRASH_POINTS"


class CrashPoint(StrEnum):
    """Every point, `role.moment`. tests/faults fails when one of them is never reached."""

    ENGINE_LOADED = "server.engine-loaded"
    NODE_JOINED = "server.node-joined"
    MACHINE_COMMITTED = "server.machine-committed"
    EXECUTION_COMMITTED = "server.execution-committed"
    CLAIM_COMMITTED = "server.claim-committed"
    WAKE_CLAIMS_COMMITTED = "server.wake-claims-committed"
    START_SENT = "server.start-sent"
    REPORT_RECEIVED = "server.report-received"
    REPORT_COMMITTED = "server.report-committed"
    OUTPUT_ACKNOWLEDGED = "server.output-acknowledged"
    END_COMMITTED = "server.end-committed"
    CANCEL_COMMITTED = "server.cancel-committed"
    STDIN_COMMITTED = "server.stdin-committed"
    STDIN_SENT = "server.stdin-sent"
    STDIN_TRIMMED = "server.stdin-trimmed"
    WAKE_DECIDED = "server.wake-decided"
    WAKE_SENT = "server.wake-sent"
    WAKE_COMMITTED = "server.wake-committed"
    ATTACH_RECEIVED = "server.attach-received"
    MACHINE_UP_COMMITTED = "server.machine-up-committed"
    SLEEP_COMMITTED = "server.sleep-committed"
    DOZE_COMMITTED = "server.doze-committed"
    MACHINE_END_RECEIVED = "server.machine-end-received"
    BOOT_ENDED = "server.boot-ended"
    MACHINE_DOWN_COMMITTED = "server.machine-down-committed"
    DESTROY_COMMITTED = "server.destroy-committed"
    DESTROYED_RECEIVED = "server.destroyed-received"
    SNAPSHOT_COMMITTED = "server.snapshot-committed"
    SNAPSHOT_SETTLED = "server.snapshot-settled"
    SNAPSHOT_DELETE_COMMITTED = "server.snapshot-delete-committed"

    RUNS_LOADED = "server.runs-loaded"
    WORKER_COMMITTED = "server.worker-committed"
    WORKER_FORGOTTEN = "server.worker-forgotten"
    RUN_COMMITTED = "server.run-committed"
    RUN_CLAIMED = "server.run-claimed"
    PUSH_SENT = "server.push-sent"
    PUSH_ANSWERED = "server.push-answered"
    ACCEPT_COMMITTED = "server.accept-committed"
    RELEASE_COMMITTED = "server.release-committed"
    STEP_COMMITTED = "server.step-committed"
    WAIT_COMMITTED = "server.wait-committed"
    TIMER_FIRED = "server.timer-fired"
    EVENT_PUBLISHED = "server.event-published"
    CHILD_RESUMED = "server.child-resumed"
    COMMAND_BEGUN = "server.command-begun"
    COMMAND_TOLD = "server.command-told"
    RUN_RETRIED = "server.run-retried"
    RUN_ENDED = "server.run-ended"
    RUN_CANCEL_COMMITTED = "server.run-cancel-committed"
    RUN_CANCELLED = "server.run-cancelled"

    WEBHOOK_CREATED = "server.webhook-created"
    WEBHOOK_ANSWERED = "server.webhook-answered"
    WEBHOOK_COMMITTED = "server.webhook-committed"

    ADOPTED = "node.adopted"
    WELCOMED = "node.welcomed"
    EXECUTION_RECEIVED = "node.execution-received"
    EXECUTION_WRITTEN = "node.execution-written"
    STARTED_HEARD = "node.started-heard"
    STARTED_PASSED_ON = "node.started-passed-on"
    OUTPUT_HEARD = "node.output-heard"
    OUTPUT_PASSED_ON = "node.output-passed-on"
    EXIT_HEARD = "node.exit-heard"
    EXIT_PASSED_ON = "node.exit-passed-on"
    ACKNOWLEDGEMENT_RECEIVED = "node.acknowledgement-received"
    FORGET_RECEIVED = "node.forget-received"
    STDIN_RECEIVED = "node.stdin-received"
    CANCEL_RECEIVED = "node.cancel-received"
    MACHINE_START_RECEIVED = "node.machine-start-received"
    MACHINE_LAUNCHED = "node.machine-launched"
    MACHINE_RECORDED = "node.machine-recorded"
    GUEST_WELCOMED = "node.guest-welcomed"
    STOP_RECEIVED = "node.stop-received"
    GUEST_STOPPED = "node.guest-stopped"
    MACHINE_ENDED = "node.machine-ended"
    MACHINE_DIED = "node.machine-died"
    DESTROY_RECEIVED = "node.destroy-received"
    DESTROY_HALF_WAY = "node.destroy-half-way"
    MACHINE_DESTROYED = "node.machine-destroyed"
    DISK_STILL = "node.disk-still"
    DISK_COPIED = "node.disk-copied"
    SNAPSHOT_TAKEN = "node.snapshot-taken"
    SNAPSHOT_DELETED = "node.snapshot-deleted"

    @property
    def role(self) -> str:
        """Which process has it: `server` or `node`."""
        return self.value.partition(".")[0]


_armed = os.environ.get(VARIABLE, "")


def _off(point: CrashPoint) -> None:
    """Do nothing."""


def _strike(point: CrashPoint) -> None:
    try:
        Path(_armed, point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _strike_soon(point: CrashPoint) -> None:
    asyncio.get_running_loop().call_soon(_strike, point)


reached = _strike if _armed else _off
"""Die here, if this point is armed."""
reached_once_sent = _strike_soon if _armed else _off
"""Die in the event loop's next turn: what was written first in this one has left the process then."""
