"""`dormice terminals` as a process, against a real HTTP server."""

from __future__ import annotations

import json

from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer

RECORD = {"terminal_id": "term-1", "machine_id": "dm-1", "status": "ready", "stream_url": "ws://x/stream?token=secret"}


def test_what_is_deleted_is_named_without_a_way_in(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [Answer(200, body=RECORD), Answer(200, body=RECORD)]
    assert dormice("terminals", "delete", "dm-1", "term-1").stdout == b"terminal_id  term-1\ndeleted      true\n"
    shown = json.loads(dormice("terminals", "delete", "dm-1", "term-1", "--json").stdout)
    assert shown == {"terminal_id": "term-1", "machine_id": "dm-1", "status": "ready"}
