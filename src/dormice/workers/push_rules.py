"""Where the server may push to. A worker names the address itself, so it is a way to make the server call addresses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from dormice.domain.errors import Invalid
from dormice.outbound.targets import (
    URL_CHARACTERS,
    Address,
    AllowList,
    Target,
    UnusableUrl,
    forbidden,
    meanings,
    target_of,
)

__all__ = ["URL_CHARACTERS", "Address", "PushPolicy", "Target", "check_push_url", "push_target"]


@dataclass(frozen=True)
class PushPolicy:
    """Where workers may be, and how long and how much they are listened to.

    `allowed` has networks (`10.0.0.0/8`, `192.0.2.7`) and host names, which stand for themselves and all names below
    them (`example.com`); empty, it allows every address, private ones too. Whatever it says, an address is never
    link-local, multicast, unspecified or a cloud's metadata service, and loopback only with `loopback`.
    `timeout_seconds` and `cancel_timeout_seconds` (above 0) are for a whole call, `answer_bytes` (above 0) for an
    answer with its head. Raises ValueError for an entry of `allowed` that is neither a network nor a name.
    """

    loopback: bool
    allowed: tuple[str, ...] = ()
    timeout_seconds: float = 10.0
    cancel_timeout_seconds: float = 30.0
    answer_bytes: int = 64 * 1024
    listed: AllowList = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "listed", AllowList.read(self.allowed))

    def allows_name(self, host: str) -> bool:
        """Whether a worker of this name may be anywhere that is not forbidden."""
        return not self.allowed or self.listed.has_name(host)

    def allows(self, host: str, address: Address) -> bool:
        """Whether `address` may be connected to for a URL with `host` in it."""
        if forbidden(address) or (not self.loopback and any(each.is_loopback for each in meanings(address))):
            return False
        return self.allows_name(host) or self.listed.has_address(address)


def check_push_url(url: str, policy: PushPolicy) -> None:
    """Check the form of a worker's URL; nothing is looked up. Raises Invalid (400)."""
    target = push_target(url)
    if target.literal is not None:
        if not policy.allows(target.host, target.literal):
            raise _invalid(f"{target.host} is an address that this server does not push to{_remedy(policy)}")
    elif not policy.loopback and (target.host == "localhost" or target.host.endswith(".localhost")):
        raise _invalid(f"{target.host} is this server's own host: give the worker's address as this server sees it")
    elif not policy.allows_name(target.host) and not policy.listed.networks:
        raise _invalid(f"{target.host} is a name that this server does not push to{_remedy(policy)}")


@lru_cache(maxsize=1024)
def push_target(url: str) -> Target:
    """Take a push URL apart; its path ends without a slash. Raises Invalid (400)."""
    try:
        target = target_of(url)
    except UnusableUrl as problem:
        raise _invalid(str(problem)) from None
    if "?" in url:
        raise _invalid("it may have no query, as /execute is added to it: leave out ? and what follows")
    return replace(target, path=target.path.rstrip("/"))


def _remedy(policy: PushPolicy) -> str:
    return f"; allowed are {', '.join(policy.allowed)}" if policy.allowed else ": give the worker's own address"


def _invalid(problem: str) -> Invalid:
    return Invalid(f"push_endpoint_url: {problem}", location="body.push_endpoint_url", status=400)
