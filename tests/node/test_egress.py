"""Egress policies of machines: what the packet rules and the nameserver let through together."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.node import network_lab as lab
from tests.node.test_dns import query, upstream_at

from dormice.domain.egress import NOTHING, PUBLIC, Egress, allow_list
from dormice.node import egress as gates
from dormice.node import nftables
from dormice.node.dns import Forwarder, Resolvers
from dormice.node.dns_records import BadMessage, addresses
from dormice.node.netlink import keep_elements
from dormice.node.network import Networks
from dormice.node.ports import Network
from dormice.node.runtime import RuntimeFailure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
NAMES = {"good.example": lab.ELSEWHERE, "rebound.example": "192.168.5.5", "host.example": lab.HOST_PUBLIC}
GOOD = allow_list(["good.example", "rebound.example", "host.example"])
_NO_SUCH_NAME = 3
_REFUSED = (errno.EHOSTUNREACH, errno.ECONNREFUSED)


def answering(asked: bytes) -> bytes:
    """The outside's nameserver: every name below `alias.` is an alias of what follows."""
    labels, offset = [], 12
    while length := asked[offset]:
        labels.append(asked[offset + 1 : offset + 1 + length].decode())
        offset += 1 + length
    name, records, count = ".".join(labels).lower(), b"", 0
    owner = b"\xc0\x0c"
    if labels[0] == "alias":
        target = b"".join(bytes([len(label)]) + label.encode() for label in labels[1:]) + b"\0"
        records += owner + struct.pack(">HHIH", 5, 1, 60, len(target)) + target
        owner, name, count = target, ".".join(labels[1:]), 1
    if name in NAMES:
        records += owner + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(NAMES[name])
        count += 1
    return asked[:2] + struct.pack(">HHHHH", 0x8180, 1, count, 0, 0) + asked[12 : offset + 5] + records


@dataclass
class World:
    """One machine, an internet that listens on port 80 of ELSEWHERE, and a nameserver there."""

    networks: Networks
    network: Network
    inside: lab.Namespace
    asked: list[bytes]

    async def resolve(self, name: str) -> int:
        """The response code."""
        with lab.bound(self.inside, "0.0.0.0") as asking:
            asking.connect((self.network.gateway, 53))
            asking.send(query(name))
            return (await lab.receive(asking))[3] & 0xF

    async def reaches(self, address: str = lab.ELSEWHERE) -> bool:
        try:
            async with asyncio.timeout(2):
                (await lab.connect(self.inside, address, 80)).close()
        except OSError as error:
            if error.errno in _REFUSED:
                return False
            raise
        return True


@pytest.fixture(name="internet")
def _internet() -> Iterator[lab.Namespace]:
    with lab.host_with_internet() as internet:
        yield internet


@asynccontextmanager
async def a_node(
    internet: lab.Namespace, run: Path, egress: Egress = PUBLIC, *, left_by: World | None = None
) -> AsyncIterator[World]:
    """A node with one machine, `dm-a`: a new one, or the one that an earlier node has left, as it is."""
    networks = Networks(run, pool_size=0)
    await networks.open()
    (run / "resolv.conf").write_text(f"nameserver {lab.INTERNET}\n")
    forwarder = Forwarder(networks.gateway, networks.network, Resolvers(run / "resolv.conf"), networks.gates)
    where = lab.bound(internet, lab.INTERNET, 53)
    async with asyncio.TaskGroup() as group, upstream_at(where, answering) as upstream:
        service = group.create_task(forwarder.run())
        await forwarder.ready.wait()
        if left_by is None:
            network = await networks.acquire("dm-a")
            await networks.confine("dm-a", egress)
            held = os.open(network.netns_path, os.O_RDONLY | os.O_CLOEXEC)  # as a machine's processes would
            inside = lab.Namespace(Path(f"/proc/{os.getpid()}/fd/{held}"))
        else:
            network, inside = left_by.network, left_by.inside
        yield World(networks, network, inside, upstream.asked)
        service.cancel()
    await networks.close()


