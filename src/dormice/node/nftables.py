"""The packet rules, as text for one `nft -f -`: what machines may reach, and who may reach machines.

The rules name machines' interfaces by a wildcard, so starting a machine changes none of them; one that may not reach everything
public is an element of their sets. Loading replaces the whole table in one transaction: there is no moment without rules. Another
table of the host can forbid more than this one, never less (a drop anywhere is final).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from dormice.domain.egress import UNREACHABLE, Egress
from dormice.node.netlink import keep_elements

GUARD = "dormice_guard"
"""The table of the guard, which all nodes of a host share."""

_CLOSED, _LISTED, _NETWORKS, NAMED = "closed", "listed", "allowed_networks", "allowed_names"
_NAMED_ELEMENT = re.compile(r"([0-9.]+) \. ([0-9.]+)[^,}]*? expires (\w+)")
_SPAN = re.compile(r"(\d+)(ms|[dhms])")
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0}


@dataclass(frozen=True, slots=True)
class Policy:
    """`table` in the family inet; `interfaces` begin the names of all machines' host interfaces.

    `flows` and `flows_per_second` bound one machine's share of the host's connection tracking table,
    `dns_per_second` its questions.
    """

    table: str
    interfaces: str
    network: IPv4Network
    gateway: IPv4Address
    denied: Sequence[IPv4Network] = UNREACHABLE
    flows: int = 2048
    flows_per_second: int = 500
    dns_per_second: int = 200


def load(
    policy: Policy,
    confined: Mapping[IPv4Address, Egress] | None = None,
    named: Mapping[tuple[IPv4Address, IPv4Address], int] | None = None,
) -> None:
    """Replace the rules; machines are `confined` from the first moment on. Raises OSError with what nft said."""
    _nft(ruleset(policy) + restore(policy.table, confined or {}, named or {}))


def check(policy: Policy) -> None:
    """Ask nft and the kernel whether they would take the rules. Raises OSError with what they said."""
    _nft(ruleset(policy), "--check")


def confine(table: str, machine: IPv4Address, before: Egress, after: Egress, named: Sequence[IPv4Address] = ()) -> None:
    """Replace a machine's policy at once; `named` are the addresses that were let in for it and no longer are. Raises OSError."""
    gone = [*elements(machine, before), *((NAMED, f"{machine} . {address}") for address in named)]
    # What is deleted has to be there, and an address may just have timed out.
    lines = [f"add element inet {table} {name} {{ {value} }}" for name, value in gone]
    lines += [f"delete element inet {table} {name} {{ {value} }}" for name, value in gone]
    lines += [f"add element inet {table} {name} {{ {value} }}" for name, value in elements(machine, after)]
    if lines:
        _nft("\n".join(lines) + "\n")


def restore(
    table: str, policies: Mapping[IPv4Address, Egress], named: Mapping[tuple[IPv4Address, IPv4Address], int]
) -> str:
    """The text that puts machines' policies, and the addresses let in with the seconds left to them, into a new table."""
    found = [element for machine, egress in policies.items() for element in elements(machine, egress)]
    found += [(NAMED, f"{machine} . {address} timeout {left}s") for (machine, address), left in named.items()]
    return "".join(f"add element inet {table} {name} {{ {value} }}\n" for name, value in found)


def elements(machine: IPv4Address, egress: Egress) -> Iterator[tuple[str, str]]:
    """The sets that a policy puts a machine in, and as what."""
    if egress.allow is None:
        return
    if not egress.allow:
        yield _CLOSED, str(machine)
        return
    yield _LISTED, str(machine)
    for network in collapse_addresses(egress.networks):
        yield _NETWORKS, f"{machine} . {network}"


def let_in(table: str, machine: IPv4Address, addresses: Mapping[IPv4Address, int]) -> None:
    """Let a machine reach addresses for so many seconds from now. Raises OSError."""
    keep_elements(table, NAMED, {machine.packed + address.packed: left for address, left in addresses.items()})


def named(table: str) -> dict[tuple[IPv4Address, IPv4Address], int]:
    """Which machine was let in where by a name, and the seconds that are left of it."""
    done = subprocess.run(["nft", "list", "set", "inet", table, NAMED], capture_output=True, text=True, check=False)
    return {
        (IPv4Address(machine), IPv4Address(address)): seconds
        for machine, address, expires in _NAMED_ELEMENT.findall(done.stdout)
        if (seconds := _seconds(expires)) > 0
    }


def _seconds(text: str) -> int:
    """Seconds of `1h2m3s4ms`."""
    return sum(int(amount) * _UNITS[unit] for amount, unit in _SPAN.findall(text))


def unload(table: str) -> None:
    """Remove the rules, if they are there. Raises OSError."""
    _nft(f"add table inet {table}\ndelete table inet {table}\n")


def guard(interfaces: Sequence[str]) -> None:
    """Let `interfaces` forward only answers, and what somebody's rules redirect: the host was no router before us."""
    rules = "".join(f'        iifname "{name}" ct state new ct status ! dnat drop\n' for name in interfaces)
    chain = f"    chain forwarded {{\n        type filter hook forward priority filter; policy accept;\n{rules}    }}\n"
    _nft(f"add table inet {GUARD}\ndelete table inet {GUARD}\ntable inet {GUARD} {{\n{chain}}}\n")


