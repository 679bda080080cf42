"""Who may try to log in."""

from __future__ import annotations

from dormice.domain.limits import Limits
from dormice.engine.ssh_traffic import SshTraffic
from dormice.ssh.doorkeeper import Doorkeeper

LIMITS = Limits(ssh_connections=4, ssh_logins=2, ssh_failed_logins_per_minute=3)


class Watch:
    """Seconds that are moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _fail(door: Doorkeeper, address: str, times: int) -> None:
    for _ in range(times):
        assert door.admit(address) is None
        door.left(address, logged_in=False)


def test_strangers_are_counted_until_they_have_logged_in_or_left() -> None:
    door = Doorkeeper(LIMITS, Watch(), SshTraffic())
    assert door.admit("192.0.2.1") is None
    assert door.admit("192.0.2.2") is None
    assert "ssh_logins" in str(door.admit("192.0.2.3"))
    door.logged_in()
    assert door.admit("192.0.2.3") is None
    door.left("192.0.2.3", logged_in=False)
    door.logged_in()
    assert door.admit("192.0.2.3") is None
    door.logged_in()
    assert door.admit("192.0.2.3") is None
    door.logged_in()
    assert "ssh_connections" in str(door.admit("192.0.2.4"))
    door.left("192.0.2.3", logged_in=True)
    assert door.admit("192.0.2.4") is None


def test_an_address_that_fails_waits_and_others_do_not() -> None:
    watch = Watch()
    door = Doorkeeper(LIMITS, watch, SshTraffic())
    _fail(door, "192.0.2.1", 3)
    assert "ssh_failed_logins_per_minute" in str(door.admit("192.0.2.1"))
    _fail(door, "192.0.2.2", 1)
    watch.now += 20
    _fail(door, "192.0.2.1", 1)
    assert door.admit("192.0.2.1") is not None
    watch.now += 60
    _fail(door, "192.0.2.1", 3)


def test_who_logs_in_has_not_failed() -> None:
    door = Doorkeeper(LIMITS, Watch(), SshTraffic())
    for _ in range(100):
        assert door.admit("192.0.2.1") is None
        door.logged_in()
        door.left("192.0.2.1", logged_in=True)


def test_one_owner_has_many_addresses_of_ipv6() -> None:
    door = Doorkeeper(LIMITS, Watch(), SshTraffic())
    for last in range(3):
        _fail(door, f"2001:db8::{last}", 1)
    assert door.admit("2001:db8::ff") is not None
    assert door.admit("2001:db8:0:1::1") is None
    _fail(Doorkeeper(LIMITS, Watch(), SshTraffic()), "fe80::1%eth0", 3)


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    door = Doorkeeper(LIMITS, Watch(), SshTraffic())
    for number in range(12_000):
        _fail(door, f"10.0.{number // 250}.{number % 250}", 1)
    assert len(door._failures) == 10_000
