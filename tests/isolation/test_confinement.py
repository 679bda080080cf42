"""What root inside a machine reaches, whatever its egress policy is, and what it does about it. The outside is a namespace of this host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node import network_lab as net
from tests.node.machine_lab import SMALL, Shell, lab, machine, needs_machines, new_machine_id
from tests.node.test_dns import upstream_at
from tests.node.test_egress import answering

from dormice.domain.egress import NOTHING, Egress, allow_list
from dormice.node.dns import Forwarder, Resolvers
from dormice.node.machines import ContainerRuntime
from dormice.node.network import Networks
from dormice.node.runtime import Running

pytestmark = needs_machines
GOOD = allow_list(["good.example", "rebound.example", "host.example"])
_FETCH = "timeout 5 bash -c 'exec 3<>/dev/tcp/{}/80 && head -c 5 <&3' 2>&1"


@pytest.fixture(name="internet")
def _internet() -> Iterator[net.Namespace]:
    with net.host_with_internet() as internet:
        yield internet


async def _greet(server: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(server)
        with connection:
            await loop.sock_sendall(connection, b"hello")


@asynccontextmanager
async def a_node(internet: net.Namespace, tmp_path: Path) -> AsyncIterator[ContainerRuntime]:
    """A node whose machines have the internet of the test, a nameserver and a greeter in it, and a greeter on the host."""
    networks = Networks(tmp_path / "networks", pool_size=0)
    await networks.open()
    (tmp_path / "resolv.conf").write_text(f"nameserver {net.INTERNET}\n")
    resolvers = Resolvers(tmp_path / "resolv.conf")
    forwarder = Forwarder(networks.gateway, networks.network, resolvers, networks.gates)
    with (
        net.listening(internet, "0.0.0.0", 80) as outside,
        net.listening(net.THE_HOST, "0.0.0.0", 80) as host,
    ):
        async with (
            lab(tmp_path, networks) as made,
            made.opened() as runtime,
            asyncio.TaskGroup() as group,
            upstream_at(net.bound(internet, net.INTERNET, 53), answering),
        ):
            services = [group.create_task(work) for work in (forwarder.run(), _greet(outside), _greet(host))]
            await forwarder.ready.wait()
            yield runtime
            for service in services:
                service.cancel()
    await networks.close()


async def fetched(inside: Shell, where: str) -> str:
    return (await inside.run(_FETCH.format(where))).stdout.strip()


@asynccontextmanager
async def confined(runtime: ContainerRuntime, egress: Egress) -> AsyncIterator[tuple[Running, Shell]]:
    async with machine(runtime, replace(SMALL, egress=egress)) as started:
        yield started


async def test_a_machine_reaches_what_its_list_names_and_nothing_else(internet: net.Namespace, tmp_path: Path) -> None:
    async with a_node(internet, tmp_path) as runtime, confined(runtime, GOOD) as (_, inside):
        assert await fetched(inside, net.ELSEWHERE) != "hello"
        assert await fetched(inside, "good.example") == "hello"
        assert await fetched(inside, net.ELSEWHERE) == "hello"
        for other in (net.INTERNET, "other.example", "alias.good.example"):
            assert await fetched(inside, other) != "hello"


async def test_a_name_that_points_inside_opens_nothing(internet: net.Namespace, tmp_path: Path) -> None:
    async with a_node(internet, tmp_path) as runtime, confined(runtime, GOOD) as (_, inside):
        for name in ("rebound.example", "host.example"):
            resolved = await inside.run(f"getent ahostsv4 {name}")
            assert resolved.code == 0
            assert "No route to host" in await fetched(inside, name)
        for denied in ("192.168.5.5", net.HOST_PUBLIC, "10.213.0.1", "169.254.169.254"):
            assert await fetched(inside, denied) != "hello"


async def test_nothing_leaves_a_closed_machine_not_even_a_question(internet: net.Namespace, tmp_path: Path) -> None:
    async with a_node(internet, tmp_path) as runtime, confined(runtime, NOTHING) as (_, inside):
        assert await fetched(inside, net.ELSEWHERE) != "hello"
        assert (await inside.run("getent ahostsv4 good.example")).code != 0
        assert (await inside.run(f"timeout 3 ping -c 1 -W 1 {net.ELSEWHERE}")).code != 0


async def test_another_nameserver_or_another_address_of_its_own_does_not_help(
    internet: net.Namespace, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path) as runtime, confined(runtime, GOOD) as (_, inside):
        script = f"echo nameserver {net.INTERNET} > /etc/resolv.conf; getent ahostsv4 good.example"
        assert (await inside.run(script)).code != 0
        assert (await inside.run("ip address add 10.213.7.7/32 dev eth0")).code != 0


async def test_a_new_policy_holds_at_once_on_a_live_machine_and_after_a_wake(
    internet: net.Namespace, tmp_path: Path
) -> None:
    async with a_node(internet, tmp_path) as runtime:
        machine_id = new_machine_id()
        async with machine(runtime, SMALL, machine_id) as (_, inside):
            assert await fetched(inside, net.INTERNET) == "hello"
            await runtime.resize(machine_id, replace(SMALL, egress=NOTHING))
            assert await fetched(inside, net.INTERNET) != "hello"
            await runtime.resize(machine_id, replace(SMALL, egress=GOOD))
            assert await fetched(inside, "good.example") == "hello"
            assert await fetched(inside, net.INTERNET) != "hello"
        async with machine(runtime, replace(SMALL, egress=GOOD), machine_id) as (_, inside):
            assert await fetched(inside, net.ELSEWHERE) != "hello"
            assert await fetched(inside, "good.example") == "hello"
        async with machine(runtime, SMALL, machine_id) as (_, inside):
            assert await fetched(inside, net.INTERNET) == "hello"
