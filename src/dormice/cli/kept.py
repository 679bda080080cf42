"""What `dormice exec --artifacts` says on stderr once the command has ended: which files were kept, or that there are none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from dormice.cli.printing import Record, printable
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.errors import DormiceError

_PATIENCE_SECONDS = 30
"""So long is a collection waited for; it goes on after that."""
_PAUSE_SECONDS = 0.1
_PENDING = "pending"


def tell_kept(connection: Connection, machine_id: str, execution_id: str, patterns: Sequence[str]) -> None:
    """Print a line for each artifact of an execution that has ended. What fails is told too: the command has its own end."""
    try:
        record = _collected(connection, routes.execution(machine_id, execution_id))
        kept = {one["artifact_id"] for one in record.get("artifacts") or ()}
        for artifact in _artifacts(connection, machine_id, kept.copy()):
            name, size = printable(artifact["name"]), artifact["size_bytes"]
            _say(f"kept {name} ({size} bytes) as {artifact['artifact_id']}")
    except DormiceError as error:
        _say(f"the artifacts cannot be shown: {error}")
        return
    if record.get("artifacts_message"):
        _say(f"artifacts: {printable(record['artifacts_message'])}")
    elif record.get("artifacts_status") == _PENDING:
        _say(f"files are still being kept: dormice machines artifacts list --machine-id {machine_id} shows them")
    elif not kept:
        _say(f"no file matches {' or '.join(patterns)}")


def _collected(connection: Connection, path: str) -> dict[str, Any]:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        record: dict[str, Any] = connection.call("GET", path).json()
        if record.get("artifacts_status") != _PENDING or time.monotonic() > until:
            return record
        time.sleep(_PAUSE_SECONDS)


def _artifacts(connection: Connection, machine_id: str, wanted: set[str]) -> Iterator[Record]:
    """Those of the ids, newest first. Ends early if some were deleted meanwhile."""
    cursor = None
    while wanted:
        page = connection.call("GET", routes.artifacts(machine_id), query={"cursor": cursor}).json()
        for artifact in page["items"]:
            if artifact["artifact_id"] in wanted:
                wanted.discard(artifact["artifact_id"])
                yield artifact
        if not (cursor := page.get("next_cursor")):
            return


def _say(text: str) -> None:
    print(f"dormice: {text}", file=sys.stderr)
