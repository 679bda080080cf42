"""Server and node are upgraded one after the other: what one of them does not say yet has a meaning."""

from __future__ import annotations

import msgspec

from dormice.protocol import node as wire

EXITED = wire.Exited("dm-1", bytes(16), 1, 0, 0, 1, 2, 3, 4, False, False, False, False, 3, 4)


def test_an_end_from_an_older_node_says_nothing_of_what_was_sent() -> None:
    fields = msgspec.msgpack.decode(wire.encode(EXITED))
    assert wire.decode_from_node(msgspec.msgpack.encode(fields)) == EXITED
    older = wire.decode_from_node(msgspec.msgpack.encode(fields[:-2]))
    assert older == msgspec.structs.replace(EXITED, stdout_kept=0, stderr_kept=0)


def test_what_a_newer_node_adds_is_passed_over() -> None:
    fields = msgspec.msgpack.decode(wire.encode(EXITED))
    assert wire.decode_from_node(msgspec.msgpack.encode([*fields, "more"])) == EXITED
