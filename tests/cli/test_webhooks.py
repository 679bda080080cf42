"""`dormice webhooks` as a process, against a real HTTP server."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer

DELIVERY = {"webhook_id": "wh-1", "event_id": "evt-1", "type": "webhook.test", "attempts": 1}


@pytest.mark.parametrize("words", [("test", "wh-1"), ("redeliver", "wh-1", "evt-1")])
@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        ({"status": "delivered", "last_status_code": 204}, 0, b""),
        ({"status": "pending", "last_error": "answered 500"}, 1, b"dormice: not delivered: answered 500\n"),
        ({"status": "pending", "attempts": 0}, 1, b"dormice: not delivered: pending\n"),
        ({"status": "failed", "last_error": "gone"}, 1, b"dormice: not delivered: gone\n"),
    ],
)
def test_who_waits_for_a_delivery_learns_what_became_of_it(
    dormice: Dormice, server: FakeServer, words: tuple[str, ...], outcome: dict[str, object], code: int, said: bytes
) -> None:
    server.planned += [Answer(200, body={**DELIVERY, **outcome})]
    done = dormice("webhooks", *words, "--wait-ms", "1000")
    assert (done.returncode, done.stderr) == (code, said)


def test_without_a_wait_a_delivery_that_is_on_its_way_is_fine(dormice: Dormice, server: FakeServer) -> None:
    server.planned += [Answer(200, body={**DELIVERY, "status": "pending"})]
    assert dormice("webhooks", "test", "wh-1").returncode == 0


def test_help_says_what_becomes_of_events_that_are_left_out(dormice: Dormice) -> None:
    made, changed = (b" ".join(dormice("webhooks", name, "--help").stdout.split()) for name in ("create", "update"))
    assert b"(default: all)" in made
    assert b"(default: as before)" in changed
