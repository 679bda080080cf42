"""Networks of machines: one namespace each, joined to the host by a veth pair and bound by the rules in `nftables.py`.

Slot *n* has the address `network + n` and the host interface `<name>-n`; the gateway address is shared by all and sits on
the loopback interface. Namespaces are held by a descriptor of this process and nothing else: an idle one vanishes with the
node, a used one lives as long as its machine. Which machine owns which interface is one symlink in the run directory,
`networks/<machine id> -> <name>-n`, so it survives a restart of the node.

The machine's user namespace does not own its network namespace: root inside can neither reconfigure it nor open raw
sockets. Every user inside may listen on any port and send pings.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Never

from dormice.domain.egress import UNREACHABLE, Egress
from dormice.node import nftables, quotas, uplink
from dormice.node.egress import Gates
from dormice.node.netlink import LOOPBACK_INDEX, RouteSocket, TableEvents, forget_flows
from dormice.node.ports import QUIET_SECONDS, Network
from dormice.node.runtime import RuntimeFailure
from dormice.node.syscalls import unshare

DEFAULT_NETWORK = IPv4Network("10.213.0.0/16")

_log = logging.getLogger(__name__)
_CLONE_NEWNET = 0x4000_0000
_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
_HOLDER = "dormice-network-"
_INSIDE = "eth0"
_HOST_MAC = bytes.fromhex("02646d000000")
_FIRST_SLOT = 2  # 0 is the network's own address, 1 the gateway
_PAUSE_AFTER_FAILURE = 1.0  # seconds
_LINK_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.001
_GREEDY_MACHINES = 512
_SETTINGS_INSIDE = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 4294967294",
}


@dataclass(frozen=True, slots=True)
class _Made:
    """A network of this process: `fd` keeps its namespace alive."""

    slot: int
    fd: int


class Networks:
    """The network provider of the node.

    `name` (at most 8 characters) names everything it makes on the host, so that two nodes with other names and other
    ranges can share one. `pool_size` networks are kept ready while `run` runs. `enable_forwarding` lets it switch
    `ip_forward` on; the host then still forwards for nobody but machines and what it forwarded already.
    """

    def __init__(
        self,
        run_dir: Path = Path("/run/dormice"),
        *,
        network: IPv4Network = DEFAULT_NETWORK,
        name: str = "dormice",
        denied: Sequence[IPv4Network] = UNREACHABLE,
        pool_size: int = 4,
        flows_per_machine: int = 2048,
        enable_forwarding: bool = True,
    ) -> None:
        if not _NAME.fullmatch(name) or network.num_addresses < 8:
            raise ValueError("a network needs a name of 1 to 8 of a-z and 0-9, and at least 8 addresses")
        self.gateway = network.network_address + 1
        self.network = network
        self._name = name
        self._prefix = f"{name}-"
        self._run_dir = run_dir
        self._owners = run_dir / "networks"
        self.gates = Gates(name, run_dir / "egress")
        self._denied = denied
        self._flows = flows_per_machine
        self._pool_size = pool_size
        self._enable_forwarding = enable_forwarding
        self._mtu = 1500
        self._guarding = False
        """Whether the host forwards because of nodes: then it forwards for nobody else."""
        self._rules_in_doubt = True
        self._holder: socket.socket | None = None
        self._owned: dict[str, _Made | int] = {}
        """By machine: its network, or only its slot when an earlier node process made it."""
        self._ready: deque[_Made] = deque()
        self._released: deque[_Made | int] = deque()
        self._taken: set[int] = set()
        # Not always the first free one: an address should rest before another machine gets it.
        self._last_slot = random.randrange(_FIRST_SLOT, network.num_addresses - 1)  # noqa: S311
        self._work = asyncio.Event()
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="network")

    async def open(self) -> None:
        """Prepare the host and recognise the networks of earlier node processes; networks in use go on working.

        Raises RuntimeFailure `NETWORK_FAILED` when the host cannot do it, the range is in use, or another node holds
        the name.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self._give_name_up)
            await self._in_thread(self._prepare_host)
            await self._in_thread(self._recognise)
            undo.pop_all()

    async def run(self) -> Never:
        """Keep the pool full and the rules loaded, and delete what was released."""
        loop = asyncio.get_running_loop()
        events = TableEvents()
        loop.add_reader(events.fileno(), self._on_table_event, events)
        try:
            while True:
                self._work.clear()
                try:
                    while await self._turn():
                        pass
                except RuntimeFailure as error:
                    _log.warning("network upkeep failed, trying again: %s", error)
                    await asyncio.sleep(_PAUSE_AFTER_FAILURE)
                    continue
                await self._work.wait()
        finally:
            loop.remove_reader(events.fileno())
            events.close()

    def _on_table_event(self, events: TableEvents) -> None:
        if events.deleted():
            self._rules_in_doubt = True
            self._work.set()

    async def _turn(self) -> bool:
        """One piece of upkeep, if there is any. Making goes before deleting: somebody may be waiting for it."""
        if self._rules_in_doubt:
            await self._in_thread(self._restore_rules)
        elif len(self._ready) < self._pool_size:
            await self._in_thread(self._make, self._next_slot())
        elif self._released:
            await self._in_thread(self._delete_released)
        else:
            return False
        return True

    async def acquire(self, machine_id: str) -> Network:
        """The machine's network, the same one again if it has one. Raises RuntimeFailure `NETWORK_FAILED`."""
        held = self._owned.get(machine_id)
        if isinstance(held, int):
            # Its namespace went with the machine's last process; only the name is left.
            await self.release(machine_id)
        if isinstance(held, _Made):
            return self._describe(held)
        while not self._ready:
            await self._in_thread(self._make, self._next_slot())
        if isinstance(held := self._owned.get(machine_id), _Made):
            return self._describe(held)
        made = self._ready.popleft()
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._work.set)
        self._owned[machine_id] = made
        try:
            (self._owners / machine_id).symlink_to(self._interface(made.slot))
        except OSError as error:
            await self.release(machine_id)
            raise RuntimeFailure("NETWORK_FAILED", f"cannot record a network: {error}") from error
        return self._describe(made)

    async def confine(self, machine_id: str, egress: Egress) -> None:
        """Give a machine that has a network its policy, at once. Raises RuntimeFailure `NETWORK_FAILED`."""
        held = self._owned.get(machine_id)
        if held is not None:
            address = self._address(held if isinstance(held, int) else held.slot)
            if not self.gates.confined(machine_id, address, egress):
                await self._in_thread(self.gates.confine, machine_id, address, egress)

    async def release(self, machine_id: str) -> None:
        """Give the machine's network back; `run` deletes it. A machine that has none is no error."""
        held = self._owned.pop(machine_id, None)
        if held is None:
            return
        (self._owners / machine_id).unlink(missing_ok=True)
        self._released.append(held)
        self._work.set()

    async def release_others(self, live: Collection[str]) -> None:
        """Release the networks of every machine that is not in `live`."""
        for machine_id in [owner for owner in self._owned if owner not in live]:
            await self.release(machine_id)

    async def close(self) -> None:
        """Delete what no machine uses; when no machine is left, the rules and the gateway too. Raises OSError."""
        await asyncio.to_thread(self._threads.shutdown)  # what a cancelled caller began goes on to its end
        self._released.extend(self._ready)
        self._ready.clear()
        await asyncio.to_thread(self._delete_all_released)
        if not self._owned:
            await asyncio.to_thread(self._leave_host)
        for held in self._owned.values():
            if isinstance(held, _Made):
                os.close(held.fd)
        self._owned.clear()
        self._give_name_up()

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise RuntimeFailure("NETWORK_FAILED", str(error), retryable=True) from error

    def _describe(self, made: _Made) -> Network:
        path = Path(f"/proc/{os.getpid()}/fd/{made.fd}")
        return Network(path, str(self._address(made.slot)), str(self.gateway))

    def _interface(self, slot: int) -> str:
        return f"{self._prefix}{slot}"

    def _address(self, slot: int) -> IPv4Address:
        return self.network.network_address + slot

    def _next_slot(self) -> int:
        slots = self.network.num_addresses - 1 - _FIRST_SLOT  # the last address is the broadcast one
        for step in range(1, slots + 1):
            slot = _FIRST_SLOT + (self._last_slot - _FIRST_SLOT + step) % slots
            if slot not in self._taken:
                self._taken.add(slot)
                self._last_slot = slot
                return slot
        raise RuntimeFailure("NETWORK_FAILED", f"all {slots} addresses of {self.network} are in use", retryable=True)

    # What follows runs in worker threads.

    def _prepare_host(self) -> None:
        self._owners.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._hold_name()
        if taken := uplink.routes_within(self.network, besides=self._name):
            clash = f"the host has a route to {taken[0]}, inside the machines' {self.network}"
            if not any(self._owners.iterdir()):
                raise OSError(clash)
            _log.warning("%s; machines are alive, so the node goes on", clash)
        self._mtu = uplink.mtu()
        self.gates.recognise({machine_id: self._address(slot) for machine_id, slot in self._left().items()})
        self._load_rules()
        # The host's own connections are in the same table: those of many greedy machines must not fill it.
        quotas.raise_to({"net/netfilter/nf_conntrack_max": _GREEDY_MACHINES * self._flows})
        nftables.pass_docker(self._prefix)
        if self._enable_forwarding:
            self._guarding = not uplink.forwarding() or nftables.loaded(nftables.GUARD)
            if self._guarding:
                nftables.guard(uplink.physical_interfaces())
            uplink.set_forwarding(on=True)
        forget_flows(self.gateway)  # fails now if the kernel cannot list connections, not at the first release
        self._add_gateway()

    def _load_rules(self) -> None:
        policy = nftables.Policy(
            table=self._name,
            interfaces=self._prefix,
            network=self.network,
            gateway=self.gateway,
            denied=self._denied,
            flows=self._flows,
        )
        self.gates.load(policy)

    def _restore_rules(self) -> None:
        """Somebody deleted tables, as `nft flush ruleset` does: without ours, machines would have no walls."""
        self._rules_in_doubt = False
        if not nftables.loaded(self._name):
            _log.warning("the packet rules were deleted by somebody else; loading them again")
            self._load_rules()
        if self._guarding and not nftables.loaded(nftables.GUARD):
            nftables.guard(uplink.physical_interfaces())

    def _hold_name(self) -> None:
        # An abstract socket is exactly as wide as what it guards, this network namespace, and ends with the process.
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0{_HOLDER}{self._name}")
        except OSError:
            holder.close()
            raise OSError(f"another process of this host holds the network name {self._name!r}") from None
        self._holder = holder

    def _give_name_up(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _add_gateway(self) -> None:
        label = f"lo:{self._name}"
        with RouteSocket() as host:
            if uplink.address_labelled(label) != self.gateway:
                # An address keeps the label it was made with. One that a node of another name left would never be ours.
                host.delete_address(LOOPBACK_INDEX, self.gateway)
            # On the loopback interface: every kernel has it, and errors the host sends machines then come from here.
            host.add_address(LOOPBACK_INDEX, self.gateway, label=label)
            host.add_unreachable(self.network)

    def _leave_host(self) -> None:
        with RouteSocket() as host:
            host.delete_address(LOOPBACK_INDEX, self.gateway)
            host.delete_unreachable(self.network)
        if self._guarding and holders() == 1:
            uplink.set_forwarding(on=False)
            nftables.unload(nftables.GUARD)
        nftables.forget_docker(self._prefix)
        nftables.unload(self._name)

    def _left(self) -> dict[str, int]:
        """The machines that an earlier node has left with a network, and their slots."""
        present = set(_interfaces())
        owned = {owner.name: str(owner.readlink()) for owner in self._owners.iterdir()}
        return {
            machine_id: int(interface.removeprefix(self._prefix))
            for machine_id, interface in owned.items()
            if interface in present and interface.startswith(self._prefix)
        }

    def _recognise(self) -> None:
        left = self._left()
        self._owned.update(left)
        self._taken.update(left.values())
        for owner in self._owners.iterdir():
            if owner.name not in left and str(owner.readlink()).startswith(self._prefix):
                owner.unlink()
        kept = {self._interface(slot) for slot in left.values()}
        with RouteSocket() as host:
            for interface in _interfaces():
                if interface.startswith(self._prefix) and interface not in kept:
                    host.delete_link(interface)

    def _make(self, slot: int) -> None:
        """Put a new network into the pool; by itself, so that a cancelled caller loses none."""
        try:
            with ThreadPoolExecutor(max_workers=1) as throw_away:  # a thread cannot be trusted to come back
                namespace, inside = throw_away.submit(_new_namespace).result()
        except OSError:
            self._taken.discard(slot)
            raise
        try:
            self._join(slot, namespace, inside)
        except OSError:
            os.close(namespace)
            self._delete(slot)
            raise
        finally:
            inside.close()
        self._ready.append(_Made(slot, namespace))

    def _join(self, slot: int, namespace: int, inside: RouteSocket) -> None:
        interface, address = self._interface(slot), self._address(slot)
        mac = _HOST_MAC[:2] + slot.to_bytes(4, "big")
        with RouteSocket() as host:
            host.add_veth(interface, _HOST_MAC, mtu=self._mtu, peer=_INSIDE, peer_mac=mac, netns=namespace)
            uplink.disable_ipv6(interface)
            index = host.index(interface)
            host.set_up(index)
            host.add_neighbour(index, address, mac)
            host.add_route(IPv4Network(address), index=index)
            self._set_up_inside(address, inside)
            _wait_for_link(host, index, interface)

    def _set_up_inside(self, address: IPv4Address, inside: RouteSocket) -> None:
        index = inside.index(_INSIDE)
        inside.set_up(LOOPBACK_INDEX)
        inside.set_up(index)
        inside.add_address(index, address, label=_INSIDE)
        inside.add_neighbour(index, self.gateway, _HOST_MAC)
        inside.add_route(IPv4Network(self.gateway), index=index)
        inside.add_route(IPv4Network("0.0.0.0/0"), index=index, gateway=self.gateway)

    def _delete_released(self) -> None:
        """Taken out of the queue here, in the thread: a cancelled caller must not make it happen twice."""
        held = self._released.popleft()
        try:
            self._delete(held if isinstance(held, int) else held.slot)
        except OSError:
            self._released.append(held)
            raise
        if isinstance(held, _Made):
            os.close(held.fd)

    def _delete_all_released(self) -> None:
        while self._released:
            self._delete_released()

    def _delete(self, slot: int) -> None:
        with RouteSocket() as host:
            host.delete_link(self._interface(slot))
        self.gates.release(self._address(slot))
        forget_flows(self._address(slot))  # the next machine with this address must not inherit them
        self._taken.discard(slot)


def _wait_for_link(host: RouteSocket, index: int, interface: str) -> None:
    """Wait until the host sends what is for a machine: an answer that comes sooner would be lost. Raises OSError."""
    until = time.monotonic() + _LINK_SECONDS
    while not host.sends(index):
        if time.monotonic() > until:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN), interface)
        time.sleep(_LOOK_AGAIN_SECONDS)


def _new_namespace() -> tuple[int, RouteSocket]:
    """Move the calling thread into a new network namespace; a descriptor of it, and a socket that configures it."""
    unshare(_CLONE_NEWNET)
    for name, value in _SETTINGS_INSIDE.items():
        setting = Path("/proc/sys/net") / name
        if setting.exists():
            setting.write_text(value)
    inside = RouteSocket()
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), inside


def holders() -> int:
    """How many nodes use networks on this host, this one included."""
    return _sockets().count(f"@{_HOLDER}")


def holds_name(name: str) -> bool:
    """Whether a node that runs holds the name."""
    return f"@{_HOLDER}{name}" in _sockets().split()


def _sockets() -> str:
    return Path("/proc/thread-self/net/unix").read_text(errors="replace")


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
