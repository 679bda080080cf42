"""With a network, a machine is a Debian that can install what it lacks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.node.machine_lab import lab, machine, needs_machines
from tests.shares import share

from dormice.node.dns import Forwarder
from dormice.node.network import Networks
from dormice.node.runtime import MachineSpec

pytestmark = needs_machines

MIRROR = "deb.debian.org"
SPEC = MachineSpec(vcpu=2, memory_mib=1024, storage_gib=4)


@pytest.fixture(name="networks")
async def _networks(tmp_path: Path) -> AsyncIterator[Networks]:
    try:
        await asyncio.get_running_loop().getaddrinfo(MIRROR, 80, type=socket.SOCK_STREAM)
    except OSError:
        pytest.skip("no Debian mirror in reach")
    with share() as ours:
        networks = Networks(tmp_path, network=IPv4Network(ours.network), name=ours.instance("l"), pool_size=0)
        await networks.open()
        async with asyncio.TaskGroup() as group:
            forwarder = group.create_task(Forwarder(networks.gateway, networks.network).run())
            yield networks
            forwarder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await forwarder
        await networks.close()


@pytest.mark.timeout(300)
async def test_packages_are_installed_and_their_daemons_serve(networks: Networks, tmp_path: Path) -> None:
    install = (
        "apt-get -q update && apt-get -q install -y --no-install-recommends openssh-server sudo strace iputils-ping"
    )
    serve = "mkdir -p /run/sshd && /usr/sbin/sshd && ssh-keyscan -t ed25519 127.0.0.1"
    async with lab(tmp_path, networks) as made, made.opened() as runtime, machine(runtime, SPEC) as (_, inside):
        installed = await inside.run(install, timeout_ms=240_000)
        assert installed.code == 0, installed.said
        assert "ssh-ed25519" in (await inside.run(serve)).stdout
        assert (await inside.run("sudo -u nobody id -un")).stdout == "nobody\n"
        assert (await inside.run("strace -o /dev/null true")).code == 0
        assert (await inside.run("ping -c1 -W5 127.0.0.1")).code == 0
