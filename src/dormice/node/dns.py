"""The machines' nameserver: forwards questions from machines to the host's resolvers, on the gateway address only.

Messages pass through unread apart from what routing the answer takes: the header and the one question. Every question
goes out on a socket of its own, with a new id, and only an answer to the same question from the resolver asked comes
back. Answers are not filtered by address: the packet rules deny what machines must not reach, whatever name it has.

A machine with an allow-list is told of other names that they do not exist. What an allowed one stands for is let through the packet
rules before the machine is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Never, Protocol

from dormice.domain.egress import PUBLIC, Egress
from dormice.node import dns_records

_log = logging.getLogger(__name__)
_HEADER = struct.Struct(">HHHHHH")
_ANSWER, _OPCODE, _RECURSION_DESIRED, _RECURSION_AVAILABLE, _SERVFAIL = 0x8000, 0x7800, 0x0100, 0x0080, 2
_MAX_QUESTION = 4096
_MAX_ANSWER = 65_535
_MAX_NAME = 255
_MAX_LABEL = 63
_ALWAYS_ADMITTED = 2  # the questions of one getaddrinfo
_STUB = "127.0.0.53"
_STUB_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")


class NotAQuestion(ValueError):
    """The message is no plain DNS question, or no answer to the one asked."""


def question_of(message: bytes) -> bytes:
    """The question section of a standard query with one question. Raises NotAQuestion."""
    flags, questions = _checked_header(message)
    if flags & (_ANSWER | _OPCODE) or questions != 1:
        raise NotAQuestion
    return message[_HEADER.size : _end_of_question(message)]


def is_answer(message: bytes, message_id: int, question: bytes) -> bool:
    """Whether `message` answers `question` asked under `message_id`. A refusal may leave the question out."""
    try:
        flags, questions = _checked_header(message)
        if not flags & _ANSWER or message[:2] != message_id.to_bytes(2, "big"):
            return False
        if questions == 0:
            return flags & 0x000F != 0
        return questions == 1 and message[_HEADER.size : _end_of_question(message)].lower() == question.lower()
    except NotAQuestion:
        return False


def failure(message: bytes, question: bytes) -> bytes:
    """The answer SERVFAIL to a question."""
    message_id, flags, *_ = _HEADER.unpack_from(message)
    flags = _ANSWER | (flags & _RECURSION_DESIRED) | _RECURSION_AVAILABLE | _SERVFAIL
    return _HEADER.pack(message_id, flags, 1, 0, 0, 0) + question


def _checked_header(message: bytes) -> tuple[int, int]:
    if len(message) < _HEADER.size:
        raise NotAQuestion
    _, flags, questions, *_ = _HEADER.unpack_from(message)
    return flags, questions


def _end_of_question(message: bytes) -> int:
    offset = _HEADER.size
    while offset < len(message) and (length := message[offset]) != 0:
        if length > _MAX_LABEL:  # nothing a question's name could point back to
            raise NotAQuestion
        offset += 1 + length
    end = offset + 5  # the root label, type and class
    if end > len(message) or offset - _HEADER.size >= _MAX_NAME:
        raise NotAQuestion
    return end


class Resolvers:
    """The nameservers of a resolv.conf, read again when the file changes."""

    def __init__(self, resolv_conf: Path = Path("/etc/resolv.conf"), *, port: int = 53) -> None:
        self._file = resolv_conf
        self._port = port
        self._stamp: tuple[int, int] | None = None
        self._current: list[tuple[str, int]] = []

    def current(self) -> list[tuple[str, int]]:
        """Address and port of each, in the file's order; none when there is no such file."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._current = [(address, self._port) for address in self._read()]
                self._stamp = stamp
        except OSError:
            self._stamp, self._current = None, []
        return self._current

    def _read(self) -> list[str]:
        addresses = list(_nameservers(self._file.read_text(errors="replace")))
        # A local stub also answers with the host's own names: ask who it would ask, when we can see who that is.
        if addresses == [_STUB] and _STUB_UPSTREAM.exists():
            return list(_nameservers(_STUB_UPSTREAM.read_text(errors="replace"))) or addresses
        return addresses