def loaded(table: str) -> bool:
    """Whether there is such a table."""
    return subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, check=False).returncode == 0


def pass_docker(interfaces: str) -> None:
    """Let machines' packets past the FORWARD chain of Docker, when Docker has one. Our own rules judge them as before."""
    if _iptables("--numeric", "--list", "DOCKER-USER").returncode != 0:
        return
    for rule in _docker_rules(interfaces):
        if _iptables("--check", *rule).returncode != 0 and (done := _iptables("--insert", *rule)).returncode != 0:
            raise OSError(f"iptables refused a rule for Docker: {done.stderr.strip()}")


def forget_docker(interfaces: str) -> None:
    """The counterpart of `pass_docker`."""
    for rule in _docker_rules(interfaces):
        _iptables("--delete", *rule)


def _docker_rules(interfaces: str) -> list[tuple[str, ...]]:
    answers = ("--match", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    return [
        ("DOCKER-USER", "--in-interface", f"{interfaces}+", "--jump", "ACCEPT"),
        ("DOCKER-USER", "--out-interface", f"{interfaces}+", *answers, "--jump", "ACCEPT"),
    ]


def ruleset(policy: Policy) -> str:
    machine = f'"{policy.interfaces}*"'
    denied = ", ".join(str(network) for network in (*policy.denied, policy.network))
    dns_rate = f"{policy.dns_per_second}/second burst {policy.dns_per_second} packets"
    flow_rate = f"{policy.flows_per_second}/second burst {2 * policy.flows_per_second} packets"
    return f"""add table inet {policy.table}
delete table inet {policy.table}
table inet {policy.table} {{
    set denied {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {denied} }}; }}
    set flows {{ type ipv4_addr; size {policy.network.num_addresses}; flags dynamic; }}
    set new_flows {{ type ipv4_addr; size {policy.network.num_addresses}; flags dynamic,timeout; timeout 1m; }}
    set questions {{ type ipv4_addr; size {policy.network.num_addresses}; flags dynamic,timeout; timeout 1m; }}

    # Machines that reach nothing, and those that reach only what a list names: its networks, and what its names stand for.
    set {_CLOSED} {{ type ipv4_addr; }}
    set {_LISTED} {{ type ipv4_addr; }}
    set {_NETWORKS} {{ type ipv4_addr . ipv4_addr; flags interval; }}
    set {NAMED} {{ type ipv4_addr . ipv4_addr; flags timeout; }}

    # Before connection tracking, so that what is refused here never takes an entry of it.
    chain arriving {{
        type filter hook prerouting priority raw; policy accept;
        iifname {machine} goto from_machine
        iifname != "lo" ip saddr {policy.network} drop
    }}
    chain from_machine {{
        meta nfproto != ipv4 drop
        fib saddr . iif oif missing drop
        ip saddr @{_CLOSED} goto refused
        ip daddr {policy.gateway} meta l4proto {{ tcp, udp }} th dport 53 goto question
        fib daddr type != unicast goto refused
        ip daddr @denied goto refused
    }}
    chain question {{
        update @questions {{ ip saddr limit rate over {dns_rate} }} drop
        notrack accept
    }}
    chain refused {{
        reject with icmpx admin-prohibited
    }}

    chain forwarded {{
        type filter hook forward priority filter; policy accept;
        iifname {machine} goto outward
        oifname {machine} ct state established,related accept
        oifname {machine} drop
    }}
    chain outward {{
        meta nfproto != ipv4 drop
        oifname {machine} drop
        # Again: somebody's DNAT may have turned the packet since it arrived.
        ip daddr @denied goto refused
        ct state invalid drop
        ct state new ip saddr @{_LISTED} jump on_the_list
        ct state new update @new_flows {{ ip saddr limit rate over {flow_rate} }} drop
        ct state new add @flows {{ ip saddr ct count over {policy.flows} }} goto refused
        tcp flags syn tcp option maxseg size set rt mtu
    }}

    chain on_the_list {{
        ip saddr . ip daddr @{_NETWORKS} return
        ip saddr . ip daddr @{NAMED} return
        goto refused
    }}

    chain delivered {{
        type filter hook input priority filter; policy accept;
        iifname {machine} ip daddr {policy.gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
        iifname {machine} drop
        iifname != "lo" ip daddr {policy.gateway} drop
    }}

    chain leaving {{
        type filter hook output priority raw; policy accept;
        oifname {machine} goto to_machine
    }}
    chain to_machine {{
        ip saddr {policy.gateway} meta l4proto {{ tcp, udp }} th sport 53 notrack accept
        icmp type {{ destination-unreachable, time-exceeded }} accept
        drop
    }}

    chain translated {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {policy.network} oifname != {machine} masquerade
    }}
}}
"""  # noqa: S608 - no SQL, and every value is ours


def _nft(text: str, *options: str) -> None:
    try:
        done = subprocess.run(["nft", *options, "-f", "-"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError("nft is not installed (Debian package nftables)") from None
    if done.returncode != 0:
        raise OSError(f"nft refused the packet rules: {done.stderr.strip()}")


def _iptables(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["iptables", "--wait", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no iptables, no Docker chains
        return subprocess.CompletedProcess(command, 127, "", "iptables is not installed")
