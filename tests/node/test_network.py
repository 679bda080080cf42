"""Machines' networks, on a host and an internet made of namespaces."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest
from tests.node import network_lab as lab
from tests.wait import wait_until, wait_until_async

from dormice.node import uplink
from dormice.node.netlink import RouteSocket, forget_flows
from dormice.node.network import Networks
from dormice.node.ports import Network
from dormice.node.runtime import RuntimeFailure

T = TypeVar("T")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")


@pytest.fixture(name="internet")
def _internet() -> Iterator[lab.Namespace]:
    with lab.host_with_internet() as internet:
        yield internet


@asynccontextmanager
async def opened(run_dir: Path, *, flows: int = 2048, pool_size: int = 0) -> AsyncIterator[Networks]:
    networks = Networks(run_dir, flows_per_machine=flows, pool_size=pool_size)
    await networks.open()
    try:
        yield networks
    finally:
        await networks.close()


@pytest.fixture(name="networks")
async def _networks(internet: lab.Namespace, tmp_path: Path) -> AsyncIterator[Networks]:
    async with opened(tmp_path) as networks:
        yield networks


async def machine(networks: Networks, name: str = "dm-a") -> tuple[Network, lab.Namespace]:
    network = await networks.acquire(name)
    return network, lab.Namespace(network.netns_path)


async def test_a_machine_reaches_the_internet_under_the_address_of_the_host(
    internet: lab.Namespace, networks: Networks
) -> None:
    _, inside = await machine(networks)
    with lab.listening(internet, lab.ELSEWHERE, 80) as server, await lab.connect(inside, lab.ELSEWHERE, 80) as client:
        connection, (source, _) = await asyncio.get_running_loop().sock_accept(server)
        with connection:
            await asyncio.get_running_loop().sock_sendall(connection, b"hello")
            assert await lab.receive(client) == b"hello"
    assert source == lab.HOST_PUBLIC


@pytest.mark.parametrize("target", [*lab.DENIED, lab.HOST_PUBLIC, lab.HOST_PRIVATE, "10.213.0.1", "203.0.113.255"])
async def test_a_machine_is_told_at_once_that_it_may_not_reach(
    target: str, internet: lab.Namespace, networks: Networks
) -> None:
    _, inside = await machine(networks)
    everywhere = internet if target in lab.DENIED else lab.THE_HOST
    with lab.listening(everywhere, "0.0.0.0", 80), refused():
        async with asyncio.timeout(2):
            await lab.connect(inside, target, 80)


async def test_no_datagram_reaches_what_a_machine_may_not_reach(internet: lab.Namespace, networks: Networks) -> None:
    _, inside = await machine(networks)
    neighbour_network, neighbour = await machine(networks, "dm-b")
    targets = {address: lab.bound(internet, address, 7000) for address in lab.DENIED}
    targets |= {address: lab.bound(lab.THE_HOST, address, 7000) for address in (lab.HOST_PUBLIC, lab.HOST_PRIVATE)}
    targets |= {str(networks.gateway): lab.bound(lab.THE_HOST, str(networks.gateway), 7000)}
    targets |= {neighbour_network.address: lab.bound(neighbour, "0.0.0.0", 7000)}
    with lab.bound(internet, lab.ELSEWHERE, 7000) as allowed, inside.socket(socket.SOCK_DGRAM) as client:
        for address in (*targets, "203.0.113.255", "255.255.255.255", "224.0.0.1", lab.ELSEWHERE):
            with suppress(OSError):  # told at once
                client.sendto(b"x", (address, 7000))
        assert await lab.receive(allowed) == b"x"
    for target in targets.values():
        with target, pytest.raises(BlockingIOError):
            target.recv(1)


async def test_machines_cannot_reach_each_other(networks: Networks) -> None:
    _, a = await machine(networks, "dm-a")
    b_network, b = await machine(networks, "dm-b")
    with lab.listening(b, "0.0.0.0", 80), refused():
        await lab.connect(a, b_network.address, 80)


@pytest.mark.parametrize("router", [False, True])
async def test_nobody_outside_reaches_a_machine_though_answers_do(
    *, router: bool, internet: lab.Namespace, tmp_path: Path
) -> None:
    if router:
        uplink.set_forwarding(on=True)
    async with opened(tmp_path) as networks:
        network, inside = await machine(networks)
        with lab.bound(internet, lab.ELSEWHERE, 7000) as outside, lab.bound(inside, "0.0.0.0", 5000) as served:
            outside.sendto(b"uninvited", (network.address, 5000))
            served.sendto(b"question", (lab.ELSEWHERE, 7000))
            question, source = await asyncio.get_running_loop().sock_recvfrom(outside, 100)
            assert question == b"question"
            outside.sendto(b"answer", source)
            assert await lab.receive(served) == b"answer"


def test_a_link_sends_once_its_peer_is_up_too(internet: lab.Namespace) -> None:
    lab.ip(f"link add pair0 type veth peer name pair0 netns {internet.path}")
    with RouteSocket() as host:
        index = host.index("pair0")
        assert not host.sends(index)
        host.set_up(index)
        assert not host.sends(index)
        internet.run("ip link set pair0 up")
        wait_until(lambda: host.sends(index), 10, "it sends")


async def test_outsiders_neither_reach_the_gateway_nor_pass_for_a_machine(
    internet: lab.Namespace, networks: Networks
) -> None:
    internet.run(f"ip route replace 10.213.0.1 via {lab.HOST_PUBLIC}")
    with (
        lab.bound(lab.THE_HOST, "0.0.0.0", 5555) as host,
        internet.socket(socket.SOCK_RAW, protocol=socket.IPPROTO_RAW) as raw,
    ):
        for source, target in (
            (lab.ELSEWHERE, str(networks.gateway)),
            ("10.213.0.99", lab.HOST_PUBLIC),
            (lab.ELSEWHERE, lab.HOST_PUBLIC),
        ):
            raw.sendto(lab.udp_packet(source, target, 5555, f"{source} to {target}".encode()), (target, 0))
        assert await lab.receive(host) == f"{lab.ELSEWHERE} to {lab.HOST_PUBLIC}".encode()


async def test_the_host_itself_does_not_reach_a_machine(networks: Networks) -> None:
    network, _ = await machine(networks)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host, pytest.raises(PermissionError):
        host.sendto(b"x", (network.address, 5000))


@pytest.mark.parametrize("source", ["198.51.100.200", "10.213.255.1", lab.HOST_PUBLIC, "127.0.0.1"])
async def test_packets_with_another_source_are_dropped(
    source: str, internet: lab.Namespace, networks: Networks
) -> None:
    network, inside = await machine(networks)
    with (
        lab.bound(internet, lab.ELSEWHERE, 7000) as outside,
        inside.socket(socket.SOCK_RAW, protocol=socket.IPPROTO_RAW) as raw,
    ):
        raw.sendto(lab.udp_packet(source, lab.ELSEWHERE, 7000, b"forged"), (lab.ELSEWHERE, 0))
        raw.sendto(lab.udp_packet(network.address, lab.ELSEWHERE, 7000, b"honest"), (lab.ELSEWHERE, 0))
        assert await lab.receive(outside) == b"honest"


async def test_a_machine_has_no_ipv6(networks: Networks) -> None:
    _, inside = await machine(networks)
    with inside.socket(family=socket.AF_INET6) as client, refused(errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        client.connect(("2001:db8::1", 80, 0, 0))
    assert "inet6" not in inside.run("ip address")


async def test_one_machine_cannot_fill_the_connection_table(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path, flows=20) as networks:
        _, inside = await machine(networks)
        with lab.listening(internet, lab.ELSEWHERE, 80):
            open_connections = [await lab.connect(inside, lab.ELSEWHERE, 80) for _ in range(20)]
            with refused():
                await lab.connect(inside, lab.ELSEWHERE, 80)
            _, other = await machine(networks, "dm-b")
            (await lab.connect(other, lab.ELSEWHERE, 80)).close()
    for client in open_connections:
        client.close()


async def test_an_address_is_given_back_without_its_connections(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path) as networks:
        network, inside = await machine(networks)
        with lab.listening(internet, lab.ELSEWHERE, 80), await lab.connect(inside, lab.ELSEWHERE, 80):
            await networks.release("dm-a")
    assert forget_flows(IPv4Address(network.address)) == 0


async def test_forgetting_touches_the_connections_of_one_source_only(
    internet: lab.Namespace, networks: Networks
) -> None:
    a_network, a = await machine(networks, "dm-a")
    b_network, b = await machine(networks, "dm-b")
    with (
        lab.listening(internet, lab.ELSEWHERE, 80),
        await lab.connect(a, lab.ELSEWHERE, 80),
        await lab.connect(a, lab.ELSEWHERE, 80),
        await lab.connect(b, lab.ELSEWHERE, 80),
    ):
        assert forget_flows(IPv4Address(a_network.address)) == 2
        assert forget_flows(IPv4Address(a_network.address)) == 0
        assert forget_flows(IPv4Address(b_network.address)) == 1


async def test_acquiring_again_gives_the_same_network(networks: Networks) -> None:
    assert await networks.acquire("dm-a") == await networks.acquire("dm-a")
    assert await networks.acquire("dm-b") != await networks.acquire("dm-a")


async def test_releasing_what_was_never_acquired_is_no_error(networks: Networks) -> None:
    await networks.release("dm-unknown")


async def test_low_ports_and_pings_need_no_privilege(networks: Networks) -> None:
    _, inside = await machine(networks)
    assert inside.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "0"
    assert inside.run("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "4294967294"]


async def test_a_machine_has_the_mtu_of_the_way_out(networks: Networks) -> None:
    _, inside = await machine(networks)
    assert "mtu 1400" in inside.run("ip link show eth0")


async def test_connections_outlive_a_restart_of_the_node(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        _, live = await machine(first, "dm-live")
        await first.acquire("dm-dead")
        with lab.listening(internet, lab.ELSEWHERE, 80) as server:
            client = await lab.connect(live, lab.ELSEWHERE, 80)
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
    async with opened(tmp_path) as second:
        await second.release_others({"dm-live"})
        with client, connection:
            await asyncio.get_running_loop().sock_sendall(client, b"still here")
            assert await lab.receive(connection) == b"still here"
        await second.release("dm-live")
    assert machine_interfaces() == []
    assert owners(tmp_path) == []


async def test_a_machine_found_dead_after_a_restart_gets_a_new_network(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        before, _ = await machine(first)
    async with opened(tmp_path) as second:
        after, inside = await machine(second)
        with lab.listening(internet, lab.ELSEWHERE, 80):
            (await lab.connect(inside, lab.ELSEWHERE, 80)).close()
    assert after.address != before.address


async def test_a_node_that_was_killed_leaves_nothing_that_its_successor_keeps(
    internet: lab.Namespace, tmp_path: Path
) -> None:
    lab.ip("link add dormice-77 type veth peer name left-over")
    record_owner(tmp_path, "dm-gone", "dormice-78")
    async with opened(tmp_path):
        assert machine_interfaces() == []
        assert owners(tmp_path) == []


async def test_the_gateway_that_a_node_of_another_name_left_becomes_its_own(
    internet: lab.Namespace, tmp_path: Path
) -> None:
    lab.ip("address add 10.213.0.1/32 dev lo label lo:other")
    async with opened(tmp_path) as networks:
        assert networks.gateway == IPv4Address("10.213.0.1")
        assert uplink.address_labelled("lo:dormice") == networks.gateway
    assert uplink.address_labelled("lo:other") is None


async def test_two_nodes_cannot_hold_one_name(networks: Networks, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="another process of this host"):
        await Networks(tmp_path / "other").open()


async def test_a_range_that_the_host_already_routes_is_refused(internet: lab.Namespace, tmp_path: Path) -> None:
    lab.ip("route add 10.213.4.0/24 dev up0")
    with pytest.raises(RuntimeFailure, match=r"10\.213\.4\.0/24"):
        await Networks(tmp_path).open()


async def test_the_pool_fills_itself_and_nothing_leaks(internet: lab.Namespace, tmp_path: Path) -> None:
    before = descriptors()
    networks = Networks(tmp_path, pool_size=3)
    await networks.open()
    async with asyncio.TaskGroup() as group:
        upkeep = group.create_task(networks.run())
        for round_ in range(4):
            for index in range(5):
                await networks.acquire(f"dm-{round_}-{index}")
            for index in range(5):
                await networks.release(f"dm-{round_}-{index}")
        upkeep.cancel()
    await networks.close()
    assert machine_interfaces() == []
    assert owners(tmp_path) == []
    assert descriptors() == before


async def test_a_host_that_was_no_router_forwards_for_nobody_else(internet: lab.Namespace, tmp_path: Path) -> None:
    assert not uplink.forwarding()
    with lab.new_namespace() as beyond:
        lab.ip(f"link add lan0 type veth peer name lan0 netns {beyond.path}")
        lab.ip("address add 203.0.114.1/24 dev lan0")
        lab.ip("link set lan0 up")
        for command in ("address add 203.0.114.2/24 dev lan0", "link set lan0 up", "route add default via 203.0.114.1"):
            beyond.run(f"ip {command}")
        internet.run(f"ip route add 203.0.114.0/24 via {lab.HOST_PUBLIC}")
        async with opened(tmp_path) as networks:
            assert uplink.forwarding()
            _, inside = await machine(networks)
            with (
                lab.bound(beyond, "0.0.0.0", 7000) as target,
                lab.bound(internet, lab.INTERNET) as outside,
                lab.bound(inside, "0.0.0.0") as allowed,
            ):
                outside.sendto(b"routed", ("203.0.114.2", 7000))
                allowed.sendto(b"from a machine", ("203.0.114.2", 7000))
                assert await lab.receive(target) == b"from a machine"


async def test_rules_that_somebody_flushes_are_loaded_again(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path, pool_size=1) as networks, asyncio.TaskGroup() as group:
        upkeep = group.create_task(networks.run())
        await wait_until_async(on_host(lambda: len(networks._ready)), 5, "the pool is filled")
        before = lab.state_of_the_host()
        lab.run_in_shell("nft flush ruleset")
        await wait_until_async(on_host(lambda: lab.state_of_the_host() == before), 5, "the rules are back")
        upkeep.cancel()


async def test_the_last_machine_gone_the_host_is_as_it_was(internet: lab.Namespace, tmp_path: Path) -> None:
    before = lab.state_of_the_host()
    async with opened(tmp_path) as networks:
        await networks.acquire("dm-a")
        await networks.release("dm-a")
    assert lab.state_of_the_host() == before


async def test_rules_and_forwarding_stay_while_a_machine_lives(internet: lab.Namespace, tmp_path: Path) -> None:
    async with opened(tmp_path) as networks:
        _, inside = await machine(networks)
        process = inside.socket()
        during = lab.state_of_the_host()
    with process:
        assert lab.state_of_the_host() == during


async def test_the_last_of_several_nodes_stops_forwarding(internet: lab.Namespace, tmp_path: Path) -> None:
    before = lab.state_of_the_host()
    other = Networks(tmp_path / "other", name="other", network=IPv4Network("10.220.0.0/16"), pool_size=0)
    async with opened(tmp_path / "first"):
        await other.open()
    assert uplink.forwarding()
    await other.close()
    assert lab.state_of_the_host() == before


def test_a_network_name_must_fit_into_interface_names_and_rules() -> None:
    for name in ("", "much-too-long", 'a"; drop', "UPPER"):
        with pytest.raises(ValueError, match="name"):
            Networks(name=name)
    with pytest.raises(ValueError, match="addresses"):
        Networks(network=IPv4Network("10.213.0.0/30"))


def machine_interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith("dormice-")]


def refused(*codes: int) -> AbstractContextManager[pytest.ExceptionInfo[OSError]]:
    return pytest.raises(OSError, match="|".join(rf"\[Errno {code}\]" for code in codes or (errno.EHOSTUNREACH,)))


def on_host(look: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """Look without stopping the event loop."""
    return lambda: asyncio.to_thread(look)


def owners(run_dir: Path) -> list[str]:
    return [path.name for path in (run_dir / "networks").iterdir()]


def record_owner(run_dir: Path, machine_id: str, interface: str) -> None:
    (run_dir / "networks").mkdir()
    (run_dir / "networks" / machine_id).symlink_to(interface)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
