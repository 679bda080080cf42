"""Server-sent events: bytes in, events out. Pure: no I/O.

Lines end with LF, CR or CRLF, an event ends with a blank line, lines that begin with a colon are comments.
An event that the end of the stream cuts off is dropped, as the format demands.
"""

from __future__ import annotations

from collections.abc import Iterator


class ServerSentEvent:
    """One event. `name` is `message` if the server gave none, `id` is None if this event carries none."""

    __slots__ = ("data", "id", "name")

    def __init__(self, name: str, data: str, id: str | None) -> None:  # noqa: A002 - the format's word
        self.name = name
        self.data = data
        self.id = id


class Decoder:
    """Feed it chunks as they come; an event appears as soon as its blank line is there."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        for line in self._lines(chunk):
            if line:
                self._field(line.decode(errors="replace"))
            elif self._data:
                yield ServerSentEvent(self._name or "message", "\n".join(self._data), self._id)
                self._forget()
            else:
                self._forget()

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The whole lines. A CR at the very end waits: the LF that belongs to it may be still on its way."""
        self._unread += chunk
        held = b"\r" if self._unread.endswith(b"\r") else b""
        text = bytes(self._unread[: len(self._unread) - len(held)])
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._unread = bytearray(rest + held)
        return lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value

    def _forget(self) -> None:
        self._name, self._data, self._id = "", [], None
