# ruff: noqa: ANN003, I001
# fmt: off
# mypy: ignore-errors
"""The helper that users of the SDK copy, exactly as its documentation prints it."""

import time
from dedalus_sdk import Dedalus

TERMINAL = {"succeeded", "failed", "cancelled", "expired"}

def run(client: Dedalus, machine_id: str, command: list[str], **kwargs) -> str:
    """Block until the execution finishes; return stdout. Raises on failure."""
    exc = client.machines.executions.create(machine_id=machine_id, command=command, **kwargs)
    delay = 0.1
    while exc.status not in TERMINAL:
        wait = (exc.retry_after_ms or 0) / 1000 if exc.status == "wake_in_progress" else delay
        time.sleep(wait)
        delay = min(delay * 2, 2.0)
        exc = client.machines.executions.retrieve(machine_id=machine_id, execution_id=exc.execution_id)
    if exc.status != "succeeded":
        raise RuntimeError(f"{exc.status}: {exc.error_code}: {exc.error_message}")
    out = client.machines.executions.output(machine_id=machine_id, execution_id=exc.execution_id)
    return out.stdout or ""