@pytest.fixture(name="servers")
def _servers(internet: lab.Namespace) -> Iterator[socket.socket]:
    with lab.listening(internet, "0.0.0.0", 80) as server, lab.listening(lab.THE_HOST, "0.0.0.0", 80):
        yield server


async def test_without_a_policy_all_that_is_public_is_reached(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, PUBLIC) as world:
        assert await world.reaches()
        assert await world.resolve("other.example") == 0
        assert list((tmp_path / "egress").iterdir()) == []


async def test_a_closed_machine_reaches_nothing_and_is_told_at_once(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, NOTHING) as world:
        assert not await world.reaches()
        with pytest.raises(OSError, match=r"No route to host|Connection refused"):
            await world.resolve("good.example")
        assert world.asked == []


async def test_an_allowed_name_is_reached_once_it_was_asked_for(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        assert not await world.reaches()
        assert await world.resolve("GOOD.example") == 0
        assert await world.reaches()
        assert not await world.reaches(lab.INTERNET)


async def test_other_names_do_not_exist_and_are_asked_of_nobody(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, allow_list(["*.good.example"])) as world:
        for name in ("other.example", "good.example", "evilgood.example"):
            assert await world.resolve(name) == _NO_SUCH_NAME
        assert world.asked == []
        assert await world.resolve("alias.good.example") == 0
        assert await world.reaches()


async def test_an_allowed_name_opens_no_address_that_is_not_public(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        for name in ("rebound.example", "host.example"):
            assert await world.resolve(name) == 0
            assert not await world.reaches(NAMES[name])
        assert not any(address == IPv4Address("192.168.5.5") for _, address in nftables.named("dormice"))


async def test_networks_of_the_list_need_no_name(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    listed = allow_list(["198.51.100.0/24", "198.51.100.7", "0.0.0.0/1"])
    async with a_node(internet, tmp_path, listed) as world:
        assert await world.reaches()
        assert not await world.reaches(lab.INTERNET)
        assert not await world.reaches("192.168.5.5")
        assert not await world.reaches("10.99.0.5")


async def test_one_machines_answers_open_nothing_for_another(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        other = await world.networks.acquire("dm-b")
        await world.networks.confine("dm-b", GOOD)
        assert await world.resolve("good.example") == 0
        twin = World(world.networks, other, lab.Namespace(other.netns_path), [])
        assert await world.reaches()
        assert not await twin.reaches()


async def test_a_new_policy_holds_at_once_and_cuts_what_it_does_not_allow(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    async with a_node(internet, tmp_path, GOOD) as world:
        await world.resolve("good.example")
        with await lab.connect(world.inside, lab.ELSEWHERE, 80) as client:
            connection, _ = await loop.sock_accept(servers)
            with connection:
                await world.networks.confine("dm-a", allow_list(["good.example", "more.example"]))
                await loop.sock_sendall(client, b"still allowed")
                assert await lab.receive(connection) == b"still allowed"
                await world.networks.confine("dm-a", allow_list(["more.example"]))
                await loop.sock_sendall(client, b"no more")
                with pytest.raises(TimeoutError):
                    await lab.receive(connection, within=0.5)
        assert not await world.reaches()
        assert await world.resolve("good.example") == _NO_SUCH_NAME
        await world.networks.confine("dm-a", PUBLIC)
        assert await world.reaches()
        await world.networks.confine("dm-a", NOTHING)
        assert not await world.reaches()


async def test_policies_outlive_the_node_and_its_rules(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        await world.resolve("good.example")
        assert await world.reaches()
    async with a_node(internet, tmp_path, left_by=world) as world:
        assert await world.reaches()
        assert not await world.reaches(lab.INTERNET)
        assert await world.resolve("other.example") == _NO_SUCH_NAME
        world.networks._restore_rules()
        lab.run_in_shell("nft flush ruleset")
        world.networks._restore_rules()
        assert await world.reaches()
        assert not await world.reaches(lab.INTERNET)
        await world.networks.release("dm-a")
    assert list((tmp_path / "egress").iterdir()) == []


async def test_a_policy_is_kept_also_where_somebody_has_meddled_with_the_rules(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, allow_list(["198.51.100.0/24"])) as world:
        assert await world.reaches()
        lab.run_in_shell("nft flush set inet dormice allowed_networks; nft delete chain inet dormice translated")
        await world.networks.confine("dm-a", allow_list(["203.0.113.0/24"]))
        assert not await world.reaches()
        assert await world.reaches(lab.INTERNET)
        lab.run_in_shell("nft delete table inet dormice")
        await world.networks.confine("dm-a", NOTHING)
        assert not await world.reaches(lab.INTERNET)


@contextmanager
def instead_of_nft(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> Iterator[None]:
    """Have the node run a script where it means to run `nft`; how many files it may open is set right afterwards."""
    program, most = directory / "nft", resource.getrlimit(resource.RLIMIT_NOFILE)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    try:
        with monkeypatch.context() as changed:
            changed.setenv("PATH", f"{directory}:{os.environ['PATH']}")
            yield
    finally:
        program.unlink()
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


REFUSE = "echo no memory >&2; exit 1"
THEN_NO_MORE_FILES = f'{shutil.which("nft")} "$@" && prlimit --pid $PPID --nofile=0:'


async def test_a_policy_that_the_kernel_did_not_take_is_given_again(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        await world.resolve("good.example")
        with instead_of_nft(monkeypatch, tmp_path, REFUSE), pytest.raises(RuntimeFailure, match="no memory"):
            await world.networks.confine("dm-a", NOTHING)
        assert await world.reaches(), "the rules are those of before"
        await world.networks.confine("dm-a", NOTHING)
        assert not await world.reaches()
        with instead_of_nft(monkeypatch, tmp_path, REFUSE), pytest.raises(RuntimeFailure, match="no memory"):
            await world.networks.confine("dm-a", PUBLIC)
        await world.networks.confine("dm-a", NOTHING)
        assert not await world.reaches()


async def test_connections_that_could_not_be_cut_are_cut_when_the_policy_is_given_again(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with a_node(internet, tmp_path, PUBLIC) as world:
        with await lab.connect(world.inside, lab.ELSEWHERE, 80) as client:
            connection, _ = await loop.sock_accept(servers)
            with connection:
                broken = instead_of_nft(monkeypatch, tmp_path, THEN_NO_MORE_FILES)
                with broken, pytest.raises(RuntimeFailure, match="Too many open files"):
                    await world.networks.confine("dm-a", GOOD)
                await world.networks.confine("dm-a", GOOD)
                await loop.sock_sendall(client, b"no more")
                with pytest.raises(TimeoutError):
                    await lab.receive(connection, within=0.5)


async def test_an_address_is_given_back_only_once_its_policy_is_gone(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_node(internet, tmp_path, NOTHING) as world:
        address = IPv4Address(world.network.address)
        await world.networks.release("dm-a")
        with instead_of_nft(monkeypatch, tmp_path, REFUSE), pytest.raises(RuntimeFailure, match="no memory"):
            await world.networks._turn()
        while await world.networks._turn():
            pass
        lab.run_in_shell(f"! nft list set inet dormice closed | grep -F {address}")


async def test_a_policy_that_cannot_be_read_opens_nothing(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        (tmp_path / "egress" / "dm-a").write_bytes(b"{")
    async with a_node(internet, tmp_path, left_by=world) as world:
        assert not await world.reaches()


async def test_an_address_that_was_given_back_is_open_to_the_next_machine(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        await world.resolve("good.example")
        address = IPv4Address(world.network.address)
        await world.networks.release("dm-a")
        while await world.networks._turn():
            pass
        assert world.networks.gates.policy(address) == PUBLIC
        assert nftables.named("dormice") == {}


async def test_a_machine_that_is_woken_at_once_keeps_its_policy_over_a_restart(
    internet: lab.Namespace, servers: socket.socket, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path, GOOD) as world:
        await world.networks.release("dm-a")
        network = await world.networks.acquire("dm-a")
        await world.networks.confine("dm-a", GOOD)
        while await world.networks._turn():
            pass
        held = os.open(network.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        woken = World(world.networks, network, lab.Namespace(Path(f"/proc/{os.getpid()}/fd/{held}")), [])
    async with a_node(internet, tmp_path, left_by=woken) as world:
        assert not await world.reaches()
        assert await world.resolve("good.example") == 0
        assert await world.reaches()


async def test_a_machine_is_let_in_to_so_many_addresses_and_no_more(
    internet: lab.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MOST_ADDRESSES", 2)
    async with a_node(internet, tmp_path, allow_list(["many.example"])) as world:
        machine = IPv4Address(world.network.address)
        found = [IPv4Address("203.0.113.50"), IPv4Address("203.0.113.51"), IPv4Address("203.0.113.52")]
        assert world.networks.gates.let_in(machine, "many.example", dict.fromkeys(found[:2], 60))
        assert not world.networks.gates.let_in(machine, "many.example", {found[2]: 60})
        left = nftables.named("dormice")
        assert {address for _, address in left} == set(found[:2])
        assert min(left.values()) >= gates.LEAST_SECONDS - 5
        assert world.networks.gates.let_in(machine, "many.example", {found[0]: 86_400})
        assert nftables.named("dormice")[machine, found[0]] >= 86_400


async def test_an_answer_may_be_as_long_as_fits_into_one_message(internet: lab.Namespace, tmp_path: Path) -> None:
    async with a_node(internet, tmp_path, allow_list(["many.example"])) as world:
        machine, first = IPv4Address(world.network.address), IPv4Address("8.0.0.0")
        let_in = world.networks.gates.let_in
        assert let_in(machine, "many.example", {first + number: 60 for number in range(gates.MOST_OF_ONE_ANSWER)})
        assert len(nftables.named("dormice")) == gates.MOST_OF_ONE_ANSWER
        assert not let_in(machine, "many.example", {first - number: 60 for number in range(1, 4_001)})
        assert not let_in(machine, "other.example", {first - 1: 60})


async def test_what_the_kernel_refuses_is_an_error(internet: lab.Namespace, tmp_path: Path) -> None:
    async with a_node(internet, tmp_path, GOOD):
        with pytest.raises(FileNotFoundError, match="set nowhere of dormice"):
            keep_elements("dormice", "nowhere", {bytes(8): 60})


def test_only_addresses_of_the_name_asked_for_count() -> None:
    asked = query("alias.good.example")
    whole = answering(asked)
    assert addresses(whole) == {IPv4Address(lab.ELSEWHERE): 60}
    stray = b"\x04evil\0" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("203.0.113.9")
    assert addresses(whole[:7] + b"\3" + whole[8:] + stray) == {IPv4Address(lab.ELSEWHERE): 60}


def test_aliases_are_followed_no_further_than_nameservers_do() -> None:
    def name(number: int) -> bytes:
        return bytes([len(b"%x" % number)]) + b"%x" % number + b"\0"

    def chain(length: int) -> bytes:
        records = [struct.pack(">HHIH", 5, 1, 60, len(name(n + 1))) + name(n + 1) for n in range(length)]
        last = name(length) + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(lab.ELSEWHERE)
        answer = b"".join(name(n) + record for n, record in reversed(list(enumerate(records)))) + last
        return struct.pack(">HHHHHH", 1, 0x8180, 1, length + 1, 0, 0) + name(0) + struct.pack(">HH", 1, 1) + answer

    assert addresses(chain(16)) == {IPv4Address(lab.ELSEWHERE): 60}
    assert addresses(chain(17)) == {}


@pytest.mark.parametrize("damage", [b"", b"\xc0\x0c" * 3, b"\xc0\xff" + bytes(10), b"\x50" + bytes(20)])
def test_a_damaged_answer_opens_nothing(damage: bytes) -> None:
    head = query("good.example")
    with pytest.raises(BadMessage):
        addresses(head[:7] + b"\1" + head[8:] + damage)
