"""Length-prefixed messages on a byte stream: `u32 little-endian length`, then that many bytes."""

from __future__ import annotations

from struct import Struct

MAX_MESSAGE_BYTES = 4 << 20
_LENGTH = Struct("<I")


class FramingViolation(Exception):
    """The peer announced a message longer than the limit."""


def frame(message: bytes) -> bytes:
    """Put the length before a message."""
    return _LENGTH.pack(len(message)) + message


class Framer:
    """Cuts a byte stream into messages. Bytes may arrive in any pieces."""

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that `data` completes. Raises FramingViolation."""
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self._limit:
                raise FramingViolation(f"a message of {length} bytes exceeds the limit of {self._limit}")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            messages.append(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        if start:
            del buffer[:start]
        return messages
