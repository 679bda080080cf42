"""An outbox keeps the order, writes the first message of a turn at once and the others together."""

from __future__ import annotations

import asyncio

from dormice.outbox import Outbox
from tests.wait import others_run


class Written(asyncio.WriteTransport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))


async def test_the_first_message_leaves_at_once_and_the_others_of_the_turn_together() -> None:
    outbox, transport = Outbox(), Written()
    outbox.open(transport)
    for message in (b"a", b"b", b"c"):
        outbox.send(message)
    assert transport.pieces == [b"a"]
    await others_run()
    assert transport.pieces == [b"a", b"bc"]
    outbox.send(b"d")
    assert transport.pieces == [b"a", b"bc", b"d"]


async def test_what_is_posted_leaves_with_what_comes_next_or_at_the_end_of_the_turn() -> None:
    outbox, transport = Outbox(), Written()
    outbox.open(transport)
    outbox.post(b"a")
    assert transport.pieces == []
    outbox.send(b"b")
    assert transport.pieces == [b"ab"]
    outbox.post(b"c")
    await others_run()
    assert transport.pieces == [b"ab", b"c"]


async def test_closing_writes_what_waits_and_nothing_after() -> None:
    outbox, transport = Outbox(), Written()
    outbox.send(b"lost: there is no transport yet")
    outbox.open(transport)
    await others_run()
    outbox.post(b"a")
    outbox.close()
    outbox.send(b"b")
    await others_run()
    assert transport.pieces == [b"a"]
