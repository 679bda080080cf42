"""The paths of both surfaces. Ids are escaped, so that an odd one stays within its segment."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

MACHINES = "/v1/machines"
SNAPSHOTS = "/v1/snapshots"
KEYS = "/v1/keys"
WEBHOOKS = "/v1/webhooks"
LIMITS = "/v1/limits"
USAGE = "/v1/usage"
COMPUTE_USAGE = "/v1/usage/machines/compute"
STORAGE_USAGE = "/v1/usage/machines/storage"
POLICY = "/v1/organization/autoresizing"
WORKFLOWS = "/api/v1/workflows"
RUNS = "/api/v1/executions"
WORKERS = "/api/v1/workers"
SCHEDULES = "/api/v1/schedules"
EVENTS = "/api/v1/events"


def _below(path: str, name: str, what: str) -> str:
    if not name:
        raise ValueError(f"{what} must not be empty")
    return f"{path}/{quote(name, safe='')}"


def machine(machine_id: str) -> str:
    """Raises ValueError if the id is empty; so do all below."""
    return _below(MACHINES, machine_id, "machine_id")


def snapshots_of(machine_id: str) -> str:
    return f"{machine(machine_id)}/snapshots"


def snapshot(snapshot_id: str) -> str:
    return _below(SNAPSHOTS, snapshot_id, "snapshot_id")


def executions(machine_id: str) -> str:
    return f"{machine(machine_id)}/executions"


def execution(machine_id: str, execution_id: str) -> str:
    return _below(executions(machine_id), execution_id, "execution_id")


def autoresizing(machine_id: str | None) -> str:
    """Of a machine, or of the organization."""
    return POLICY if machine_id is None else f"{machine(machine_id)}/autoresizing"


def logs(machine_id: str, execution_id: str) -> str:
    return f"{execution(machine_id, execution_id)}/logs"


def terminals(machine_id: str) -> str:
    return f"{machine(machine_id)}/terminals"


def terminal(machine_id: str, terminal_id: str) -> str:
    return _below(terminals(machine_id), terminal_id, "terminal_id")


def files(machine_id: str) -> str:
    return f"{machine(machine_id)}/files"


def previews(machine_id: str) -> str:
    return f"{machine(machine_id)}/previews"


def preview(machine_id: str, preview_id: str) -> str:
    return _below(previews(machine_id), preview_id, "preview_id")


def ssh_sessions(machine_id: str) -> str:
    return f"{machine(machine_id)}/ssh"


def ssh_session(machine_id: str, session_id: str) -> str:
    return _below(ssh_sessions(machine_id), session_id, "session_id")


def artifacts(machine_id: str) -> str:
    return f"{machine(machine_id)}/artifacts"


def artifact(machine_id: str, artifact_id: str) -> str:
    return _below(artifacts(machine_id), artifact_id, "artifact_id")


def key(key_id: str) -> str:
    return _below(KEYS, key_id, "key_id")


def webhook(webhook_id: str) -> str:
    return _below(WEBHOOKS, webhook_id, "webhook_id")


def delivery(webhook_id: str, event_id: str) -> str:
    return _below(f"{webhook(webhook_id)}/deliveries", event_id, "event_id")


def workflow(workflow_id: str) -> str:
    return _below(WORKFLOWS, workflow_id, "workflow_id")


def run(run_id: str) -> str:
    return _below(RUNS, run_id, "run_id")


def schedule(schedule_id: str) -> str:
    return _below(SCHEDULES, schedule_id, "schedule_id")


def with_query(path: str, query: Mapping[str, str | int | bool | None]) -> str:
    """`path` with what is not None of `query`; booleans are written `true` and `false`."""
    given = {name: _plain(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def _plain(value: str | int | bool) -> str:  # noqa: FBT001 - a value of a query, not a switch
    return str(value).lower() if isinstance(value, bool) else str(value)
