"""The machines' nameserver: what it lets through, and what it survives."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node import network_lab as lab

from dormice.node.dns import Forwarder, NotAQuestion, Resolvers, failure, is_answer, question_of
from dormice.node.network import Networks

LOOPBACK = IPv4Network("127.0.0.0/8")
GATEWAY = IPv4Address("127.0.53.1")
A_MACHINE = "127.0.53.7"


def query(name: str = "example.org", message_id: int = 0x1234) -> bytes:
    labels = b"".join(len(part).to_bytes(1, "big") + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", message_id, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def reply(to: bytes, address: str = "198.51.100.7") -> bytes:
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    return to[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + to[12:] + record


def test_a_plain_question_is_read_as_its_question_section() -> None:
    assert question_of(query()) == query()[12:]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        query()[:11],
        query()[:-1],
        b"\x12\x34\x81" + query()[3:],
        b"\x12\x34\x29" + query()[3:],
        query()[:5] + b"\0" + query()[6:],
        query()[:5] + b"\x02" + query()[6:],
        query()[:12] + b"\xc0\x0c" + query()[-4:],
        query(".".join(["a" * 63] * 4)),
    ],
    ids=["empty", "short header", "short question", "answer", "update", "none", "two", "pointer", "long name"],
)
def test_anything_else_is_no_question(message: bytes) -> None:
    with pytest.raises(NotAQuestion):
        question_of(message)


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_no_message_does_worse_than_not_being_a_question(message: bytes, other: bytes) -> None:
    is_answer(message, 1, other)
    try:
        question = question_of(message)
    except NotAQuestion:
        return
    assert is_answer(failure(message, question), int.from_bytes(message[:2], "big"), question)


def test_an_answer_must_have_the_id_and_the_question_that_were_sent() -> None:
    asked = query()
    assert is_answer(reply(asked), 0x1234, asked[12:])
    assert is_answer(reply(asked).replace(b"example", b"eXAMPLE"), 0x1234, asked[12:])
    assert not is_answer(reply(asked), 0x1235, asked[12:])
    assert not is_answer(reply(query("evil.org")), 0x1234, asked[12:])
    assert not is_answer(asked, 0x1234, asked[12:])


def test_resolvers_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    resolvers = Resolvers(file)
    assert resolvers.current() == []
    file.write_text(
        "# by hand\nsearch lan\nnameserver 192.0.2.1\nnameserver fd00::1\nnameserver nonsense\nnameserver\n"
    )
    assert resolvers.current() == [("192.0.2.1", 53), ("fd00::1", 53)]
    other = tmp_path / "new"
    other.write_text("nameserver 192.0.2.9\n")
    other.rename(file)
    assert resolvers.current() == [("192.0.2.9", 53)]
    file.unlink()
    assert resolvers.current() == []


Answering = Callable[[bytes], bytes | None]


class Upstream(asyncio.DatagramProtocol):
    """A resolver that keeps what it was asked and answers as it is told."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.asked: list[bytes] = []
        self.was_asked = asyncio.Event()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        self.was_asked.set()
        answer = self._answering(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def upstream_at(where: socket.socket, answering: Answering) -> AsyncIterator[Upstream]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Upstream(answering), sock=where
    )
    try:
        yield protocol
    finally:
        transport.close()


@asynccontextmanager
async def forwarding(
    tmp_path: Path, upstreams: list[str], port: int, *, per_source: int = 64, machines: IPv4Network = LOOPBACK
) -> AsyncIterator[int]:
    """A forwarder on a loopback gateway; the port it listens on."""
    file = tmp_path / "resolv.conf"
    file.write_text("".join(f"nameserver {address}\n" for address in upstreams))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(GATEWAY), 0))
        own_port: int = probe.getsockname()[1]
    forwarder = Forwarder(
        GATEWAY,
        machines,
        Resolvers(file, port=port),
        port=own_port,
        per_source=per_source,
        timeout=0.2,
        patience=1.0,
    )
    async with asyncio.TaskGroup() as group:
        service = group.create_task(forwarder.run())
        await forwarder.ready.wait()
        yield own_port
        service.cancel()


def client(source: str = A_MACHINE) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((source, 0))
    return made