def _nameservers(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with contextlib.suppress(ValueError):
                    ipaddress.ip_address(address)
                    yield address


class Gatekeeper(Protocol):
    """Knows what machines may reach, and lets them (node/egress.py)."""

    def policy(self, machine: IPv4Address) -> Egress:
        """What the machine with this address may reach."""
        ...

    def let_in(self, machine: IPv4Address, name: str, found: Mapping[IPv4Address, int]) -> bool:
        """Let the machine reach what the name stands for; False if it may not. Blocking; raises OSError."""
        ...


class Forwarder:
    """Answers on UDP and TCP port 53 of the gateway for sources inside `machines`, and for nobody else.

    One machine may have `per_source` questions open, all together `in_total`; further ones are dropped, and the
    machine's resolver asks again. Sixteen machines could hold all of these open, so each other one may still ask two. `timeout` in seconds bounds each resolver, `patience` the whole question.
    """

    def __init__(
        self,
        gateway: IPv4Address,
        machines: IPv4Network,
        resolvers: Resolvers | None = None,
        gates: Gatekeeper | None = None,
        *,
        port: int = 53,
        per_source: int = 64,
        in_total: int = 1024,
        timeout: float = 2.0,
        patience: float = 5.0,
    ) -> None:
        self._gateway = gateway
        self._machines = machines
        self._resolvers = resolvers or Resolvers()
        self._gates = gates
        self._port = port
        self._per_source = per_source
        self._in_total = in_total
        self._timeout = timeout
        self._patience = patience
        self._open: Counter[str] = Counter()
        self._open_in_total = 0
        self.ready = asyncio.Event()
        """Set while the forwarder answers."""

    async def run(self) -> Never:
        """Answer until cancelled. Raises OSError when the address cannot be bound."""
        loop = asyncio.get_running_loop()
        gateway = str(self._gateway)
        async with asyncio.TaskGroup() as questions:
            datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self, questions), local_addr=(gateway, self._port)
            )
            try:
                streams = await asyncio.start_server(
                    lambda reader, writer: self._accept(reader, writer, questions), gateway, self._port
                )
                async with streams:
                    self.ready.set()
                    await streams.serve_forever()
            finally:
                self.ready.clear()
                datagrams.close()
        raise AssertionError("serving ends by cancellation only")

    def admit(self, source: str) -> bool:
        """Count one more open question of `source`, if it is a machine and within its bounds."""
        address = ipaddress.ip_address(source)
        if address not in self._machines or address == self._gateway:
            return False
        allowed = self._per_source if self._open_in_total < self._in_total else _ALWAYS_ADMITTED
        if self._open.get(source, 0) >= allowed:
            return False
        self._open[source] += 1
        self._open_in_total += 1
        return True

    def finish(self, source: str) -> None:
        """The counterpart of `admit`."""
        self._open_in_total -= 1
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]

    async def answer(self, source: str, message: bytes, *, stream: bool) -> bytes:
        """The answer to `message` that the machine `source` is given. Raises NotAQuestion."""
        machine = IPv4Address(source)
        if self._gates is None or self._gates.policy(machine) == PUBLIC:
            return await self._forward(message, stream=stream)
        question = question_of(message)
        try:
            name = dns_records.name_of(question)
            if not self._gates.policy(machine).allows_name(name):
                return dns_records.without_records(message, question, dns_records.NO_SUCH_NAME)
            if dns_records.names_addresses_aside(question):
                return dns_records.without_records(message, question, 0)
            answer = await self._forward(message, stream=stream)
            if await asyncio.to_thread(self._gates.let_in, machine, name, dns_records.addresses(answer)):
                return answer
        except (dns_records.BadMessage, OSError) as error:
            _log.warning("no answer for %s: %s", source, error)
        return failure(message, question)

    async def _forward(self, message: bytes, *, stream: bool) -> bytes:
        """The resolvers' answer to `message`, SERVFAIL when no resolver gives one. Raises NotAQuestion."""
        question = question_of(message)
        ask = _ask_by_stream if stream else _ask_by_datagram
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                for resolver in self._resolvers.current():
                    with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
                        async with asyncio.timeout(self._timeout):
                            return message[:2] + (await ask(resolver, message, question))[2:]
        return failure(message, question)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: asyncio.TaskGroup) -> None:
        source: str = writer.get_extra_info("peername")[0]
        if self.admit(source):
            questions.create_task(self._serve_stream(reader, writer, source))
        else:
            writer.close()

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
        """One question after the other, as many as come in time."""
        try:
            while True:
                async with asyncio.timeout(self._patience):
                    message = await _read_framed(reader, _MAX_QUESTION)
                answer = await self.answer(source, message, stream=True)
                async with asyncio.timeout(self._patience):
                    writer.write(_framed(answer))
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, NotAQuestion):
            pass  # the machine has gone, is too slow or talks nonsense
        finally:
            self.finish(source)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, forwarder: Forwarder, questions: asyncio.TaskGroup) -> None:
        self._forwarder = forwarder
        self._questions = questions
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) <= _MAX_QUESTION and self._forwarder.admit(addr[0]):
            self._questions.create_task(self._answer(data, addr))

    def error_received(self, exc: Exception) -> None:
        """An answer could not be delivered: the machine has gone."""

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            answer = await self._forwarder.answer(addr[0], data, stream=False)
        except NotAQuestion:
            return
        finally:
            self._forwarder.finish(addr[0])
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


async def _ask_by_datagram(resolver: tuple[str, int], message: bytes, question: bytes) -> bytes:
    """On a socket of its own, connected: the port is a new one each time, and only the resolver can answer."""
    loop = asyncio.get_running_loop()
    message_id = secrets.randbits(16)
    with socket.socket(_family(resolver), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as upstream:
        upstream.connect(resolver)
        await loop.sock_sendall(upstream, message_id.to_bytes(2, "big") + message[2:])
        while True:
            answer = await loop.sock_recv(upstream, _MAX_ANSWER)
            if is_answer(answer, message_id, question):
                return answer


async def _ask_by_stream(resolver: tuple[str, int], message: bytes, question: bytes) -> bytes:
    message_id = secrets.randbits(16)
    reader, writer = await asyncio.open_connection(*resolver)
    try:
        writer.write(_framed(message_id.to_bytes(2, "big") + message[2:]))
        await writer.drain()
        answer = await _read_framed(reader, _MAX_ANSWER)
    finally:
        writer.close()
    if not is_answer(answer, message_id, question):
        raise ConnectionError("the resolver answered another question")
    return answer


async def _read_framed(reader: asyncio.StreamReader, limit: int) -> bytes:
    length = int.from_bytes(await reader.readexactly(2), "big")
    if length > limit:
        raise NotAQuestion
    return await reader.readexactly(length)


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _family(resolver: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET
