"""The packet rules, as text for one `nft -f -`: what machines may reach, and who may reach machines.

The rules name machines' interfaces by a wildcard, so starting a machine changes none of them. Loading replaces the whole
table in one transaction: there is no moment without rules. Another table of the host can forbid more than this one, never
less (a drop anywhere is final).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

DENIED = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # the metadata service of Azure, at a public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # and that of the older Oracle cloud
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""What machines may not reach, besides every address of the host itself and each other."""

GUARD = "dormice_guard"
"""The table of the guard, which all nodes of a host share."""


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
    denied: Sequence[IPv4Network] = DENIED
    flows: int = 2048
    flows_per_second: int = 500
    dns_per_second: int = 200


def load(policy: Policy) -> None:
    """Replace the rules. Raises OSError with what nft said."""
    _nft(ruleset(policy))


def check(policy: Policy) -> None:
    """Ask nft and the kernel whether they would take the rules. Raises OSError with what they said."""
    _nft(ruleset(policy), "--check")


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

    # Before connection tracking, so that what is refused here never takes an entry of it.
    chain arriving {{
        type filter hook prerouting priority raw; policy accept;
        iifname {machine} goto from_machine
        iifname != "lo" ip saddr {policy.network} drop
    }}
    chain from_machine {{
        meta nfproto != ipv4 drop
        fib saddr . iif oif missing drop
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
        ct state new update @new_flows {{ ip saddr limit rate over {flow_rate} }} drop
        ct state new add @flows {{ ip saddr ct count over {policy.flows} }} goto refused
        tcp flags syn tcp option maxseg size set rt mtu
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
