"""What each machine of a node may reach, as the packet rules and the nameserver both have to know it.

A policy is one file in the run directory, `egress/<machine id>`, written before the rules change and read when they are loaded:
a node that is started again, or somebody's `nft flush ruleset`, opens no machine. A machine without a file reaches all that is public.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from dormice.domain.egress import NOTHING, PUBLIC, UNREACHABLE, Egress
from dormice.node import nftables
from dormice.node.netlink import forget_flows

_log = logging.getLogger(__name__)
LEAST_SECONDS = 300
"""An address stays reachable so long, whatever its TTL: not every client asks again before it connects again."""
MARGIN_SECONDS = 60
"""Beyond the TTL, for a client that uses an address in its last second."""
MOST_ADDRESSES = 4_096
"""Let in by names, for one machine at one time."""
MOST_OF_ONE_ANSWER = 1_024
"""What fits into one message to the kernel, which is no more than 64 KiB."""


@dataclass(eq=False, slots=True)
class _Gate:
    """A machine's policy, and the addresses that are let in by a name: which one, and until when by the steady clock."""

    machine_id: str
    egress: Egress
    named: dict[IPv4Address, tuple[str, float]] = field(default_factory=dict)
    in_doubt: bool = False
    """While it takes effect, and after that has failed: the packet rules and connections may be those of an earlier policy."""


class Gates:
    """The policies of machines, by their addresses. Blocking, safe to use from several threads; `policy` only looks."""

    def __init__(self, table: str, directory: Path) -> None:
        self._table = table
        self._directory = directory
        self._policy: nftables.Policy | None = None
        self._gates: dict[IPv4Address, _Gate] = {}
        self._lock = threading.Lock()

    def recognise(self, machines: Mapping[str, IPv4Address]) -> None:
        """Take over the policies that an earlier node has left for the machines that have a network. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock:
            for file in self._directory.iterdir():
                if (address := machines.get(file.name)) is None:
                    file.unlink()
                else:
                    self._gates[address] = _Gate(file.name, _read(file))
            for (machine, address), seconds in nftables.named(self._table).items():
                if machine in self._gates:  # by which name is not known any more: a new policy wants it asked for again
                    self._gates[machine].named[address] = ("", time.monotonic() + seconds)

    def load(self, policy: nftables.Policy) -> None:
        """Replace the packet rules, with every machine in its place. Raises OSError."""
        with self._lock:
            self._policy = policy
            self._load(policy)

    def _load(self, policy: nftables.Policy) -> None:
        now = time.monotonic()
        confined = {machine: gate.egress for machine, gate in self._gates.items()}
        named = {
            (machine, address): int(until - now)
            for machine, gate in self._gates.items()
            for address, (_, until) in gate.named.items()
            if until - now >= 1
        }
        nftables.load(policy, confined, named)

    def policy(self, machine: IPv4Address) -> Egress:
        """What the machine with this address may reach."""
        gate = self._gates.get(machine)
        return PUBLIC if gate is None else gate.egress

    def confined(self, machine_id: str, machine: IPv4Address, egress: Egress) -> bool:
        """Whether a machine has this policy already, and nothing of an earlier one."""
        gate = self._gates.get(machine) or _Gate(machine_id, PUBLIC)
        return (gate.machine_id, gate.egress, gate.in_doubt) == (machine_id, egress, False)

    def confine(self, machine_id: str, machine: IPv4Address, egress: Egress) -> None:
        """Give a machine its policy. Connections that it no longer allows are cut. Raises OSError: then it is to be asked for again."""
        with self._lock:
            if self.confined(machine_id, machine, egress):
                return
            _write(self._directory / machine_id, egress)
            before = self._gates.get(machine) or _Gate(machine_id, PUBLIC)
            named = {a: why for a, why in before.named.items() if _allowed(egress, why[0])}
            after = _Gate(machine_id, egress, named)
            self._change(machine, before, after)
            networks = egress.networks
            if egress.allow is not None:
                forget_flows(machine, keep=lambda to: to in after.named or any(to in network for network in networks))
            after.in_doubt = False

    def _change(self, machine: IPv4Address, before: _Gate, after: _Gate) -> None:
        """Put a machine elsewhere. Where its elements may not be as we know them, all rules are loaded anew. Raises OSError."""
        after.in_doubt = True
        self._gates[machine] = after
        if not before.in_doubt or self._policy is None:
            gone = [address for address in before.named if address not in after.named]
            try:
                nftables.confine(self._table, machine, before.egress, after.egress, gone)
            except OSError as error:
                if self._policy is None:
                    raise
                _log.warning("the packet rules are not as they were left, and are loaded again: %s", error)
            else:
                return
        self._load(self._policy)

    def release(self, machine: IPv4Address) -> None:
        """The address is nobody's now. Raises OSError."""
        with self._lock:
            gate = self._gates.get(machine)
            if gate is not None:
                self._change(machine, gate, _Gate(gate.machine_id, PUBLIC))
                del self._gates[machine]  # only now: what is left of a policy would bind whoever has the address next
                # A machine that was woken meanwhile has another address, and needs its file.
                if all(other.machine_id != gate.machine_id for other in self._gates.values()):
                    (self._directory / gate.machine_id).unlink(missing_ok=True)

    def let_in(self, machine: IPv4Address, name: str, found: Mapping[IPv4Address, int]) -> bool:
        """Let a machine reach what a name stands for, for at least the seconds given; False if its policy does not allow that (any more).

        Addresses that are not public are left out. Raises OSError.
        """
        with self._lock:
            gate = self._gates.get(machine)
            if gate is None or gate.egress.allow is None:
                return gate is None
            if not gate.egress.allows_name(name):
                return False
            now = time.monotonic()
            gate.named = {a: why for a, why in gate.named.items() if why[1] > now}
            wanted = {
                address: max(ttl + MARGIN_SECONDS, LEAST_SECONDS)
                for address, ttl in found.items()
                if not any(address in denied for denied in UNREACHABLE)
                and gate.named.get(address, ("", 0.0))[1] < now + ttl + 1
            }
            if len(wanted) > MOST_OF_ONE_ANSWER or len(gate.named.keys() | wanted.keys()) > MOST_ADDRESSES:
                _log.warning("machine %s has asked for more names than it can be let in to", gate.machine_id)
                return False
            if wanted:
                nftables.let_in(self._table, machine, wanted)
                gate.named |= {address: (name, now + seconds) for address, seconds in wanted.items()}
            return True


def _allowed(egress: Egress, name: str) -> bool:
    return bool(egress.allow) and bool(name) and egress.allows_name(name)


def _write(file: Path, egress: Egress) -> None:
    if egress.allow is None:
        file.unlink(missing_ok=True)
        return
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_bytes(msgspec.json.encode(egress.allow))
        new.rename(file)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _read(file: Path) -> Egress:
    try:
        return Egress(msgspec.json.decode(file.read_bytes(), type=tuple[str, ...]))
    except msgspec.DecodeError:
        _log.error("the egress policy of %s cannot be read: it reaches nothing", file.name)
        return NOTHING