def bound(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((address, port))
    return made


async def ask(message: bytes, port: int, *, source: str = A_MACHINE) -> bytes:
    with client(source) as asking:
        asking.sendto(message, (str(GATEWAY), port))
        return await lab.receive(asking)


async def test_a_question_comes_back_answered_under_its_own_id(tmp_path: Path) -> None:
    where = bound()
    async with (
        upstream_at(where, reply) as upstream,
        forwarding(tmp_path, ["127.0.0.1"], where.getsockname()[1]) as port,
    ):
        for message_id in range(8):
            asked = query(message_id=message_id)
            assert await ask(asked, port) == reply(asked)
        assert [asked[2:] for asked in upstream.asked] == [query()[2:]] * 8
        assert {asked[:2] for asked in upstream.asked} != {bytes([0, index]) for index in range(8)}


async def test_forged_answers_are_passed_over(tmp_path: Path) -> None:
    where = bound()
    forged: list[bytes] = []

    def answering(asked: bytes) -> bytes:
        forged.append(reply(query("evil.org"))[2:])
        return asked[:2] + forged[0] if len(forged) == 1 else reply(asked)

    async with (
        upstream_at(where, answering),
        forwarding(tmp_path, ["127.0.0.1", "127.0.0.1"], where.getsockname()[1]) as port,
    ):
        assert await ask(query(), port) == reply(query())


async def test_a_silent_resolver_is_followed_by_the_next(tmp_path: Path) -> None:
    silent = bound("127.0.0.2")
    number = silent.getsockname()[1]
    async with (
        upstream_at(silent, lambda _: None) as unanswered,
        upstream_at(bound("127.0.0.3", number), reply),
        forwarding(tmp_path, ["127.0.0.2", "127.0.0.3"], number) as port,
    ):
        assert await ask(query(), port) == reply(query())
        assert len(unanswered.asked) == 1


@pytest.mark.parametrize("upstreams", [[], ["127.0.0.9"]], ids=["none", "a dead one"])
async def test_without_a_resolver_the_machine_is_told_of_the_failure(upstreams: list[str], tmp_path: Path) -> None:
    async with forwarding(tmp_path, upstreams, 9) as port:
        assert await ask(query(), port) == failure(query(), query()[12:])


async def test_one_machine_has_a_bounded_number_of_open_questions(tmp_path: Path) -> None:
    where = bound()
    held: list[bytes] = []

    def answering(asked: bytes) -> bytes | None:
        if b"held" in asked:
            held.append(asked)
            return None
        return reply(asked)

    async with (
        upstream_at(where, answering) as upstream,
        forwarding(tmp_path, ["127.0.0.1"], where.getsockname()[1], per_source=2) as port,
    ):
        with client() as greedy:
            for _ in range(10):
                greedy.sendto(query("held.org"), (str(GATEWAY), port))
            await upstream.was_asked.wait()
            assert await ask(query(), port, source="127.0.53.8") == reply(query())
            assert len(held) == 2
            assert await lab.receive(greedy) == failure(query("held.org"), query("held.org")[12:])
        assert await ask(query(), port) == reply(query())


def test_greedy_machines_leave_a_few_questions_to_every_other() -> None:
    forwarder = Forwarder(GATEWAY, LOOPBACK, per_source=4, in_total=8)
    greedy = [f"127.0.1.{number}" for number in (1, 2)]
    assert [forwarder.admit(source) for source in greedy * 5].count(True) == 8
    assert [forwarder.admit("127.0.1.3") for _ in range(4)] == [True, True, False, False]
    forwarder.finish("127.0.1.3")
    assert forwarder.admit("127.0.1.3")
    assert not forwarder.admit(greedy[0])


async def test_nobody_but_machines_is_answered(tmp_path: Path) -> None:
    where = bound()
    async with (
        upstream_at(where, reply) as upstream,
        forwarding(tmp_path, ["127.0.0.1"], where.getsockname()[1], machines=IPv4Network("127.0.53.0/24")) as port,
    ):
        for source in ("127.0.54.1", str(GATEWAY)):
            with client(source) as stranger:
                stranger.sendto(query("stranger.org"), (str(GATEWAY), port))
        reader, writer = await asyncio.open_connection(str(GATEWAY), port, local_addr=("127.0.54.1", 0))
        assert await reader.read() == b""
        writer.close()
        assert await ask(query(), port) == reply(query())
        assert [asked[12:] for asked in upstream.asked] == [query()[12:]]


async def test_hostile_datagrams_are_dropped_and_the_next_question_is_answered(tmp_path: Path) -> None:
    where = bound()
    async with (
        upstream_at(where, reply) as upstream,
        forwarding(tmp_path, ["127.0.0.1"], where.getsockname()[1]) as port,
    ):
        with client() as hostile:
            for message in (b"", b"\0" * 11, b"\xff" * 5000, query()[:-3], query()[:12] + b"\xc0\x0c\0\1\0\1"):
                hostile.sendto(message, (str(GATEWAY), port))
        assert await ask(query(), port) == reply(query())
        assert len(upstream.asked) == 1


async def test_several_questions_pass_over_one_stream(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def resolver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        asked.append(await reader.readexactly(length))
        answer = reply(asked[-1]) + bytes(2000)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    async with await asyncio.start_server(resolver, "127.0.0.1", 0) as server:
        number = server.sockets[0].getsockname()[1]
        async with forwarding(tmp_path, ["127.0.0.1"], number) as port:
            reader, writer = await asyncio.open_connection(str(GATEWAY), port, local_addr=(A_MACHINE, 0))
            for _ in range(2):
                writer.write(len(query()).to_bytes(2, "big") + query())
                answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                assert answer == reply(query()) + bytes(2000)
            writer.write(b"\xff\xff")
            assert await reader.read() == b""
            writer.close()
    assert len(asked) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
async def test_a_machine_resolves_names_through_its_gateway(tmp_path: Path) -> None:
    with lab.host_with_internet() as internet:
        networks = Networks(tmp_path, pool_size=0)
        await networks.open()
        (tmp_path / "resolv.conf").write_text(f"nameserver {lab.INTERNET}\n")
        forwarder = Forwarder(networks.gateway, networks.network, Resolvers(tmp_path / "resolv.conf"))
        async with asyncio.TaskGroup() as group, upstream_at(lab.bound(internet, lab.INTERNET, 53), reply):
            service = group.create_task(forwarder.run())
            await forwarder.ready.wait()
            network = await networks.acquire("dm-a")
            with lab.bound(lab.Namespace(network.netns_path), "0.0.0.0") as asking:
                asking.sendto(query(), (network.gateway, 53))
                assert await lab.receive(asking) == reply(query())
            service.cancel()
        await networks.release("dm-a")
        await networks.close()
