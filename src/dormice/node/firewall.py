"""Whether packet rules that are not ours stand in the way of machines: a drop in any table is final."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`what` drops packets of machines, and the commands that let them pass."""

    what: str
    fix: str


def obstacles(interfaces: str) -> list[Obstacle]:
    """Chains that drop by default what machines send or get. `interfaces` begin machines' interface names.

    Raises OSError when nft cannot list them.
    """
    try:
        done = subprocess.run(["nft", "--json", "list", "chains"], capture_output=True, check=False)
    except FileNotFoundError:
        raise OSError("nft is not installed") from None
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip())
    return list(judge(done.stdout, interfaces))


def judge(listing: bytes, interfaces: str) -> Iterator[Obstacle]:
    """`obstacles` of what nft printed."""
    entries: list[dict[str, Any]] = msgspec.json.decode(listing).get("nftables", [])
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    docker = any(chain["name"] == "DOCKER-USER" and chain["family"] == "ip" for chain in chains)
    for chain in chains:
        if chain.get("policy") != "drop" or chain["family"] not in ("ip", "inet"):
            continue
        where = f"{chain['family']} {chain['table']} {chain['name']}"
        rule = f"nft insert rule {where} "
        if chain.get("hook") == "forward" and not (docker and chain["table"] == "filter"):
            accept = (f'iifname "{interfaces}*" accept', f'oifname "{interfaces}*" ct state established,related accept')
            yield Obstacle(f"{where} drops what is forwarded", "; ".join(f"{rule}'{words}'" for words in accept))
        if chain.get("hook") == "input":
            words = f'iifname "{interfaces}*" meta l4proto {{ tcp, udp }} th dport 53 accept'
            yield Obstacle(f"{where} drops machines' questions to the nameserver", f"{rule}'{words}'")
