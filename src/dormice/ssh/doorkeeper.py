"""Who is let in to try: bounds on connections that have not logged in yet, and on addresses that fail to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

from dormice.domain.limits import Limits
from dormice.engine.ssh_traffic import SshTraffic

_KNOWN_ADDRESSES = 10_000
_MINUTE = 60.0


class Doorkeeper:
    """Counts connections by whether they have logged in, and failures by address."""

    def __init__(self, limits: Limits, now: Callable[[], float], traffic: SshTraffic) -> None:
        """`now` gives seconds that nobody puts forward or back. The counts are kept in `traffic`."""
        self._limits = limits
        self._now = now
        self._traffic = traffic
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By address: how many failures are held against it, and since when they have been paid off."""

    def admit(self, address: str) -> str | None:
        """Take a connection in, or say why not."""
        refusal = self._refusal(address)
        if refusal is None:
            self._traffic.logging_in += 1
        else:
            self._traffic.refused += 1
        return refusal

    def _refusal(self, address: str) -> str | None:
        limits, traffic = self._limits, self._traffic
        if traffic.connections >= limits.ssh_connections:
            return "there are too many connections (ssh_connections)"
        if traffic.logging_in >= limits.ssh_logins:
            return "too many are logging in (ssh_logins)"
        if self._held_against(_block(address)) >= limits.ssh_failed_logins_per_minute:
            return "too many logins failed (ssh_failed_logins_per_minute)"
        return None

    def logged_in(self) -> None:
        """One that was admitted is no stranger any more."""
        self._traffic.logging_in -= 1
        self._traffic.logged_in += 1
        self._traffic.accepted += 1

    def left(self, address: str, *, logged_in: bool) -> None:
        """One that was admitted is gone."""
        if logged_in:
            self._traffic.logged_in -= 1
            return
        self._traffic.logging_in -= 1
        self._traffic.failed += 1
        block = _block(address)
        self._failures[block] = (self._held_against(block) + 1, self._now())
        self._failures.move_to_end(block)
        while len(self._failures) > _KNOWN_ADDRESSES:
            self._failures.popitem(last=False)

    def _held_against(self, block: str) -> float:
        count, since = self._failures.get(block, (0.0, self._now()))
        paid = (self._now() - since) * self._limits.ssh_failed_logins_per_minute / _MINUTE
        return max(count - paid, 0.0)


def _block(address: str) -> str:
    """What one owner has: an IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))
    return address
